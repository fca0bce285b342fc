"""Factored against literal Muscle loss, forward and backward: `python -m fedmuscle_core.benchmarks.loss`.

literal: all B^M tuples as the paper writes them, S (B^M, d) and alpha (B^M,) formed and used, by `exchange.tuple_payload` and
`tuple_loss`.  Both: best of several repeats after a warm-up.
"""

import resource
import sys
import time

import torch
import torch.nn.functional as F

from ..exchange import tuple_loss, tuple_payload
from ..experiments.store import environment, now
from ..losses import muscle_loss
from .saving import parser_of, save

CASES = [(32, 2), (32, 3), (64, 3), (32, 4)]              # (B, M), literal and factored
FACTORED_ONLY = [(256, 3), (32, 5)]                       # the literal one would need 16 GiB and 32 GiB for S alone
SAMPLED = [(32, 1), (32, 3), (32, 5), (32, 7), (32, 9)]


def measure(batch_size, num_peers, dim, evaluate, repeats):
    """Best of `repeats` times in seconds of one forward and backward pass after a warm-up, and the loss."""
    rng = torch.Generator().manual_seed(batch_size + num_peers)
    anchor = torch.randn(batch_size, dim, generator=rng).requires_grad_()
    peers = F.normalize(torch.randn(num_peers, batch_size, dim, generator=rng), dim=2)
    times = []
    for _ in range(repeats + 1):
        clock = time.perf_counter()
        loss = evaluate(anchor, peers)
        loss.backward()
        times.append(time.perf_counter() - clock)
    return min(times[1:]), loss.item()


def literal(anchor, peers):
    return tuple_loss(F.normalize(anchor, dim=1), *tuple_payload(peers, 0.2, 0.15))


def sampled(anchor, peers):
    return muscle_loss(anchor, peers, estimator="sampled", generator=torch.Generator().manual_seed(0))


def peak_memory():
    """Peak resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** 20 if sys.platform == "darwin" else peak / 2 ** 10


def run(dim, threads, quick=False):
    """All rows as dictionaries.  The bounded-memory cases come first: peak memory can only be read before it has risen."""
    torch.set_num_threads(threads)
    measure(8, 2, dim, muscle_loss, 3)
    rows, start = [], peak_memory()
    for batch_size, num_peers in [] if quick else FACTORED_ONLY:
        seconds, loss = measure(batch_size, num_peers, dim, muscle_loss, 1)
        rows.append({"evaluation": "factored", "B": batch_size, "M": num_peers, "seconds": seconds, "loss": loss,
                     "extra_MiB": peak_memory() - start})
    for batch_size, num_peers in SAMPLED:
        seconds, loss = measure(batch_size, num_peers, dim, sampled, 10)
        rows.append({"evaluation": "sampled", "B": batch_size, "M": num_peers, "seconds": seconds, "loss": loss})
    for batch_size, num_peers in CASES[:2] if quick else CASES:
        seconds, loss = measure(batch_size, num_peers, dim, muscle_loss, 20)
        rows.append({"evaluation": "factored", "B": batch_size, "M": num_peers, "seconds": seconds, "loss": loss})
        slow, same = measure(batch_size, num_peers, dim, literal, 2 if batch_size ** num_peers > 1e5 else 5)
        rows.append({"evaluation": "literal", "B": batch_size, "M": num_peers, "seconds": slow, "loss": same,
                     "times_slower": slow / seconds})
    return rows


def record(dim=256, threads=1, quick=False):
    """The rows with what they were measured on, as stored in `data/results/benchmark_loss.json`."""
    return {"dim": dim, "threads": threads, "measured": now(), "versions": environment(), "rows": run(dim, threads, quick)}


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="only the cases that take seconds")
    args = parser.parse_args(argv)
    measured = record(args.dim, args.threads, args.quick)
    print(f"d = {args.dim}, {args.threads} thread(s), float32, forward + backward")
    print(f"{'evaluation':10} {'B':>4} {'M':>2} {'ms':>10} {'literal / factored':>19} {'loss':>8} {'extra MiB':>10}")
    for row in measured["rows"]:
        ratio = f"{row['times_slower']:.0f}x" if "times_slower" in row else ""
        memory = f"{row['extra_MiB']:.0f}" if "extra_MiB" in row else ""
        print(f"{row['evaluation']:10} {row['B']:4} {row['M']:2} {1e3 * row['seconds']:10.2f} {ratio:>19} "
              f"{row['loss']:8.4f} {memory:>10}")
    save(args.save, measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())

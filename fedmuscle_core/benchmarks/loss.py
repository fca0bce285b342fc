"""Time and memory of the Muscle loss in three ways, forward and backward: `python -m fedmuscle_core.benchmarks.loss`.

literal: all B^M tuples as the paper writes them, S (B^M, d) and alpha (B^M,) formed and used; factored: the exact sum without
them; sampled: 512 tuples an anchor.  Best of several repeats after a warm-up, one thread, float32.  Each case has a process of
its own, so that its peak memory is its own.
"""

import resource
import sys
import time
from multiprocessing import get_context

import torch
import torch.nn.functional as F

from ..exchange import tuple_loss, tuple_payload
from ..losses import muscle_loss
from .saving import parser_of, save

BATCH_SIZES = (8, 16, 32, 64, 256)
PEER_COUNTS = range(1, 10)
# Sizes beyond which a way is left out: tuples written out; multiply-adds; none.
LIMITS = {"literal": 2 ** 20, "factored": 2 ** 32, "sampled": 2 ** 80}


def literal(anchor, peers):
    return tuple_loss(F.normalize(anchor, dim=1), *tuple_payload(peers, 0.2, 0.15))


def sampled(anchor, peers):
    return muscle_loss(anchor, peers, estimator="sampled", generator=torch.Generator().manual_seed(0))


EVALUATIONS = {"literal": literal, "factored": muscle_loss, "sampled": sampled}


def cases(quick=False):
    """(evaluation, B, M) that fit: B^M tuples for the literal one, B^(M+1) multiply-adds for the others."""
    return [(evaluation, batch_size, num_peers) for evaluation in EVALUATIONS
            for batch_size in (BATCH_SIZES[:1] if quick else BATCH_SIZES)
            for num_peers in (PEER_COUNTS[:3] if quick else PEER_COUNTS)
            if batch_size ** (num_peers + (evaluation != "literal")) <= LIMITS[evaluation]]


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


def peak_memory():
    """Peak resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** 20 if sys.platform == "darwin" else peak / 2 ** 10


def one(evaluation, batch_size, num_peers, dim):
    """The row of one case, measured in this process."""
    torch.set_num_threads(1)
    measure(4, 2, dim, muscle_loss, 1)                                        # what torch loads once is not the case's own
    start = peak_memory()
    slow = batch_size ** num_peers > 2 ** 16 and evaluation != "sampled"
    seconds, loss = measure(batch_size, num_peers, dim, EVALUATIONS[evaluation], 2 if slow else 20)
    return {"evaluation": evaluation, "B": batch_size, "M": num_peers, "seconds": seconds, "loss": loss,
            "extra_MiB": peak_memory() - start}


def run(dim, quick=False):
    """All rows, each case in a forked process; the literal ones say how many `times_slower` than the factored ones they are."""
    rows = []
    for case in cases(quick):
        with get_context("fork").Pool(1) as pool:
            rows.append(pool.apply(one, (*case, dim)))
    factored = {(row["B"], row["M"]): row["seconds"] for row in rows if row["evaluation"] == "factored"}
    return [row | ({"times_slower": row["seconds"] / factored[row["B"], row["M"]]} if row["evaluation"] == "literal" else {})
            for row in rows]


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--quick", action="store_true", help="B = 8 and up to three peers only")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rows = run(args.dim, args.quick)
    for row in rows:
        slower = f"   {row['times_slower']:.1f} times as long as factored" if "times_slower" in row else ""
        print(f"{row['evaluation']:9} B = {row['B']:3} M = {row['M']} {1e3 * row['seconds']:10.2f} ms "
              f"{row['extra_MiB']:8.1f} MiB{slower}")
    save(args.save, {"dim": args.dim, "threads": 1, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Time and memory of the Muscle loss against peers and batch size: `python -m fedmuscle_core.benchmarks.peers`.

literal: all B^M tuples, S and alpha formed and used; factored: the exact sum without them; sampled: 512 tuples an anchor.
Forward and backward, each case in a process of its own, so that its peak memory is its own.
"""

import sys
from multiprocessing import get_context

import torch

from ..losses import muscle_loss
from .loss import literal, measure, peak_memory, sampled
from .saving import parser_of, save

BATCH_SIZES = (8, 16, 32, 64)
TIMED_COUNTS = range(1, 10)
EVALUATIONS = {"literal": literal, "factored": muscle_loss, "sampled": sampled}
LIMITS = {"literal": 2 ** 20, "factored": 2 ** 32, "sampled": 2 ** 62}        # tuples written out; multiply-adds; none


def cases(quick=False):
    """(evaluation, B, M) that fit: B^M tuples for the literal one, B^(M+1) multiply-adds for the factored one."""
    size = {"literal": 0, "factored": 1, "sampled": 1}
    return [(evaluation, batch_size, num_peers) for evaluation in EVALUATIONS
            for batch_size in (BATCH_SIZES[:1] if quick else BATCH_SIZES)
            for num_peers in (TIMED_COUNTS[:3] if quick else TIMED_COUNTS)
            if batch_size ** (num_peers + size[evaluation]) <= LIMITS[evaluation]]


def one(evaluation, batch_size, num_peers, dim):
    """The row of one case, measured in this process."""
    torch.set_num_threads(1)
    measure(4, 2, dim, muscle_loss, 1)                                        # what torch loads once is not the case's own
    start = peak_memory()
    slow = batch_size ** num_peers > 2 ** 16 and evaluation != "sampled"
    seconds, loss = measure(batch_size, num_peers, dim, EVALUATIONS[evaluation], 2 if slow else 10)
    return {"evaluation": evaluation, "B": batch_size, "M": num_peers, "seconds": seconds, "loss": loss,
            "extra_MiB": peak_memory() - start}


def run(dim, quick=False):
    """All rows; each case in a forked process."""
    rows = []
    for case in cases(quick):
        with get_context("fork").Pool(1) as pool:
            rows.append(pool.apply(one, (*case, dim)))
    return rows


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--quick", action="store_true", help="B = 8 and up to three peers only")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    measured = {"dim": args.dim, "threads": 1, "rows": run(args.dim, args.quick)}
    for row in measured["rows"]:
        print(f"{row['evaluation']:9} B = {row['B']:3} M = {row['M']} {1e3 * row['seconds']:10.2f} ms "
              f"{row['extra_MiB']:8.1f} MiB")
    save(args.save, measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())

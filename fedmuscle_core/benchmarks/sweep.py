"""How much faster a sweep is with two workers than with one: `python -m fedmuscle_core.benchmarks.sweep`.

The same runs (Setup 1, FedMuscle, few rounds, one seed each) from nothing, once with one worker and once with two.
"""

import sys
import tempfile
import time

from ..experiments.runs import sweep
from ..experiments.settings import Settings
from .saving import parser_of, save


def measure(runs, rounds):
    """{workers: seconds} of a sweep of `runs` runs, each into an empty folder."""
    wanted = [Settings(seed=seed, rounds=rounds, test_size=0) for seed in range(runs)]
    seconds = {}
    for workers in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            sweep(wanted, folder, workers)
            seconds[workers] = round(time.perf_counter() - begun, 2)
    return seconds


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("--runs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args(argv)
    seconds = measure(args.runs, args.rounds)
    ratio = seconds[1] / seconds[2]
    print(f"{args.runs} runs: {seconds[1]:.1f} s with one worker, {seconds[2]:.1f} s with two: {ratio:.2f} times faster")
    save(args.save, {"runs": args.runs, "rounds": args.rounds, "seconds": seconds, "times_faster": round(ratio, 3)})
    return 0


if __name__ == "__main__":
    sys.exit(main())

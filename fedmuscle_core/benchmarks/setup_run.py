"""Seconds of a round of Setup 1, and what makes them fewer: `python -m fedmuscle_core.benchmarks.setup_run`.

Plays rounds of `embedded1` in turn as they are, with the images of ResNets in the memory format that they had before version
0.8, and with the private sets that Setup 1 had before it, all else equal; one process, one thread.  Prints the ratio of each to
the rounds as they are, and the share of these that the networks' own forward and backward passes take: no code around the
networks can save more than the rest.
"""

import statistics
import sys
import time
from unittest import mock

import torch

from ..checks import positive_int
from ..experiments.build import build
from ..experiments.settings import Settings
from ..experiments.setups import SETUPS, Setup, with_sizes
from ..networks import backbones
from . import begun, play_round
from .round import pass_clock
from .saving import parser_of, save

SIZES_BEFORE = (800, 800, 800, 400, 400, 40)


def variants(method):
    """{name: (federation, the memory format of its ResNets' images)}."""
    usual = SETUPS["embedded1"]
    large = Setup("large_sets", with_sizes(usual.clients, *SIZES_BEFORE), usual.settings)
    made = {name: build(Settings.of(setup, method, test_size=0)) for name, setup in (
        ("as it is", usual), ("images in the usual format", usual), ("private sets as before 0.8", large))}
    return {name: (federation, torch.contiguous_format if "format" in name else torch.channels_last)
            for name, federation in made.items()}


def seconds(federation, round, layout):
    """(seconds of a round with its validation, seconds in the networks' passes of training)."""
    with mock.patch.object(backbones, "RESNET_FORMAT", layout):
        clock = time.perf_counter()
        with pass_clock([client.network for client in federation.clients]) as passes:
            play_round(federation, round)
            federation.note_scores("validation", round)
        return time.perf_counter() - clock, passes[0]


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("--method", default="fedmuscle")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args(argv)
    positive_int("repeats", args.repeats)
    torch.set_num_threads(1)
    found = variants(args.method)
    rows = {name: [] for name in found}
    for federation, _ in found.values():
        begun(federation, 1 + args.repeats)
    for round in range(1, 2 + args.repeats):
        for name, (federation, layout) in found.items():
            taken = seconds(federation, round, layout)
            if round > 1:                                                     # the first one warms up
                rows[name].append(taken)
    medians = {name: statistics.median(whole for whole, _ in several) for name, several in rows.items()}
    share = statistics.median(passes / whole for whole, passes in rows["as it is"])
    for name, median in medians.items():
        print(f"{name:28} {median:6.2f} s a round   {median / medians['as it is']:.2f} times as long as it is")
    print(f"{100 * share:.0f} % of it in the networks' forward and backward passes")
    save(args.save, {"method": args.method, "seconds": rows, "share_of_passes": share,
                     "ratios": {name: median / medians["as it is"] for name, median in medians.items()}})
    return 0


if __name__ == "__main__":
    sys.exit(main())

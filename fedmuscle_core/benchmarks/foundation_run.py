"""What a run of FedMuscle on real photographs costs: `python -m fedmuscle_core.benchmarks.foundation_run`.

First what is kept of the frozen trunks is computed into an empty folder, for each setup by itself, the views of SimCLR among
it; then FedMuscle's run is played from it, in a process of its own, so that its time and peak memory are its own.  One thread.
"""

import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import torch

from ..experiments import trunks
from ..experiments.build import build
from ..experiments.profiles import profile_settings
from ..experiments.runs import run
from .loss import peak_memory
from .saving import parser_of, save

SETUP_NAMES = ("foundation1", "foundation2", "foundation_mixed")


def settings_of(setup, method):
    """The settings of a tuned run on a seed that no result has."""
    return profile_settings("foundation", setup, method, [200])[0]


def fill(setup, folder):
    """Seconds in which all that the setup's clients read of frozen trunks is computed, and MiB that it takes in `folder`."""
    torch.set_num_threads(1)
    trunks.FEATURES, clock = Path(folder), time.perf_counter()
    for method in ("fedmuscle", "simclr"):
        build(settings_of(setup, method))
    size = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return time.perf_counter() - clock, size / 2 ** 20


def play(setup, folder):
    """Seconds of a run of FedMuscle from what is kept in `folder`, and the peak memory of its process in MiB."""
    torch.set_num_threads(1)
    trunks.FEATURES, clock = Path(folder), time.perf_counter()
    with tempfile.TemporaryDirectory() as stored:
        run(settings_of(setup, "fedmuscle"), stored)
    return time.perf_counter() - clock, peak_memory()


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("--setups", nargs="+", default=SETUP_NAMES, choices=SETUP_NAMES)
    args, rows = parser.parse_args(argv), []
    for setup in args.setups:
        with tempfile.TemporaryDirectory() as folder:
            found = []
            for part in (fill, play):
                with get_context("spawn").Pool(1) as pool:
                    found += pool.apply(part, (setup, folder))
        names = ("seconds_to_keep", "MiB_kept", "seconds_of_run", "peak_MiB")
        rows.append({"setup": setup} | {name: round(value, 1) for name, value in zip(names, found, strict=True)})
        print("{setup:17} kept anew in {seconds_to_keep:.0f} s, {MiB_kept:.0f} MiB; a run of FedMuscle: "
              "{seconds_of_run:.0f} s, {peak_MiB:.0f} MiB at most".format(**rows[-1]), flush=True)
    save(args.save, {"rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())

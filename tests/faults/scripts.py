"""What `children.script` runs: `python scripts.py NAME ARGUMENT..`.  Worker processes import this file, and so have small
runs, too."""

import os
import sys
from pathlib import Path

from faults import small_runs

from fedmuscle_core.experiments.runs import sweep


def sweep_into(folder, workers):
    """The runs of small_runs.WANTED."""
    sweep(small_runs.WANTED, folder, int(workers), progress=False)


def tune(folder):
    """`python -m fedmuscle_core.experiments.tuning` of the setup small_runs.TUNED."""
    from fedmuscle_core.experiments import tuning

    know_setups()
    small_runs.tune_into(Path(folder))
    sys.exit(tuning.main(["--setup", small_runs.TUNED.name]))


def fedmuscle(folder, *arguments):
    """The command with the notebooks in `folder`, of which number 90 plans the runs of small_runs.WANTED, and a real data set
    "remote" of one file at the address FAULTS_URL."""
    from fedmuscle_core.commands import cli, reproduce
    from fedmuscle_core.world.real import layouts
    from fedmuscle_core.world.real.sources import SOURCES, File, Source

    know_setups()
    reproduce.NOTEBOOKS, reproduce.PLANS = Path(folder), {"90": lambda profile, seeds: small_runs.WANTED}
    file = File(os.environ.get("FAULTS_URL"), 10 ** 5, "0")
    SOURCES["remote"] = Source("a file", "ours", layouts.image_folder, files=(file,))
    sys.exit(cli.main(arguments))


def know_setups():
    from fedmuscle_core.experiments.setups import SETUPS

    SETUPS.update({setup.name: setup for setup in (small_runs.SMALL, small_runs.TUNED)})


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    {"sweep": sweep_into, "tune": tune, "fedmuscle": fedmuscle}[name](*arguments)

"""Where things are, as absolute paths: a notebook runs in its own folder, papermill in the shell's.

Without a clone around the package, results go below the folder the process started in.  In a clone, what a user computes and
draws goes below the git-ignored data/runs: committed runs and figures are read, and written only with FEDMUSCLE_COMMIT=1, as
`make mini` and `make notebooks` set it.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
STARTED = Path.cwd()
CLONE = (PACKAGE.parent / "pyproject.toml").is_file()
ROOT = PACKAGE.parent if CLONE else STARTED

BACKBONES = PACKAGE / "networks" / "pretrained"
PUBLISHED = PACKAGE / "analysis" / "published"
TUNED_TABLE = PACKAGE / "experiments" / "tuned.csv"
NOTEBOOKS = ROOT / "notebooks"                   # only in a clone
DATA = ROOT / "data"
PHOTO_BACKBONES = DATA / "raw" / "backbones"     # made from real photos, not to be committed
PRETRAINED = DATA / "raw" / "pretrained"         # made from installed packages, see networks.packaged
FEATURES = DATA / "raw" / "features"             # outputs of frozen trunks, see networks.kept
COMMITTED = ("mini",)                            # profiles whose runs and figures belong to a clone
STORED = DATA / "results"                        # those runs

for _name in ("FEDMUSCLE_RUNS", "FEDMUSCLE_FIGURES", "FEDMUSCLE_DATA", "FEDMUSCLE_CHECKPOINTS"):
    if os.environ.get(_name):
        os.environ[_name] = str(STARTED / os.environ[_name])     # kernels inherit it, and start elsewhere


def runs(profile):
    """What belongs to one profile, or to its user, and is git-ignored: executed notebooks, figures, runs; FEDMUSCLE_RUNS moves
    it."""
    return STARTED / (os.environ.get("FEDMUSCLE_RUNS") or DATA / "runs") / profile


def commits():
    """Whether runs and figures of COMMITTED profiles are written to where the committed ones are."""
    said = os.environ.get("FEDMUSCLE_COMMIT", "")
    if said not in ("", "0", "1"):
        raise ValueError(f"FEDMUSCLE_COMMIT: got {said!r}, expected '1' or nothing")
    return CLONE and said == "1"


def check_commits():
    """ValueError where what is made of committed runs alone would be made of a user's own as well."""
    if CLONE and not commits():
        raise ValueError("FEDMUSCLE_COMMIT: got nothing, expected '1': this is written from the committed runs, beside them")


def results(profile):
    """Folder of stored runs: STORED for COMMITTED profiles in a clone, else below the runs folder."""
    return STORED if CLONE and profile in COMMITTED else runs(profile) / "results"


def written_beside(path):
    """Where what belongs to a folder of runs, or a file in it, is written: below the runs folder where it is one of STORED and
    `commits` is false, else there."""
    found = Path(path).resolve()
    beside = CLONE and found.is_relative_to(STORED) and not commits()
    return runs("own") / found.relative_to(STORED) if beside else Path(path)


def layers(path):
    """Where what belongs to a folder of runs, or a file in it, is read: what a user has written, then what is committed."""
    return tuple(dict.fromkeys((written_beside(path), Path(path))))


def figures(profile):
    """Folder the notebooks draw into: below the runs folder, or `figures` for COMMITTED profiles where `commits` is true."""
    if chosen := os.environ.get("FEDMUSCLE_FIGURES"):
        return STARTED / chosen
    return ROOT / "figures" if commits() and profile in COMMITTED else runs(profile) / "figures"

"""Where things are, as absolute paths: a notebook runs in its own folder, papermill in the shell's.

Without a clone around the package, results go below the folder the process started in.
`fedmuscle reproduce` draws into the runs folder, never over the committed figures: it sets FEDMUSCLE_FIGURES for its notebooks.
"""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
STARTED = Path.cwd()
CLONE = (PACKAGE.parent / "pyproject.toml").is_file()
ROOT = PACKAGE.parent if CLONE else STARTED

BACKBONES = PACKAGE / "networks" / "pretrained"
PUBLISHED = PACKAGE / "analysis" / "published"
TUNED = PACKAGE / "experiments" / "tuned.csv"
NOTEBOOKS = ROOT / "notebooks"                   # only in a clone
DATA = ROOT / "data"
PHOTO_BACKBONES = DATA / "raw" / "backbones"     # made from real photos, not to be committed
PRETRAINED = DATA / "raw" / "pretrained"         # made from installed packages, see networks.packaged
FEATURES = DATA / "raw" / "features"             # outputs of frozen trunks, see networks.kept

for _name in ("FEDMUSCLE_RUNS", "FEDMUSCLE_FIGURES", "FEDMUSCLE_DATA", "FEDMUSCLE_CHECKPOINTS"):
    if os.environ.get(_name):
        os.environ[_name] = str(STARTED / os.environ[_name])     # kernels inherit it, and start elsewhere


def runs(profile):
    """Folder of executed notebook copies of one profile (git-ignored); FEDMUSCLE_RUNS moves it."""
    return STARTED / (os.environ.get("FEDMUSCLE_RUNS") or DATA / "runs") / profile


def results(profile):
    """Folder of stored runs: `data/results` for `mini` in a clone (committed), else below the runs folder."""
    return DATA / "results" if _committed(profile) else runs(profile) / "results"


def figures(profile):
    """Folder the notebooks draw into: `figures` for `mini` in a clone (committed), else below the runs folder."""
    if chosen := os.environ.get("FEDMUSCLE_FIGURES"):
        return STARTED / chosen
    return ROOT / "figures" if _committed(profile) else runs(profile) / "figures"


def _committed(profile):
    return CLONE and profile == "mini"

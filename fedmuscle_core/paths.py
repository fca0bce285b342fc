"""Where things are, as absolute paths: a notebook runs in its own folder, papermill in the shell's.

`fedmuscle reproduce` draws into the runs folder, never over the committed figures: it sets FEDMUSCLE_FIGURES for its notebooks.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
DATA = ROOT / "data"
PUBLISHED = DATA / "published"
BACKBONES = DATA / "backbones"
PHOTO_BACKBONES = DATA / "raw" / "backbones"     # made from real photos, not to be committed


def runs(profile):
    """Folder of executed notebook copies of one profile (git-ignored); FEDMUSCLE_RUNS moves it."""
    return Path(os.environ.get("FEDMUSCLE_RUNS") or DATA / "runs") / profile


def results(profile):
    """Folder of stored runs: `data/results` for `mini` (committed), below the runs folder for the others."""
    return DATA / "results" if profile == "mini" else runs(profile) / "results"


def figures(profile):
    """Folder the notebooks draw into: `figures` for `mini` (committed), below the runs folder for the others."""
    if chosen := os.environ.get("FEDMUSCLE_FIGURES"):
        return Path(chosen)
    return ROOT / "figures" if profile == "mini" else runs(profile) / "figures"

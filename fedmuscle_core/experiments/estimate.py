"""How long a sweep will take, by the wall times of the runs that are stored."""

from pathlib import Path
from statistics import median

from .setups import SETUPS
from .store import load_run


def seconds_per_client_round(folder):
    """{(setup, method): median wall seconds of a client and round} of the runs stored below `folder`, and {method: ...},
    {None: ...} over more of them, for what was never run."""
    times = {}
    for path in Path(folder).glob("*/*-seed*.json"):
        record, _ = load_run(path)
        settings = record["settings"]
        if settings["setup"] in SETUPS and settings["rounds"] > 1:
            took = record["wall_seconds"] / settings["rounds"] / len(SETUPS[settings["setup"]])
            for key in ((settings["setup"], settings["method"]), settings["method"], None):
                times.setdefault(key, []).append(took)
    return {key: median(found) for key, found in times.items()}


def estimate(settings_list, folder, workers=1):
    """Seconds that computing `settings_list` will take with `workers` processes, or nan where nothing is stored in `folder`."""
    known = seconds_per_client_round(folder)

    def took(settings):
        keys = ((settings.setup, settings.method), settings.method, None)
        each = next((known[key] for key in keys if key in known), float("nan"))
        return each * settings.rounds * len(SETUPS[settings.setup])
    return sum(map(took, settings_list)) / min(workers, max(1, len(settings_list)))


def as_text(seconds):
    """"40 s", "12 min" or "3.5 h"; "an unknown time" for nan."""
    if seconds != seconds:
        return "an unknown time"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

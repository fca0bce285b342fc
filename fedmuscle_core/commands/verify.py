"""`fedmuscle verify`: recompute stored runs and say whether they come out as they were stored."""

import tempfile

from ..checks import positive_int
from ..experiments.runs import can_run, data_used, run
from ..experiments.settings import Settings
from ..experiments.setups import SETUPS
from ..experiments.store import stored_runs
from ..methods import METHODS
from ..paths import results

EARLY_ROUNDS = 1
EARLY_TOLERANCE = 0.01     # relative, training losses of the first round
FINAL_MEAN = 3.0           # points, mean over clients of the test score
FINAL_CLIENT = 10.0        # points, test score of any one client: another processor moves a long run


def verify(profile, sample=None):
    """Recompute runs of `profile` and print a line for each.  Returns 0 if all agree, else 1.

    Runs on real data that are not here, and those of setups and methods that nothing here defines, are left out.
    sample: only so many, one of each setup and method in turn, methods that exchange before Local, quickest first.
    Agreement: training losses of round 1 within 1 %, mean test score within 3 points, each client's within 10; identical
    histories are reported as such, as one machine with one set of versions must give them.
    """
    stored = stored_runs(results(profile))
    if not stored:
        raise ValueError(f"profile: got {profile!r}, but {results(profile)} holds no stored runs")
    chosen = take_turns([(record, history) for record, history in stored if can_recompute(record)])
    if left := len(stored) - len(chosen):
        print(f"{left} runs left out: their setup or method is gone, or their real data or backbones are not here")
    if sample is not None:
        chosen = chosen[:positive_int("sample", sample)]
    agree = 0
    for record, history in chosen:
        settings = Settings.of(**record["settings"])
        with tempfile.TemporaryDirectory() as folder:
            _, again = run(settings, folder)
        good, text = compare(history, again)
        agree += good
        print(f"{'agrees ' if good else 'DIFFERS'}  {settings.describe()}: {text}")
    print(f"{agree} of {len(chosen)} runs agree")
    return 0 if agree == len(chosen) else 1


def can_recompute(record):
    """Whether the setup and the method of a stored run still exist, and the data and backbones that it had are at hand."""
    values = record["settings"]
    if values["setup"] not in SETUPS or values["method"] not in METHODS:
        return False
    settings = Settings.of(**values)
    return can_run(settings) and record.get("data") == data_used(settings)


def take_turns(stored):
    """Stored runs (record, history), the quickest of each setup and method first, then the second quickest, and so on."""
    groups = {}
    for found in sorted(stored, key=lambda found: found[0]["wall_seconds"]):
        values = found[0]["settings"]
        groups.setdefault((values["method"] == "local", values["method"], values["setup"]), []).append(found)
    turns = [(turn, key, found) for key, several in groups.items() for turn, found in enumerate(several)]
    return [found for *_, found in sorted(turns, key=lambda entry: entry[:2])]


def compare(stored, again):
    """(whether two histories of the same settings agree, a sentence with the largest differences)."""
    if stored.equals(again):
        return True, "identical to the last bit"
    keys = ["client", "metric", "split", "round"]
    joined = stored.merge(again, on=keys, how="outer", suffixes=("", "_again"))
    if len(joined) != len(stored) or joined["value_again"].isna().any():
        return False, "the tables have different rows"
    early = joined[(joined["split"] == "train") & (joined["round"] <= EARLY_ROUNDS)]
    relative = ((early["value_again"] - early["value"]).abs() / early["value"].abs()).max()
    moved = joined[joined["split"] == "test"].eval("value_again - value")
    good = relative <= EARLY_TOLERANCE and abs(moved.mean()) <= FINAL_MEAN and moved.abs().max() <= FINAL_CLIENT
    return bool(good), (f"losses of round 1 within {100 * relative:.2g} % (limit {100 * EARLY_TOLERANCE:g} %), test scores: "
                        f"mean {moved.mean():+.2f} points (limit {FINAL_MEAN:g}), "
                        f"one client {moved.abs().max():.2f} (limit {FINAL_CLIENT:g})")

"""`fedmuscle verify`: recompute stored runs and say whether they come out as they were stored."""

import tempfile

from . import experiment
from .checks import positive_int
from .paths import results
from .settings import Settings
from .store import load_run, run_path

EARLY_ROUNDS = 1
EARLY_TOLERANCE = 0.05     # relative, training losses of the first round: rounding alone moves them far less
FINAL_TOLERANCE = 6.0      # points, mean test score over clients: another processor moves a long run


def verify(profile, sample=None):
    """Recompute runs of `profile` (all, or the `sample` quickest) and print a line for each.  Returns 0 if all agree.

    Agreement: training losses of round 1 within 5 %, the mean test score over clients within 6 points; identical
    histories are reported as such, as one machine with one set of versions must give them.
    """
    paths = sorted(results(profile).glob("*/*.json"))
    if not paths:
        raise ValueError(f"profile: got {profile!r}, but {results(profile)} holds no stored runs")
    stored = sorted((load_run(path) for path in paths), key=lambda run: run[0]["wall_seconds"])
    if sample is not None:
        stored = stored[:positive_int("sample", sample)]
    agree = 0
    for record, history in stored:
        settings = Settings(**record["settings"])
        with tempfile.TemporaryDirectory() as folder:
            experiment.run(settings, folder)
            _, again = load_run(run_path(folder, settings))
        good, text = compare(history, again)
        agree += good
        print(f"{'agrees ' if good else 'DIFFERS'}  {settings.setup} {settings.method} seed {settings.seed}: {text}")
    print(f"{agree} of {len(stored)} runs agree")
    return 0 if agree == len(stored) else 1


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
    test = joined[joined["split"] == "test"]
    final = abs(test["value_again"].mean() - test["value"].mean())
    good = relative <= EARLY_TOLERANCE and final <= FINAL_TOLERANCE
    return bool(good), (f"losses of round 1 within {100 * relative:.2g} % (limit {100 * EARLY_TOLERANCE:.0f} %), "
                        f"mean test score within {final:.2f} points (limit {FINAL_TOLERANCE:.0f})")

"""What came out of the claims of data/PREDICTIONS.md."""

import pandas as pd

from ..experiments.claims import CLAIMS
from ..experiments.runs import stored
from ..experiments.statistics import final_scores, holm_intervals, log_odds_change
from .tables import interval_text


def log_odds_differences(first, second, profile_folder):
    """Change in log-odds of test scores from `second` to `first`, lists of `Settings` of the same seeds: mean over clients, a
    Series over seeds."""
    ours, theirs = (final_scores(stored(several, profile_folder)[1]) for several in (first, second))
    changes = log_odds_change(pd.concat([ours.assign(method="first"), theirs.assign(method="second")]), baseline="second")
    return changes[changes["method"] == "first"].groupby("seed")["log_odds"].mean()


def verdicts(profile, folder, seeds=None, claims=CLAIMS):
    """One row a claim: its text, what was expected, the mean change in log-odds with its Holm-adjusted interval and p, and
    whether it was shown."""
    differences = {claim.number: log_odds_differences(*claim.runs(profile, seeds), folder) for claim in claims}
    found = holm_intervals(differences).set_index("name")
    return pd.DataFrame([{
        "claim": claim.number, "": claim.text, "expected": "yes" if claim.expected else "no",
        "log-odds": interval_text(tuple(found.loc[claim.number, ["mean", "low", "high"]]), 3),
        "p (Holm)": f"{found.loc[claim.number, 'p']:.2g}", "shown": shown(found.loc[claim.number]),
        "seeds": int(found.loc[claim.number, "seeds"])} for claim in claims])


def shown(row):
    """ "yes", "no", or "no: lower"."""
    return "yes" if row["low"] > 0 else "no: lower" if row["high"] < 0 else "no"

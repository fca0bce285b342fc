"""What came out of the claims of data/PREDICTIONS.md."""

import math

import numpy as np
import pandas as pd

from ..experiments import ablations
from ..experiments.claims import CLAIMS
from ..experiments.runs import stored
from ..experiments.statistics import final_scores, holm_intervals, log_odds_change, mean_interval
from .tables import interval_text

LEAST_ROUNDS = 3


def log_odds_differences(first, second, folder):
    """Change in log-odds of test scores from `second` to `first`, lists of `Settings` of the same seeds, stored in `folder`:
    mean over clients, a Series over seeds."""
    ours, theirs = (final_scores(stored(several, folder)[1]) for several in (first, second))
    changes = log_odds_change(pd.concat([ours.assign(method="first"), theirs.assign(method="second")]), baseline="second")
    return changes[changes["method"] == "first"].groupby("seed")["log_odds"].mean()


def holm_over(profile, folder, seeds=None, claims=CLAIMS):
    """`statistics.holm_intervals` of the claims, by their numbers; means alone, without intervals and p, where one has a single
    seed."""
    found = {claim.number: log_odds_differences(*claim.runs(profile, seeds), folder) for claim in claims}
    if all(len(values) > 1 for values in found.values()):
        return holm_intervals(found)
    return pd.DataFrame([(name, *mean_interval(values), math.nan, len(values)) for name, values in found.items()],
                        columns=["name", "mean", "low", "high", "p", "seeds"])


def verdicts(profile, folder, seeds=None, claims=CLAIMS):
    """One row a claim: what it compares, what was expected, the mean change in log-odds with its Holm-adjusted interval and p,
    and whether it was shown."""
    found = holm_over(profile, folder, seeds, claims).set_index("name")
    return pd.DataFrame([{
        "claim": claim.number, "first - second": claim.short, "expected": "yes" if claim.expected else "no",
        "log-odds": interval_text(tuple(found.loc[claim.number, ["mean", "low", "high"]]), 3),
        "p (Holm)": f"{found.loc[claim.number, 'p']:.2g}".replace("nan", "-"), "shown": shown(found.loc[claim.number]),
        "seeds": int(found.loc[claim.number, "seeds"])} for claim in claims])


def shown(row):
    """ "yes", "no", or "no: lower"."""
    return "yes" if row["low"] > 0 else "no: lower" if row["high"] < 0 else "no"


def sentence(table):
    """Which claims of `verdicts` were shown, and which came out as expected, in one sentence."""
    def numbers(rows):
        pairs = zip(rows["claim"], rows["first - second"], strict=True)
        return "; ".join(f"{claim} ({compared})" for claim, compared in pairs) or "none"

    right = table[table["shown"].str.startswith("yes") == (table["expected"] == "yes")]
    yes, no, lower = (numbers(table[table["shown"] == word]) for word in ("yes", "no", "no: lower"))
    expected = ", ".join(map(str, right["claim"])) or "none"
    return f"Shown: {yes}. Not shown: {no}. Shown to be the other way round: {lower}. As expected: {expected}."


def weight_differences(profile, folder, seeds=None):
    """Learned alpha minus each of `ablations.WEIGHTS_AGAINST`, change in log-odds: label, mean, low, high, seeds.  Intervals
    by Holm over all of them; none with one seed."""
    runs = {label: several for (label, _), several in ablations.by_weights(profile, seeds).items() if label}
    found = {control: log_odds_differences(runs[learned], runs[control], folder)
             for control, learned in ablations.WEIGHTS_AGAINST.items()}
    found = {f"learned - {control}": values for control, values in found.items()}
    if all(len(values) > 1 for values in found.values()):
        return holm_intervals(found).rename(columns={"name": "label"}).drop(columns="p")
    return pd.DataFrame([(label, *mean_interval(values), len(values)) for label, values in found.items()],
                        columns=["label", "mean", "low", "high", "seeds"])


def alpha_sentence(rows):
    """What learned alpha is shown to be, in one sentence.  rows: as from `weight_differences`."""
    found = {row.label.split(" - ")[1]: (row.mean, row.low, row.high) for row in rows.itertuples()}
    numbers = ", ".join(f"{name} {interval_text(interval, 2)}" for name, interval in found.items())

    def above(*controls):
        return "shown" if all(found[name][1] > 0 for name in controls) else "not shown"

    return (f"Learned alpha: more than a temperature: {above('alpha = 1, tau tuned')}; more than a margin, at tau = 0.2: "
            f"{above('margin tuned, tau = 0.2')}; better than the same weights at the wrong tuples "
            f"(which were not tuned): {above('shuffled, tau = 0.2', 'shuffled, tau tuned')} (learned minus each control, in "
            f"log-odds over {rows['seeds'].max()} seeds, adjusted over the {len(rows)}: {numbers}).")


def slopes(history):
    """Slope of the validation scores over the last fifth of the rounds, at least LEAST_ROUNDS, in points a round: least squares
    on the means over clients and seeds, one row a method."""
    rows = history[history["split"] == "validation"]
    last = rows["round"].max()
    kept = rows[rows["round"] > last - max(LEAST_ROUNDS, math.ceil(last / 5))]
    means = kept.groupby(["method", "round"], sort=False)["value"].mean()
    found = {method: np.polyfit(several.index.get_level_values("round"), several, 1)[0] for method, several in means.groupby(
        "method", sort=False)}
    return pd.DataFrame({"points a round": found})

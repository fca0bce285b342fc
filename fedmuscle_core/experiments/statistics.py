"""Numbers a reader compares: Delta and who pays for it, with intervals over seeds."""

import numpy as np
import pandas as pd
from scipy import stats


def final_scores(history):
    """Test scores after the last round: one row per (method, seed, client) with task, metric, value in percent."""
    return history[history["split"] == "test"].reset_index(drop=True)


def relative_change(scores, baseline="local"):
    """Change of every client against `baseline` on the same seed, in percent of the baseline: column `change` added.

    scores: as from `final_scores`, higher is better.  Raises ValueError where the baseline run is missing or scored 0.
    """
    keys = ["seed", "client"]
    reference = scores[scores["method"] == baseline].set_index(keys)["value"].rename("reference")
    joined = scores.join(reference, on=keys)
    if joined["reference"].isna().any():
        lost = sorted(joined[joined["reference"].isna()]["seed"].unique().tolist())
        raise ValueError(f"scores: got no {baseline!r} run for seeds {lost}, expected one per seed")
    if (joined["reference"] == 0).any():
        where = joined[joined["reference"] == 0].iloc[0]
        raise ValueError(f"scores: {baseline!r} scored 0 on client {where['client']}, seed {where['seed']}: no relative change")
    joined["change"] = 100 * (joined["value"] - joined["reference"]) / joined["reference"]
    return joined.drop(columns="reference")


def delta(changes):
    """Delta = 100/N sum_n s_n (P_n - P_n^local) / P_n^local, and who pays for it, per (method, seed).

    changes: as from `relative_change`.  Columns: delta (mean over clients), worst (client), improved (share of clients),
    worst_third (mean of the worst third of the clients, rounded up), all but `improved` in percent.
    """
    def summary(values):
        ordered = np.sort(values)
        return pd.Series({"delta": ordered.mean(), "worst": ordered[0], "improved": (ordered > 0).mean(),
                          "worst_third": ordered[:-(-len(ordered) // 3)].mean()})
    return changes.groupby(["method", "seed"])["change"].apply(summary).unstack().reset_index()


def mean_interval(values, confidence=0.95):
    """(mean, low, high): Student-t interval of the mean over seeds; low = high = nan for a single value."""
    values = np.asarray(values, dtype=float)
    if values.size == 0:
        raise ValueError("values: got none, expected at least one")
    if values.size == 1:
        return float(values[0]), float("nan"), float("nan")
    half = stats.sem(values) * stats.t.ppf((1 + confidence) / 2, values.size - 1)
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def paired_difference(table, column, first, second):
    """(mean, low, high) of `column` of method `first` minus `second`, paired over the seeds both have."""
    wide = table.pivot(index="seed", columns="method", values=column)
    return mean_interval((wide[first] - wide[second]).dropna())


def verdict(interval):
    """What a paired difference shows, in words."""
    _, low, high = interval
    if np.isnan(low):
        return "one seed: no interval"
    if low > 0:
        return "higher"
    return "lower" if high < 0 else "no difference shown"


def seeds_needed(differences, effect, confidence=0.95, power=0.8):
    """Seeds needed to show a mean paired difference of `effect` at their observed spread: an int, or "?" for one seed.

    Normal approximation n = ((z_confidence + z_power) s / effect)^2, rounded up, at least 2.
    """
    differences = np.asarray(differences, dtype=float)
    if effect <= 0:
        raise ValueError(f"effect: got {effect}, expected a difference above 0")
    if differences.size < 2:
        return "?"
    z = stats.norm.ppf((1 + confidence) / 2) + stats.norm.ppf(power)
    return max(2, int(np.ceil((z * differences.std(ddof=1) / effect) ** 2)))

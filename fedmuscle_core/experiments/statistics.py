"""Numbers a reader compares: Delta and who pays for it, with intervals over seeds; and methods against one another over seeds
and clients: robust means, paired probabilities, and a gain that losers share.

Interquartile mean, stratified bootstrap and probability of improvement follow Agarwal et al., "Deep reinforcement learning at
the edge of the statistical precipice" (2021), with clients in place of their tasks.
"""

import numpy as np
import pandas as pd
import scipy  # which loads a part when it is asked for: `stats` takes a second

from .store import DIVERGED

EFFECT = 0.1                           # change in log-odds that is asked about: 2.5 points at 50 percent.  Our choice
SCORE_LIMITS = (0.5, 99.5)             # percent; scores are clipped here before their logit.  Our choice, not the paper's


def failures(history):
    """{method: "diverged on 1 of 5 seeds: seed 3, client 6, round 4"} of the methods with a run that diverged, or one with a
    score of NaN."""
    lost = history[(history["split"] == DIVERGED) | history["value"].isna() & (history["split"] != "train")]
    found = {}
    for method, rows in lost.groupby("method", sort=False) if len(lost) else ():
        first = rows.sort_values(["seed", "round"], kind="stable").drop_duplicates("seed")
        each = [f"seed {row.seed}, client {row.client}, round {row.round}" for row in first.itertuples()]
        seeds = history[history["method"] == method]["seed"].nunique()
        found[method] = f"diverged on {len(each)} of {seeds_text(seeds)}: {'; '.join(each)}"
    return found


def seeds_text(count):
    """How many seeds, in words."""
    return f"{count} seed" if count == 1 else f"{count} seeds"


def finished(history):
    """The rows of the methods all of whose runs came to an end; `attrs` are kept."""
    return history[~history["method"].isin(list(failures(history)))]


def final_scores(history):
    """Test scores after the last round: one row per (method, seed, client) with task, metric, value in percent.

    Raises ValueError where a run diverged: a mean over those that did not would flatter its method.  See `finished`.
    """
    for method, text in failures(history).items():
        raise ValueError(f"history: {method!r} {text}; expected runs that came to an end: `statistics.finished` leaves out a "
                         "method that has others")
    return history[history["split"] == "test"].reset_index(drop=True)


def bytes_sent(history):
    """Bytes up and down of every round after the first evaluation, a Series over (method, seed, client, round)."""
    rows = history[(history["round"] > 0) & (history["split"] != DIVERGED)]
    return rows.groupby(["method", "seed", "client", "round"])["bytes"].max()


def relative_change(scores, baseline="local"):
    """Change of every client against `baseline` on the same seed, in percent of the baseline: column `change` added.

    scores: as from `final_scores`, higher is better; its `attrs` are kept.  Raises ValueError where the baseline run is missing
    or scored 0, a score is NaN, or a method has several runs of a seed.
    """
    keys = ["seed", "client"]
    if scores["value"].isna().any():
        where = scores[scores["value"].isna()].iloc[0]
        raise ValueError(f"scores: {where['method']!r} scored NaN on client {where['client']}, seed {where['seed']}")
    if (twice := scores.duplicated(["method", *keys])).any():
        where = scores[twice].iloc[0]
        raise ValueError(f"scores: got {where['method']!r} twice for client {where['client']}, seed {where['seed']}, expected "
                         "runs of one setting a method")
    reference = scores[scores["method"] == baseline].set_index(keys)["value"].rename("reference")
    joined = scores.join(reference, on=keys)
    if joined["reference"].isna().any():
        lost = sorted(joined[joined["reference"].isna()]["seed"].unique().tolist())
        raise ValueError(f"scores: got no {baseline!r} run for seeds {lost}, expected one per seed")
    if (joined["reference"] == 0).any():
        where = joined[joined["reference"] == 0].iloc[0]
        raise ValueError(f"scores: {baseline!r} scored 0 on client {where['client']}, seed {where['seed']}: no relative change")
    joined["change"] = 100 * (joined["value"] - joined["reference"]) / joined["reference"]
    joined.attrs = scores.attrs
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
    if np.isnan(values).any():
        raise ValueError(f"values: got NaN in {np.isnan(values).sum()} of {values.size}, expected numbers")
    if values.size == 1:
        return float(values[0]), float("nan"), float("nan")
    half = scipy.stats.sem(values) * scipy.stats.t.ppf((1 + confidence) / 2, values.size - 1)
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def paired_difference(table, column, first, second):
    """(mean, low, high) of `column` of method `first` minus `second`, paired over the seeds both have."""
    of_both = table[table["method"].isin([first, second])]
    if of_both[column].isna().any():
        raise ValueError(f"{column}: got NaN of {of_both[of_both[column].isna()]['method'].iloc[0]!r}, expected numbers")
    wide = of_both.pivot(index="seed", columns="method", values=column)
    return mean_interval((wide[first] - wide[second]).dropna())


def verdict(interval, effect=None):
    """What a paired difference shows, in words; "-" for nan, where there is none.

    With an `effect` that is asked about, "no difference" says that none of its size is there, "too few seeds" that one might
    be.
    """
    mean, low, high = interval
    if np.isnan(mean):
        return "-"
    if np.isnan(low):
        return "one seed: no interval"
    if low > 0:
        return "higher"
    if high < 0:
        return "lower"
    if effect is None:
        return "no difference shown"
    return "no difference" if max(-low, high) <= effect else "too few seeds"


def holm_intervals(differences, level=0.05):
    """Holm's step-down over several paired comparisons: one row each of {name: differences over seeds}, in their order.

    Columns: mean; low, high: Student-t interval at 1 - level / m, m the number of claims not yet shown when this one is
    tested, smallest p first; p: adjusted, the running maximum of (number of claims from this one on) times the two-sided p of a
    t-test; seeds.  An interval leaves out 0 where p is below the level; together they do not cover at 1 - level.  Holm (1979).
    Raises ValueError for NaN or fewer than two seeds.
    """
    found = {}
    for name, values in differences.items():
        values = np.asarray(values, dtype=float)
        if values.size < 2 or np.isnan(values).any():
            raise ValueError(f"differences: got {values.tolist()} of {name!r}, expected numbers of two seeds or more")
        spread = scipy.stats.sem(values)
        p = 2 * scipy.stats.t.sf(abs(values.mean()) / spread, values.size - 1) if spread else float(values.mean() == 0)
        found[name] = (p, values.mean(), spread, values.size)
    largest, left, rows = 0.0, len(found), {}
    for place, (name, (p, mean, spread, seeds)) in enumerate(sorted(found.items(), key=lambda item: item[1][0])):
        largest = max(largest, min(1.0, (len(found) - place) * p))
        half = spread * scipy.stats.t.ppf(1 - level / (2 * left), seeds - 1)
        rows[name] = {"mean": mean, "low": mean - half, "high": mean + half, "p": largest, "seeds": seeds}
        left -= largest < level                                               # after the first that is not shown none is
    return pd.DataFrame([{"name": name, **rows[name]} for name in differences])


def seed_client_table(changes, method, column="change"):
    """DataFrame (seeds, clients) of `column` of one method.

    Raises ValueError where the method has no rows, a client is missing on a seed, or (seed, client) occurs twice.
    """
    rows = changes[changes["method"] == method]
    if rows.empty:
        raise ValueError(f"method: got {method!r}, expected one of {changes['method'].unique().tolist()}")
    if rows.duplicated(["seed", "client"]).any():
        raise ValueError(f"changes: {method!r} has several rows for a seed and client, expected runs of one setting")
    table = rows.pivot(index="seed", columns="client", values=column)
    if table.isna().any(axis=None):
        lost = table.index[table.isna().any(axis=1)].tolist()
        raise ValueError(f"changes: {method!r} lacks a client on seeds {lost}, expected {list(table.columns)} on every seed")
    return table


def paired_tables(changes, first, second, column="change"):
    """The (seeds, clients) tables of two methods on the seeds both have; ValueError if there is none, or clients differ."""
    tables = [seed_client_table(changes, method, column) for method in (first, second)]
    if not tables[0].columns.equals(tables[1].columns):
        raise ValueError(f"changes: {first!r} and {second!r} have different clients, expected the same")
    seeds = tables[0].index.intersection(tables[1].index)
    if seeds.empty:
        raise ValueError(f"changes: {first!r} and {second!r} have no seed in common")
    return tuple(table.loc[seeds] for table in tables)


def interquartile_mean(values, axis=None):
    """Mean of the middle half of `values`, the lowest and highest quarter (rounded down) left out."""
    return scipy.stats.trim_mean(values, 0.25, axis=axis)


def stratified_bootstrap(table, statistic, resamples=2000, seed=0, confidence=0.95):
    """(value, low, high): `statistic` of a (seeds, clients) table with its percentile bootstrap interval.

    Every client's seeds are resampled with replacement on their own, so each resample has every client equally often.
    That takes the clients of one seed as independent: where they rise and fall together, the interval is too narrow.
    statistic: called as statistic(values, axis=axis) with seeds and clients along that one axis, e.g. np.mean.
    low = high = nan for a single seed.  Raises ValueError for NaN, other than two dimensions, or no seeds or clients.
    """
    table = _checked("table", table)
    value = float(statistic(table.ravel(), axis=-1))
    if len(table) == 1:
        return value, float("nan"), float("nan")
    found = scipy.stats.bootstrap(table.T, lambda *clients, axis: statistic(np.concatenate(clients, axis=axis), axis=axis),
                            n_resamples=resamples, confidence_level=confidence, method="percentile", vectorized=True, rng=seed)
    return value, float(found.confidence_interval.low), float(found.confidence_interval.high)


def probability_of_improvement(first, second):
    """(value, low, high): mean over clients of the share of seeds on which `first` is above `second`, ties counting half.

    first, second: (seeds, clients), row s of both from the same seed.  Agarwal et al. compare every run with every run;
    here runs of one seed share data and initial weights, so only they are compared, and the bootstrap keeps them together.
    Where a client wins, or loses, on all seeds, resampling cannot change it: with few seeds the interval is too narrow.
    Raises ValueError as `stratified_bootstrap` does, and for different shapes.
    """
    first, second = _checked("first", first), _checked("second", second)
    if first.shape != second.shape:
        raise ValueError(f"second: got shape {second.shape}, expected {first.shape} as `first`")
    wins = (first > second) + 0.5 * (first == second)
    return stratified_bootstrap(wins, np.mean)


def log_odds_change(scores, baseline="local"):
    """Change of every client's log-odds against `baseline` on the same seed: column `log_odds` added.

    log_odds = logit(P / 100) - logit(P_baseline / 100), natural logarithm, P in percent clipped to SCORE_LIMITS.
    scores: as from `final_scores`.  Raises ValueError outside 0 to 100 and where the baseline run is missing.
    """
    outside = scores[~scores["value"].between(0, 100)]
    if not outside.empty:
        where = outside.iloc[0]
        raise ValueError(f"scores: {where['method']!r} scored {where['value']} on client {where['client']}, "
                         f"seed {where['seed']}, expected 0 to 100 percent")
    share = scores["value"].clip(*SCORE_LIMITS) / 100
    changes = relative_change(scores.assign(score=scores["value"], value=share / (1 - share)), baseline)
    return changes.assign(value=changes["score"], log_odds=np.log1p(changes["change"] / 100)).drop(columns=["score", "change"])


def balanced_gain(changes):
    """Our proposal for one number: mean log-odds change of the worse half of the clients, rounded up, per (method, seed).

    changes: as from `log_odds_change`.  Columns: method, seed, balanced_gain.  Why not Delta, the mean relative change:
    - Clients with a small baseline dominate it: from 5 to 10 % counts as +100 %, from 90 to 95 % as +5.6 %, though both
      multiply the odds by 2.1.
    - It depends on whether accuracy or error is scored; a log-odds change only changes sign.
    - It is not antisymmetric: one client doubled and one halved give +25 %; their log-odds changes cancel, about.
    - The winners buy it.  The worse half is above 0 only if more than half of the clients gain.
    Its price: it picks the worse half by the noisy scores themselves, so a method without any effect comes out below 0.
    Compare methods with one another, paired over seeds; below 0 alone does not show a loss.
    """
    def worse_half(values):
        ordered = np.sort(values)
        return ordered[:-(-len(ordered) // 2)].mean()
    return changes.groupby(["method", "seed"])["log_odds"].apply(worse_half).rename("balanced_gain").reset_index()


def _checked(name, table):
    table = np.asarray(table, dtype=float)
    if table.ndim != 2:
        raise ValueError(f"{name}: got {table.ndim} dimension(s), expected two: (seeds, clients)")
    if table.size == 0:
        raise ValueError(f"{name}: got shape {table.shape}, expected at least one seed and one client")
    if np.isnan(table).any():
        raise ValueError(f"{name}: got NaN, expected a number for every seed and client")
    return table

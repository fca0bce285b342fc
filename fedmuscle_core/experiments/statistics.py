"""Numbers a reader compares: Delta and who pays for it, with intervals over seeds; and methods against one another over seeds
and clients: robust means, paired probabilities, and a gain that losers share.

Interquartile mean, stratified bootstrap and probability of improvement follow Agarwal et al., "Deep reinforcement learning at
the edge of the statistical precipice" (2021), with clients in place of their tasks.
"""

from itertools import permutations

import numpy as np
import pandas as pd
import scipy  # which loads a part when it is asked for: `stats` takes a second

from ..checks import one_of
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


def best_validation(history):
    """Log-odds of every client's best validation score over rounds: a Series over (seed, client)."""
    return _log_odds(history[history["split"] == "validation"].groupby(["seed", "client"])["value"].max())


def last_validation(history):
    """Likewise of the last round."""
    rows = history[(history["split"] == "validation") & (history["round"] == history["round"].max())]
    return _log_odds(rows.set_index(["seed", "client"])["value"])


def _log_odds(scores):
    """Of scores in percent, clipped to SCORE_LIMITS."""
    share = scores.clip(*SCORE_LIMITS) / 100
    return np.log(share / (1 - share))


def fair_mean(gains):
    """G = -log( 1/N sum_n exp(-g_n) ) of N clients' changes in log-odds g_n, an array of any length but 0.

    exp(-g_n) is how many times the odds of a failure, (100 - P) / P, are what training alone gives: G is their mean, as a
    change in log-odds again.  See `fair_gain`.
    """
    gains = np.asarray(gains, dtype=float)
    if gains.size == 0 or np.isnan(gains).any():
        raise ValueError(f"gains: got {gains.tolist()}, expected at least one number, and none that is NaN")
    return float(np.log(gains.size) - scipy.special.logsumexp(-gains))


def fair_gain(changes):
    """Our proposal for one number: `fair_mean` of the clients' changes in log-odds, per (method, seed).

    changes: as from `log_odds_change`.  Columns: method, seed, fair_gain.  Up to the factor in the exponent it is the only
    continuous number for which (Kolmogorov, Nagumo, de Finetti; Arrow and Pratt)
    - clients that all gain g have G = g, their order does not matter, and a gain of any one client raises it (monotone);
    - a group of clients may be replaced by as many clients that all have the group's G (consistent);
    - more log-odds for everybody is as much more for G, whatever they started at (scale-free), so that accuracy near 5 and near
      95 % count alike;
    - log-odds given by a better client to a worse one raise it (the worst client counts).
    With the factor 1, a client counts by the odds of its failures, relative to training alone.  It follows that a client that
    rises without end adds log(1 + e^-g_n / sum of the others' e^-g), log(N / (N - 1)) where all stood alike, while G is at most
    the worst client's gain + log N, and never above the mean.
    Its price: spread of the clients, noise included, lowers it by about half its variance, so that a method without any effect
    comes out a little below 0.  Compare methods with one another, paired over seeds.
    """
    return changes.groupby(["method", "seed"])["log_odds"].apply(fair_mean).rename("fair_gain").reset_index()


NUMBERS = {"delta": "Delta (%)", "log_odds": "log-odds", "worst_third": "worst third (%)", "fair_gain": "fair gain"}


def overall_numbers(scores, baseline="local"):
    """One row per (method, seed): `delta`'s columns, log_odds (mean change over clients) and fair_gain.  scores: as from
    `final_scores`."""
    odds = log_odds_change(scores, baseline)
    means = odds.groupby(["method", "seed"])["log_odds"].mean().reset_index()
    return delta(relative_change(scores, baseline)).merge(means).merge(fair_gain(odds))


RISES = ("log-odds", "points")


def client_weights(scores, rise="log-odds", baseline="local"):
    """How much each client counts in each of NUMBERS, where its score is: columns added, weights that sum to 1 over the clients
    of a method and seed.

    A weight is the share of the number's rise if one client rises a little, all by as much.  In log-odds: of Delta
    P_n (1 - P_n) / P_n^local, of the worst third the same of the clients in it, of the mean in log-odds 1, of the fair gain
    exp(-g_n).  In points of score, with rise "points", each of these over P_n (1 - P_n); for the last two, P_n clipped to
    SCORE_LIMITS, beyond which they do not move at all.
    scores: as from `final_scores`, of methods other than the baseline, too.
    """
    one_of("rise", rise, RISES)
    table = relative_change(scores, baseline).assign(log_odds=log_odds_change(scores, baseline)["log_odds"])
    reference = scores[scores["method"] == baseline].set_index(["seed", "client"])["value"].rename("reference") / 100
    table = table[table["method"] != baseline].join(reference, on=["seed", "client"])
    by_run = [table["method"], table["seed"]]
    change, place = table["change"], table["change"].groupby(by_run).rank(method="first")
    share, inside = table["value"] / 100, table["value"].clip(*SCORE_LIMITS) / 100
    slope, steep = (share * (1 - share), 1.0) if rise == "log-odds" else (1.0, 1 / (inside * (1 - inside)))
    delta_weight = slope / table.pop("reference")
    worst = place <= np.ceil(change.groupby(by_run).transform("size") / 3)
    weights = {"delta": delta_weight, "log_odds": steep + 0 * change, "worst_third": delta_weight.where(worst, 0.0),
               "fair_gain": steep * np.exp(-table["log_odds"])}
    return table.assign(**{name: values / values.groupby(by_run).transform("sum") for name, values in weights.items()})


def flips(numbers, first="delta", second="fair_gain"):
    """Pairs of methods that two of NUMBERS order differently, by mean differences over the seeds both have: one row a pair.

    numbers: as from `overall_numbers`.  Columns: former, the method better by `first`; latter; of both numbers the paired
    difference, former minus latter, as (mean, low, high): first, second.  Ties are no disagreement.
    """
    rows, wide = [], [numbers.pivot(index="seed", columns="method", values=name) for name in (first, second)]
    values, methods = [table.to_numpy() for table in wide], list(wide[0])
    for one, other in permutations(range(len(methods)), 2):
        found = [(table[:, one] - table[:, other]) for table in values]
        both = ~np.isnan(found[0])
        if both.any() and found[0][both].mean() > 0 > found[1][both].mean():
            rows.append((methods[one], methods[other], *(mean_interval(differences[both]) for differences in found)))
    return pd.DataFrame(rows, columns=["former", "latter", "first", "second"])


def _checked(name, table):
    table = np.asarray(table, dtype=float)
    if table.ndim != 2:
        raise ValueError(f"{name}: got {table.ndim} dimension(s), expected two: (seeds, clients)")
    if table.size == 0:
        raise ValueError(f"{name}: got shape {table.shape}, expected at least one seed and one client")
    if np.isnan(table).any():
        raise ValueError(f"{name}: got NaN, expected a number for every seed and client")
    return table

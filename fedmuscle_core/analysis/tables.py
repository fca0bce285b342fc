"""What the notebooks print: intervals as text, tables, and sentences computed from results.

Where nobody tuned a setup, `history.attrs["untuned"]` names it (see `experiments.runs`), and table and sentence say so.
A method with a run that diverged has no Delta: its row says on how many seeds, and where; numbers of it raise a ValueError.
"""

from itertools import combinations

import pandas as pd

from ..experiments.statistics import (
    EFFECT,
    balanced_gain,
    bytes_sent,
    delta,
    failures,
    final_scores,
    finished,
    interquartile_mean,
    log_odds_change,
    mean_interval,
    paired_difference,
    paired_tables,
    probability_of_improvement,
    relative_change,
    seed_client_table,
    seeds_text,
    stratified_bootstrap,
    verdict,
)
from ..methods import METHODS


def interval_text(interval, digits=1, signed=True):
    """(mean, low, high) as "+9.1 [+7.0, +11.2]"; without an interval for a single seed; "-" for nan."""
    if interval[0] != interval[0]:
        return "-"
    mean, low, high = (f"{number:{'+' if signed else ''}.{digits}f}" for number in interval)
    return mean if interval[1] != interval[1] else f"{mean} [{low}, {high}]"


def mean_text(values, digits=1, signed=True):
    """Mean over seeds with its 95 % interval, as `interval_text`."""
    return interval_text(mean_interval(values), digits, signed)


def marked(name, table):
    """`name` of a column, method or figure, with " (untuned)" where `table` is of a setup that nobody tuned."""
    return f"{name} (untuned)" if table.attrs.get("untuned") else name


def changes_of(history, methods, baseline="local"):
    """`relative_change` of the test scores of `methods` against `baseline`; ValueError where one of these diverged."""
    return relative_change(final_scores(history[history["method"].isin([*methods, baseline])]), baseline)


def delta_table(history):
    """One row a method: Delta and who pays for it, means over seeds with 95 % intervals, as text."""
    failed = failures(history)
    scores = final_scores(history[~history["method"].isin(set(failed) - {"local"})])
    summary = dict(list(delta(relative_change(scores, "local")).groupby("method")))
    gains, rows = mean_log_odds(scores), []
    for name, method in METHODS.items():
        if name in summary:
            rows.append({marked("method", history): method.label, **_gains(summary[name], gains.loc[name]),
                         "seeds": len(summary[name])})
        elif name in failed:
            rows.append({marked("method", history): method.label, "Delta (%)": failed[name]})
    return dashed(pd.DataFrame(rows))


def dashed(table):
    """A table with "-" for what a row lacks, such as that of a run that diverged."""
    return table.astype(object).fillna("-") if table.isna().any(axis=None) else table


def mean_log_odds(scores, baseline="local"):
    """Change in log-odds against the baseline, mean over clients: a Series over (method, seed)."""
    return log_odds_change(scores, baseline).groupby(["method", "seed"])["log_odds"].mean()


def _gains(summary, log_odds):
    return {"Delta (%)": mean_text(summary["delta"]), "log-odds": mean_text(log_odds, 2),
            "worst client (%)": mean_text(summary["worst"]), "clients improved": f"{100 * summary['improved'].mean():.0f} %"}


def score_table(history):
    """Test scores in percent, one row a client, one column a method: mean over seeds with 95 % interval, as text."""
    failed = failures(history)
    cells = final_scores(finished(history)).groupby(["client", "task", "metric", "method"], sort=False)["value"]
    texts = cells.apply(mean_text, signed=False).unstack("method", sort=False).assign(**failed)
    return texts.rename(columns=lambda name: marked(METHODS[name].label, history)).reset_index().rename_axis(columns=None)


def clients_improved(history, method):
    """(number of clients whose mean change over seeds is above 0, number of clients)."""
    changes = changes_of(history, [method])
    means = changes[changes["method"] == method].groupby("client")["change"].mean()
    return int((means > 0).sum()), len(means)


def clients_shown(history, method):
    """The clients whose interval of the change over seeds, 95 %, not adjusted, is above 0, and those with it below: two lists
    of (client, task)."""
    changes = changes_of(history, [method])
    cells = changes[changes["method"] == method].groupby(["client", "task"])["change"]
    found = {client: verdict(mean_interval(values)) for client, values in cells}
    return tuple([client for client, said in found.items() if said == word] for word in ("higher", "lower"))


def who_pays(history, method):
    """One sentence, computed: the clients that are shown above and below training alone, by name."""
    def named(several):
        return f"{len(several)} ({', '.join(f'{client}: {task}' for client, task in several)})" if several else "none"

    above, below = clients_shown(history, method)
    return (f"A mean hides who pays: with {marked(METHODS[method].label, history)}, of {history['client'].nunique()} clients "
            f"{named(above)} shown above training alone, {named(below)} below (95 % intervals, not adjusted for their number).")


def delta_interval(history, method):
    """(mean, low, high) of Delta over seeds, in percent."""
    summary = delta(changes_of(history, [method]))
    return mean_interval(summary[summary["method"] == method]["delta"])


def delta_difference(history, first, second):
    """(mean, low, high) of Delta(first) - Delta(second), paired over seeds, in points."""
    return paired_difference(delta(changes_of(history, [first, second])), "delta", first, second)


def log_odds_difference(history, first, second):
    """(mean, low, high) of the change in log-odds from `second` to `first`, mean over the clients of `history`, paired over
    seeds."""
    row = pairwise_differences(history, first, [second]).iloc[0]
    return row["mean"], row["low"], row["high"]


def delta_sentence(history, method, other):
    """One sentence, computed: how many clients `method` improves or harms, its Delta, and its paired difference to `other`."""
    name, failed = marked(METHODS[method].label, history), failures(history)
    if method in failed:
        return f"{name} {failed[method]}: it has no Delta."
    (better, clients), (above, below) = clients_improved(history, method), clients_shown(history, method)
    seeds = history[history["method"] == method]["seed"].nunique()
    if other in failed:
        against = f"no difference to {METHODS[other].label}, which {failed[other]}"
    else:
        difference = delta_difference(history, method, other)
        against = (f"paired difference to {METHODS[other].label} {interval_text(difference)} points: "
                   f"{verdict(difference)}")
    return (f"{name} improves {better} of {clients} clients on average over {seeds_text(seeds)}, {len(above)} shown above "
            f"Local and {len(below)} below; Delta {interval_text(delta_interval(history, method))} %; {against}.")


def comparison_table(history, methods, baseline="local"):
    """One row a method, in the order given and without the baseline: several summaries of its gains, as text.

    Student-t intervals over seeds; that of the interquartile mean (IQM) over seeds and clients is a stratified bootstrap.
    Raises ValueError where a method has no runs, lacks a client on a seed, or the baseline lacks a seed.
    """
    failed, rows = failures(history), []
    scores = final_scores(history[history["method"].isin({*methods, baseline} - ({*failed} - {baseline}))])
    changes = relative_change(scores, baseline)
    summary, odds = delta(changes), mean_log_odds(scores, baseline)
    gains = balanced_gain(log_odds_change(scores, baseline))
    for method in (method for method in methods if method != baseline):
        if method in failed:
            rows.append({marked("method", history): METHODS[method].label, "Delta (%)": failed[method]})
            continue
        middle = stratified_bootstrap(seed_client_table(changes, method), interquartile_mean)
        table, gain = (table[table["method"] == method] for table in (summary, gains))
        texts = _gains(table, odds.loc[method])
        rows.append({marked("method", history): METHODS[method].label, "Delta (%)": texts.pop("Delta (%)"),
                     "IQM (%)": interval_text(middle), **texts,
                     "balanced gain (log-odds)": mean_text(gain["balanced_gain"], 2), "seeds": len(table)})
    return dashed(pd.DataFrame(rows))


def pairwise_differences(history, first, others, baseline="local"):
    """`first` against each of `others` on the seeds both have, one row each, as numbers.

    Columns: label; mean, low, high of the paired difference in log-odds, mean over clients (Student-t, not adjusted for the
    number of rows); delta, delta_low, delta_high: that of Delta in points; probability, probability_low, probability_high of
    improvement; seeds.  One that diverged says so in its label, and its numbers are nan.
    """
    failed, rows = failures(history), []
    methods = {first, *others} - ({*failed} - {first})
    changes = changes_of(history, methods, baseline)
    odds = log_odds_change(final_scores(history[history["method"].isin([*methods, baseline])]), baseline)
    for other in others:
        if other in failed:
            rows.append((f"{METHODS[other].label}, which {failed[other]}", *[float("nan")] * 9, 0))
            continue
        tables, logits = paired_tables(changes, first, other), paired_tables(odds, first, other, "log_odds")
        differences = [(ours - theirs).mean(axis=1) for ours, theirs in (logits, tables)]
        rows.append((METHODS[other].label, *(number for one in differences for number in mean_interval(one)),
                     *probability_of_improvement(*tables), len(differences[0])))
    table = pd.DataFrame(rows, columns=["label", "mean", "low", "high", "delta", "delta_low", "delta_high", "probability",
                                        "probability_low", "probability_high", "seeds"])
    table.attrs = changes.attrs
    return table


def pairwise_table(history, first, others, baseline="local"):
    """`pairwise_differences` as text: `first` minus each of `others`, and whether an EFFECT of this size was shown."""
    rows = [{f"{marked(METHODS[first].label, history)} against": row.label,
             "difference of Delta (points)": interval_text(row[5:8]), "difference in log-odds": interval_text(row[2:5], 2),
             "shown": verdict(row[2:5], EFFECT), "probability of improvement": interval_text(row[8:11], 2, signed=False),
             "seeds": row.seeds} for row in pairwise_differences(history, first, others, baseline).itertuples()]
    return pd.DataFrame(rows)


def improvement_sentence(history, method, other):
    """`delta_sentence` and the probability that `method` improves on `other`, on a client and seed drawn at random."""
    if {method, other} & set(failures(history)):
        return delta_sentence(history, method, other)
    probability = pairwise_table(history, method, [other])["probability of improvement"].iloc[0]
    return f"{delta_sentence(history, method, other)[:-1]}; probability of improvement {probability}."


def rank_disagreements(history, methods, baseline="local"):
    """Pairs of methods that Delta and the balanced gain order differently, by their means over their seeds: one row a pair.

    `former` is the method better by Delta.  Ties are no disagreement; the frame is empty where there is none.
    """
    scores = final_scores(history)
    deltas = delta(relative_change(scores, baseline)).groupby("method")["delta"].mean()
    gains = balanced_gain(log_odds_change(scores, baseline)).groupby("method")["balanced_gain"].mean()
    rows = []
    for pair in combinations(methods, 2):
        former, latter = sorted(pair, key=lambda name: deltas[name], reverse=True)
        if deltas[former] > deltas[latter] and gains[former] < gains[latter]:
            rows.append((METHODS[former].label, METHODS[latter].label, deltas[former], deltas[latter], gains[former],
                         gains[latter]))
    return pd.DataFrame(rows, columns=[marked("better by Delta", history), "better by balanced gain", "Delta of former (%)",
                                       "Delta of latter (%)", "gain of former", "gain of latter"])


def exchange_table(history):
    """One row a method: what travels each round, its bytes by the ledger (mean over clients and rounds), what it needs."""
    means, failed = bytes_sent(finished(history)).groupby("method").mean(), failures(history)
    return pd.DataFrame([{marked("method", history): method.label, "exchanged": method.exchanges,
                          "KiB per client and round": failed.get(name) or f"{means[name] / 1024:,.1f}", "needs": method.needs}
                         for name, method in METHODS.items() if name in means or name in failed])

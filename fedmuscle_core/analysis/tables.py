"""What the notebooks print: published numbers, intervals as text, and sentences computed from results."""

from itertools import combinations

import pandas as pd

from ..experiments.statistics import (
    delta,
    final_scores,
    mean_interval,
    paired_difference,
    relative_change,
    seeds_needed,
    verdict,
)
from ..methods import METHODS
from ..paths import PUBLISHED
from .comparison import (
    balanced_gain,
    interquartile_mean,
    log_odds_change,
    paired_tables,
    probability_of_improvement,
    seed_client_table,
    stratified_bootstrap,
)


def published(**where):
    """Rows of the published FedMuscle numbers in which every named column has the named value.

    They come from secondary summaries of the paper (column `source`), in percent unless `unit` says otherwise.
    Raises ValueError when nothing matches.
    """
    table = pd.read_csv(PUBLISHED / "fedmuscle_published.csv")
    for column, value in where.items():
        if column not in table:
            raise ValueError(f"{column}: not a column, expected one of {list(table.columns)}")
        table = table[table[column] == value]
    if table.empty:
        raise ValueError(f"published: no row with {where}")
    return table


def published_value(**where):
    """The one published number that matches, as a float."""
    rows = published(**where)
    if len(rows) != 1:
        raise ValueError(f"published: {len(rows)} rows with {where}, expected one")
    return float(rows["value"].iloc[0])


def published_delta(setup, method, public_data):
    """The published Delta in percent, a float, or None where none was found."""
    try:
        return published_value(setup=setup, method=method, public_data=public_data, quantity="delta")
    except ValueError:
        return None


def published_mfed():
    """{quantity: value} of the published M-Fed numbers, from a secondary summary; ranks, and points or % (not stated)."""
    return pd.read_csv(PUBLISHED / "mfed_published.csv").set_index("quantity")["value"].to_dict()


def interval_text(interval, digits=1):
    """(mean, low, high) as "+9.1 [+7.0, +11.2]"; without an interval for a single seed."""
    mean, low, high = interval
    text = f"{mean:+.{digits}f}"
    return text if low != low else f"{text} [{low:+.{digits}f}, {high:+.{digits}f}]"


def delta_table(history):
    """One row a method: Delta and who pays for it, means over seeds with 95 % intervals, as text."""
    summary = delta(relative_change(final_scores(history)))
    rows = []
    for method, table in summary.groupby("method", sort=False):
        rows.append({"method": METHODS[method].label, "Delta (%)": interval_text(mean_interval(table["delta"])),
                     "worst client (%)": interval_text(mean_interval(table["worst"])),
                     "worst third (%)": interval_text(mean_interval(table["worst_third"])),
                     "clients improved": f"{100 * table['improved'].mean():.0f} %", "seeds": len(table)})
    order = [method.label for method in METHODS.values()]
    return pd.DataFrame(rows).sort_values("method", key=lambda names: names.map(order.index), ignore_index=True)


def score_table(history):
    """Test scores in percent, one row a client, one column a method: mean over seeds with 95 % interval, as text."""
    scores = final_scores(history)
    scores["method"] = scores["method"].map(lambda name: METHODS[name].label)
    cell = scores.groupby(["client", "task", "metric", "method"], sort=False)["value"]
    texts = cell.apply(lambda values: interval_text(mean_interval(values)).replace("+", ""))
    return texts.unstack("method", sort=False).reset_index().rename_axis(columns=None)


def clients_improved(history, method):
    """(number of clients whose mean change over seeds is above 0, number of clients)."""
    changes = relative_change(final_scores(history))
    means = changes[changes["method"] == method].groupby("client")["change"].mean()
    return int((means > 0).sum()), len(means)


def delta_interval(history, method):
    """(mean, low, high) of Delta over seeds, in percent."""
    summary = delta(relative_change(final_scores(history)))
    return mean_interval(summary[summary["method"] == method]["delta"])


def delta_difference(history, first, second):
    """(mean, low, high) of Delta(first) - Delta(second), paired over seeds, in points."""
    return paired_difference(delta(relative_change(final_scores(history))), "delta", first, second)


def delta_sentence(history, method, other):
    """One sentence, computed: how many clients `method` improves, its Delta, and its paired difference to `other`."""
    better, clients = clients_improved(history, method)
    seeds = history[history["method"] == method]["seed"].nunique()
    difference = delta_difference(history, method, other)
    return (f"{METHODS[method].label} improves {better} of {clients} clients on average over {seeds} seed(s); "
            f"Delta {interval_text(delta_interval(history, method))} %; "
            f"paired difference to {METHODS[other].label} {interval_text(difference)} points: {verdict(difference)}.")


def comparison_table(history, methods, baseline="local"):
    """One row a method, in the order given and without the baseline: several summaries of its gains, as text.

    Student-t intervals over seeds; that of the interquartile mean (IQM) over seeds and clients is a stratified bootstrap.
    Raises ValueError where a method has no runs, lacks a client on a seed, or the baseline lacks a seed.
    """
    scores = final_scores(history)
    changes = relative_change(scores, baseline)
    summary, gains = delta(changes), balanced_gain(log_odds_change(scores, baseline))
    rows = []
    for method in (method for method in methods if method != baseline):
        middle = stratified_bootstrap(seed_client_table(changes, method), interquartile_mean)
        table, gain = (table[table["method"] == method] for table in (summary, gains))
        rows.append({
            "method": METHODS[method].label, "Delta (%)": interval_text(mean_interval(table["delta"])),
            "IQM (%)": interval_text(middle), "worst client (%)": interval_text(mean_interval(table["worst"])),
            "worst third (%)": interval_text(mean_interval(table["worst_third"])),
            "clients improved": f"{100 * table['improved'].mean():.0f} %",
            "balanced gain (log-odds)": interval_text(mean_interval(gain["balanced_gain"]), 2), "seeds": len(table)})
    return pd.DataFrame(rows)


def pairwise_differences(history, first, others, baseline="local", effect=1.0):
    """`first` against each of `others` on the seeds both have, one row each, as numbers.

    Columns: label; mean, low, high of the paired difference of Delta in points (Student-t, not adjusted for the number of
    rows); probability, probability_low, probability_high of improvement; seeds; seeds_needed to show `effect` points.
    """
    changes = relative_change(final_scores(history), baseline)
    rows = []
    for other in others:
        tables = paired_tables(changes, first, other)
        differences = (tables[0] - tables[1]).mean(axis=1)
        rows.append((METHODS[other].label, *mean_interval(differences), *probability_of_improvement(*tables),
                     len(differences), seeds_needed(differences, effect)))
    return pd.DataFrame(rows, columns=["label", "mean", "low", "high", "probability", "probability_low", "probability_high",
                                       "seeds", "seeds_needed"])


def pairwise_table(history, first, others, baseline="local"):
    """`pairwise_differences` as text: `first` minus each of `others`, what that shows, and the seeds one point would take."""
    rows = [{f"{METHODS[first].label} against": row.label, "difference of Delta (points)": interval_text(row[2:5]),
             "shown": verdict(row[2:5]), "probability of improvement": _probability_text(row), "seeds": row.seeds,
             "seeds to show 1 point": row.seeds_needed}
            for row in pairwise_differences(history, first, others, baseline).itertuples()]
    return pd.DataFrame(rows)


def improvement_sentence(history, method, other):
    """`delta_sentence` and the probability that `method` improves on `other`, on a client and seed drawn at random."""
    row = next(pairwise_differences(history, method, [other]).itertuples())
    return f"{delta_sentence(history, method, other)[:-1]}; probability of improvement {_probability_text(row)}."


def _probability_text(row):
    return interval_text((row.probability, row.probability_low, row.probability_high), 2).replace("+", "")


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
    return pd.DataFrame(rows, columns=["better by Delta", "better by balanced gain", "Delta of former (%)",
                                       "Delta of latter (%)", "gain of former", "gain of latter"])


def exchange_table(history):
    """One row a method: what travels each round, its bytes by the ledger (mean over clients and rounds), what it needs."""
    sent = history[history["round"] > 0].groupby(["method", "seed", "client", "round"])["bytes"].max()
    means = sent.groupby("method").mean()
    return pd.DataFrame([{"method": method.label, "exchanged": method.exchanges,
                          "KiB per client and round": f"{means[name] / 1024:,.1f}", "needs": method.needs}
                         for name, method in METHODS.items() if name in means])


def agreement(published_number, interval):
    """Whether a published number lies inside our interval, in words."""
    mean, low, high = interval
    if low != low:
        return "same sign" if (mean > 0) == (published_number > 0) else "other sign"
    if low <= published_number <= high:
        return "inside our interval"
    if low > 0 and published_number > 0 or high < 0 and published_number < 0:
        return "same sign, other size"
    return "sign not shown" if low <= 0 <= high else "other sign"

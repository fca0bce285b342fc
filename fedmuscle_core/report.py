"""What the notebooks print: published numbers, intervals as text, and sentences computed from results."""

import pandas as pd

from .methods import METHODS
from .paths import PUBLISHED
from .statistics import delta, final_scores, mean_interval, paired_difference, relative_change, verdict


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

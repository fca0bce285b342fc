"""M-Fed's tables: scores task by task, the clients with the least data apart, and the order of the methods in one sentence."""

import pandas as pd

from ..experiments.setups import SETUPS
from ..experiments.statistics import delta, final_scores, mean_interval, paired_difference, relative_change, verdict
from ..methods import METHODS
from .tables import delta_interval, interval_text, published_mfed

CEILING = ("centralised",)            # not federated: all private data in one place


def task_scores(history):
    """Test score of every task: mean over its clients, one row per (method, task, metric, seed), in percent."""
    return final_scores(history).groupby(["method", "task", "metric", "seed"], sort=False)["value"].mean().reset_index()


def task_table(history):
    """`task_scores` as text, one row a task, one column a method: mean over seeds with 95 % interval."""
    return _as_text(task_scores(history), "value")


def least_data(history, setup):
    """Change against Local of the client with the least private data of every task, one row per (method, task, seed)."""
    smallest = {}
    for index, spec in enumerate(SETUPS[setup], 1):
        kept = smallest.get(spec.task)
        if kept is None or spec.train_size < SETUPS[setup][kept - 1].train_size:
            smallest[spec.task] = index
    changes = relative_change(final_scores(history))
    return changes[changes["client"].isin(smallest.values()) & (changes["method"] != "local")].reset_index(drop=True)


def least_data_table(history, setup):
    """`least_data` in percent as text, one row a task, one column a method."""
    return _as_text(least_data(history, setup), "change")


def _as_text(table, column):
    cells = table.groupby(["task", "metric", "method"], sort=False)[column]
    texts = cells.apply(lambda values: interval_text(mean_interval(values)) if column == "change" else
                        interval_text(mean_interval(values)).replace("+", "")).unstack("method", sort=False)
    names = [name for name in METHODS if name in texts]
    return texts[names].rename(columns=lambda name: METHODS[name].label).reset_index().rename_axis(columns=None)


def order_sentence(history, methods):
    """The methods from the highest mean Delta down: ">" where the paired difference to the next excludes 0, "~" where not."""
    means = {method: delta_interval(history, method)[0] for method in methods}
    ranked = sorted(methods, key=means.get, reverse=True)
    summary = delta(relative_change(final_scores(history)))
    text = f"{METHODS[ranked[0]].label} {means[ranked[0]]:+.1f}"
    for first, second in zip(ranked, ranked[1:], strict=False):
        found = verdict(paired_difference(summary, "delta", first, second))
        text += f" {'>' if found == 'higher' else '~'} {METHODS[second].label} {means[second]:+.1f}"
    return f"{text} (mean Delta in %, {history['seed'].nunique()} seed(s); > shown, ~ not shown)."


def against_best(history, method="mfed"):
    """`method` against the other federated method that is best on each task by its mean: one row a task.

    Columns: task, metric, best_other, rank of `method`, mean, low, high of the paired difference in points.  Local is
    among the others, the centralised ceiling is not.
    """
    scores, rows = task_scores(history), []
    for (task, metric), table in scores.groupby(["task", "metric"], sort=False):
        wide = table.pivot(index="seed", columns="method", values="value").drop(columns=list(CEILING), errors="ignore")
        means = wide.mean().sort_values(ascending=False)
        best = means.drop(method).index[0]
        rows.append((task, metric, METHODS[best].label, list(means.index).index(method) + 1,
                     *mean_interval((wide[method] - wide[best]).dropna())))
    return pd.DataFrame(rows, columns=["task", "metric", "best_other", "rank", "mean", "low", "high"])


def beside_paper(history):
    """The published ranks and gain of M-Fed beside ours, as text: one row a task.

    Ours: rank by mean score among the federated methods and Local, the difference to the best other in points.
    """
    paper = published_mfed()
    rows = []
    for row in against_best(history).itertuples():
        gain = paper["semantic_segmentation_mIoU"] if row.task == "semseg" else None
        found = (row.mean, row.low, row.high)
        rows.append({"task": row.task, "metric": row.metric, "published: rank": int(paper["rank_on_all_four_tasks"]),
                     "published: minus best other": "not found" if gain is None else f"{gain:+.2f}", "ours: rank": row.rank,
                     "best other": row.best_other, "ours: minus best other (points)": interval_text(found),
                     "agrees?": {"higher": "yes", "lower": "no"}.get(verdict(found), "not shown")})
    return pd.DataFrame(rows)

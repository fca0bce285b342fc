"""M-Fed's tables: scores task by task, the clients with the least data apart, and the order of the methods in one sentence."""

import pandas as pd

from ..experiments.setups import setup_named
from ..experiments.statistics import delta, failures, final_scores, mean_interval, paired_difference, relative_change, verdict
from ..methods import METHODS
from .tables import changes_of, marked, mean_text


def task_scores(history):
    """Test score of every task: mean over its clients, one row per (method, task, metric, seed), in percent."""
    return final_scores(history).groupby(["method", "task", "metric", "seed"], sort=False)["value"].mean().reset_index()


def task_table(history):
    """`task_scores` as text, one row a task, one column a method: mean over seeds with 95 % interval."""
    return _as_text(task_scores(history), history, "value", signed=False)


def least_data(history, setup):
    """Change against Local of the client with the least private data of every task, one row per (method, task, seed).

    setup: of the runs, a `Setup` or its name."""
    setup = setup_named(setup)
    smallest = [min((spec.train_size, client) for client, spec in enumerate(setup.clients, 1) if spec.task == task)[1]
                for task in setup.tasks]
    changes = relative_change(final_scores(history))
    return changes[changes["client"].isin(smallest) & (changes["method"] != "local")].reset_index(drop=True)


def least_data_table(history, setup):
    """`least_data` in percent as text, one row a task, one column a method."""
    return _as_text(least_data(history, setup), history, "change")


def _as_text(table, history, column, signed=True):
    cells = table.groupby(["task", "metric", "method"], sort=False)[column]
    texts = cells.apply(mean_text, signed=signed).unstack("method", sort=False)
    texts = texts[[name for name in METHODS if name in texts]]
    return texts.rename(columns=lambda name: marked(METHODS[name].label, history)).reset_index().rename_axis(columns=None)


def order_sentence(history, methods):
    """The methods from the highest mean Delta down: ">" where the paired difference to the next excludes 0, "~" where not."""
    failed = {name: text for name, text in failures(history).items() if name in methods}
    methods = [name for name in methods if name not in failed]
    summary = delta(changes_of(history, methods))
    means = summary.groupby("method")["delta"].mean()
    ranked = sorted(methods, key=lambda method: means[method], reverse=True)
    text = f"{METHODS[ranked[0]].label} {means[ranked[0]]:+.1f}"
    for first, second in zip(ranked, ranked[1:], strict=False):
        found = verdict(paired_difference(summary, "delta", first, second))
        text += f" {'>' if found == 'higher' else '~'} {METHODS[second].label} {means[second]:+.1f}"
    text = f"{text} ({marked('mean Delta in %', history)}, {history['seed'].nunique()} seed(s); > shown, ~ not shown)"
    return "; ".join([text, *(f"{METHODS[name].label} {why}" for name, why in failed.items())]) + "."


def against_best(history, method="mfed"):
    """`method` against the other federated method that is best on each task by its mean: one row a task.

    Columns: task, metric, best_other, rank of `method`, mean, low, high of the paired difference in points.  Local is
    among the others, a ceiling is not.
    """
    scores, rows = task_scores(history), []
    scores = scores[[not METHODS[name].ceiling for name in scores["method"]]]
    for (task, metric), table in scores.groupby(["task", "metric"], sort=False):
        wide = table.pivot(index="seed", columns="method", values="value")
        means = wide.mean().sort_values(ascending=False)
        best = means.drop(method).index[0]
        rows.append((task, metric, METHODS[best].label, list(means.index).index(method) + 1,
                     *mean_interval((wide[method] - wide[best]).dropna())))
    return pd.DataFrame(rows, columns=["task", "metric", "best_other", "rank", "mean", "low", "high"])

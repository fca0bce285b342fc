"""M-Fed's tables: scores task by task, the clients with the least data apart, and the order of the methods in one sentence."""

import numpy as np
import pandas as pd

from ..experiments.setups import setup_named
from ..experiments.statistics import (
    delta,
    failures,
    final_scores,
    finished,
    log_odds_change,
    mean_interval,
    paired_difference,
    verdict,
)
from ..methods import METHODS
from .tables import changes_of, marked, mean_text, seeds_text


def task_scores(history):
    """Test score of every task: mean over its clients, one row per (method, task, metric, seed), in percent, of the methods
    that came to an end."""
    scores = final_scores(finished(history)).groupby(["method", "task", "metric", "seed"], sort=False)["value"].mean()
    return scores.reset_index()


def task_table(history):
    """`task_scores` as text, one row a task, one column a method: mean over seeds with 95 % interval."""
    return _as_text(task_scores(history), history, "value", signed=False)


def least_against_others(history, setup):
    """Change in log-odds against Local, mean over tasks, one row a method: of the client with the least private data of every
    task, of the others, and the paired difference, each (mean, low, high) over seeds.

    setup: of the runs, a `Setup` or its name."""
    setup = setup_named(setup)
    smallest = {min((spec.train_size, client) for client, spec in enumerate(setup.clients, 1) if spec.task == task)[1]
                for task in setup.tasks}
    changes = log_odds_change(final_scores(finished(history)))
    changes = changes[changes["method"] != "local"].assign(least=lambda rows: rows["client"].isin(smallest))
    means = changes.groupby(["method", "seed", "least"])["log_odds"].mean().unstack()
    rows = {marked(METHODS[name].label, history): {
        "least data": mean_interval(means.loc[name, True]), "the others": mean_interval(means.loc[name, False]),
        "difference": mean_interval(means.loc[name, True] - means.loc[name, False])} for name in METHODS if name in means.index}
    return pd.DataFrame.from_dict(rows, orient="index")


def ranks(history):
    """Rank of every method but a ceiling by its score on every task, 1 for the highest, ties share the mean of theirs: one row
    per (method, task, seed)."""
    scores = task_scores(history)
    scores = scores[[not METHODS[name].ceiling for name in scores["method"]]]
    return scores.assign(rank=scores.groupby(["task", "seed"])["value"].rank(ascending=False))


def rank_table(history):
    """`ranks` as text, one row a method, one column a task and one for the mean over tasks: means over seeds with 95 %
    intervals; lowest mean rank first."""
    found = ranks(history)
    whole = found.groupby(["method", "seed"])["rank"].mean()
    cells = found.groupby(["method", "task"], sort=False)["rank"].apply(mean_text, signed=False).unstack("task", sort=False)
    cells["mean over tasks"] = whole.groupby("method").apply(mean_text, signed=False)
    order = whole.groupby("method").mean().sort_values().index
    return cells.loc[order].rename(index=lambda name: marked(METHODS[name].label, history)).rename_axis(columns=None)


def conflict(history, method="mfed"):
    """How the encoder gradients of the clients of two tasks agree: (task, task) table of their mean cosine over clients, rounds
    and seeds, of the runs of one method that measures it, see `methods.sharing.gradient_agreement`."""
    rows = history[(history["method"] == method) & history["metric"].str.startswith("gradient_cosine_")]
    if rows.empty:
        raise ValueError(f"history: got no gradient_cosine_* of {method!r}, expected runs that measured gradients")
    with_task = rows.assign(other=rows["metric"].str.removeprefix("gradient_cosine_"))
    tasks = list(dict.fromkeys(with_task["task"]))
    return with_task.pivot_table(index="task", columns="other", values="value").loc[tasks, tasks].rename_axis(columns="with")


def _as_text(table, history, column, signed=True):
    cells = table.groupby(["task", "metric", "method"], sort=False)[column]
    texts = cells.apply(mean_text, signed=signed).unstack("method", sort=False)
    texts = texts[[name for name in METHODS if name in texts]]
    return texts.rename(columns=lambda name: marked(METHODS[name].label, history)).reset_index().rename_axis(columns=None)


def order_sentence(history, methods):
    """The methods from the highest mean Delta down: ">" where the paired difference to the next excludes 0, "~" where not."""
    failed = {name: text for name, text in failures(history).items() if name in methods}
    text = order_text(history, [name for name in methods if name not in failed])
    return "; ".join([text, *(f"{METHODS[name].label} {why}" for name, why in failed.items())]) + "."


def order_text(history, methods):
    """`order_sentence` of methods that all came to an end, without its full stop."""
    summary = delta(changes_of(history, methods))
    means = summary.groupby("method")["delta"].mean()
    ranked = sorted(methods, key=lambda method: means[method], reverse=True)
    text = f"{METHODS[ranked[0]].label} {means[ranked[0]]:+.1f}"
    for first, second in zip(ranked, ranked[1:], strict=False):
        found = verdict(paired_difference(summary, "delta", first, second))
        text += f" {'>' if found == 'higher' else '~'} {METHODS[second].label} {means[second]:+.1f}"
    return f"{text} ({marked('mean Delta in %', history)}, {seeds_text(history['seed'].nunique())}; > shown, ~ not shown)"


def against_best(history, method="mfed"):
    """`method` against the other method that exchanges parameters, or Local, that is best on each task by its mean over these
    very runs: one row a task.

    Columns: task, metric, best_other, rank of `method`, mean, low, high of the paired difference in points.  A ceiling and
    variants of the method itself are not among the others.
    """
    scores, rows = task_scores(history), []
    scores = scores[[name == "local" or METHODS[name].group == "sharing" and not METHODS[name].ceiling and not (
        name != method and issubclass(METHODS[name], METHODS[method])) for name in scores["method"]]]
    for (task, metric), table in scores.groupby(["task", "metric"], sort=False):
        wide = table.pivot(index="seed", columns="method", values="value")
        means = wide.mean().sort_values(ascending=False)
        best = means.drop(method).index[0]
        rows.append((task, metric, METHODS[best].label, list(means.index).index(method) + 1,
                     *mean_interval((wide[method] - wide[best]).dropna())))
    return pd.DataFrame(rows, columns=["task", "metric", "best_other", "rank", "mean", "low", "high"])


def right_pixels(truths, said):
    """Percent of the pixels that are not background (class 0), of all masks (H, W) of two lists together, whose class is said
    right."""
    truths, said = np.stack([np.asarray(mask) for mask in truths]), np.stack([np.asarray(mask) for mask in said])
    return 100 * (truths == said)[truths != 0].mean()

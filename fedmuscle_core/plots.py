"""Figures: one style, one way to save, one function for each kind of picture the notebooks share."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from .methods import METHODS
from .paths import figures
from .statistics import mean_interval
from .store import write_atomically

COLOURS = {"local": "#6b7280", "pairwise": "#d97706", "fedmuscle": "#2563eb"}


def use_style():
    """Switch matplotlib to the look of this project."""
    plt.style.use(Path(__file__).with_name("fedmuscle.mplstyle"))


def save_figure(fig, table, name, profile):
    """Write `name`.png and the plotted numbers as `name`.csv to the figures folder of `profile`; same input, same bytes."""
    folder = figures(profile)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g", lineterminator="\n"))
    temporary = folder / f".{name}.png"
    fig.savefig(temporary, metadata={"Software": None})
    temporary.replace(folder / f"{name}.png")


def over_seeds(history, by):
    """Mean over seeds with its 95 % Student-t interval, one row per value of the columns `by`: mean, low, high, seeds."""
    groups = history.groupby(by, sort=False)["value"]
    table = groups.apply(lambda values: dict(zip(("mean", "low", "high"), mean_interval(values), strict=True))).unstack()
    return table.assign(seeds=groups.size()).reset_index()


def learning_curves(history):
    """One panel a client: validation score against round, a line a method, bands: 95 % intervals of the mean over seeds.

    Returns (figure, table of what is drawn).
    """
    scores = history[history["split"] == "validation"]
    table = over_seeds(scores, ["client", "task", "metric", "method", "round"])
    clients = sorted(table["client"].unique())
    columns = min(3, len(clients))
    rows = -(-len(clients) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(3.4 * columns, 2.5 * rows), sharex=True, squeeze=False)
    for ax, client in zip(axes.flat, clients, strict=False):
        for method, line in table[table["client"] == client].groupby("method", sort=False):
            ax.plot(line["round"], line["mean"], color=COLOURS[method], label=METHODS[method].label)
            ax.fill_between(line["round"], line["low"], line["high"], color=COLOURS[method], alpha=0.18, linewidth=0)
        first = table[table["client"] == client].iloc[0]
        ax.set_title(f"client {client}: {first['task'].upper()}")
        ax.set_ylabel(f"{first['metric']} (%)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in axes[-1]:
        ax.set_xlabel("round")
    axes[0, 0].legend()
    return fig, table


def heatmaps(matrices, title, shown="{:.2f}", vmin=0.0, vmax=1.0, labels=None):
    """Square matrices side by side, {panel title: (N, N)}, every value written in its cell.  Returns the figure."""
    fig, axes = plt.subplots(1, len(matrices), figsize=(3.3 * len(matrices), 3.3), squeeze=False)
    for ax, (name, matrix) in zip(axes[0], matrices.items(), strict=True):
        matrix = np.asarray(matrix)
        ax.imshow(matrix, vmin=vmin, vmax=vmax)
        ax.grid(False)
        ax.set_title(name)
        names = labels or [str(n) for n in range(1, len(matrix) + 1)]
        ax.set_xticks(range(len(matrix)), names)
        ax.set_yticks(range(len(matrix)), names)
        for (row, column), value in np.ndenumerate(matrix):
            dark = (value - vmin) / (vmax - vmin) < 0.6
            ax.text(column, row, shown.format(value), ha="center", va="center", fontsize=8, color="w" if dark else "k")
    fig.suptitle(title, x=0.01, ha="left")
    return fig


def scene_grid(images, titles=None):
    """Images (n, 3, H, W) in [0, 1] in one row.  Returns the figure."""
    fig, axes = plt.subplots(1, len(images), figsize=(1.15 * len(images), 1.45), squeeze=False)
    for index, ax in enumerate(axes[0]):
        ax.imshow(images[index].permute(1, 2, 0).numpy())
        ax.axis("off")
        if titles is not None:
            ax.set_title(titles[index], fontsize=8)
    return fig

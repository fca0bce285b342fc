"""Figures: one style, one way to save, one function for each kind of picture the notebooks share."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import ListedColormap
from matplotlib.ticker import MaxNLocator

from ..experiments.statistics import failures, finished, mean_interval
from ..experiments.store import replace_together
from ..methods import METHODS, method_named
from ..paths import figures
from .tables import marked

FURTHER_COLOURS = ("#5a0078", "#4be196", "#ffc300", "#0000b4", "#964ba5")    # for methods that name none
CLASS_COLOURS = ListedColormap(["#1f2937", "#a6cee3", "#1f78b4", "#b2df8a", "#33a02c", "#fb9a99", "#e31a1c", "#fdbf6f",
                                "#ff7f00", "#cab2d6", "#ffff99"])    # background, digits 0 to 9
GAIN, LOSS, UNCLEAR = "#2563eb", "#b91c1c", "#6b7280"


def use_style():
    """Switch matplotlib to the look of this project, and pandas to tables whose texts are not cut off."""
    pd.set_option("display.max_colwidth", None)
    plt.style.use(Path(__file__).with_name("fedmuscle.mplstyle"))


def colour_of(name):
    """Colour of a method's lines: its class's, else the free one of FURTHER_COLOURS at its place among the methods that name
    none, in the order in which they were imported; over again where these are not enough."""
    colour = method_named(name).colour
    if colour:
        return colour
    taken = {method.colour for method in METHODS.values()}
    free = [colour for colour in FURTHER_COLOURS if colour not in taken] or FURTHER_COLOURS
    return free[[other for other, method in METHODS.items() if not method.colour].index(name) % len(free)]


def save_figure(fig, table, name, profile):
    """Write `name`.png, `name`.svg for talks, and the plotted numbers as `name`.csv to the figures folder of `profile`; same
    input, same bytes."""
    text = table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
    place = figures(profile)
    with plt.rc_context({"svg.hashsalt": name}):
        replace_together({place / f"{name}.png": lambda png: fig.savefig(png, metadata={"Software": None}, format="png"),
                          place / f"{name}.svg": lambda svg: fig.savefig(svg, metadata={"Date": None}, format="svg"),
                          place / f"{name}.csv": lambda csv: csv.write_bytes(text.encode())})


def task_label(name):
    """A task's name as figures have it: on real data its kind over its source, the word excerpt left out."""
    kind, _, source = name.partition("@")
    return f"{kind}\n{source.removesuffix('_excerpt')}" if source else name.upper()


def over_seeds(history, by):
    """Mean over seeds with its 95 % Student-t interval, one row per value of the columns `by`: mean, low, high, seeds."""
    groups = history.groupby(by, sort=False)["value"]
    table = groups.apply(lambda values: dict(zip(("mean", "low", "high"), mean_interval(values), strict=True))).unstack()
    return table.assign(seeds=groups.size()).reset_index()


def learning_curves(history, methods=None, panel="client"):
    """One panel a client, or a task, of the mean over its clients: validation score against round, a line a method, bands: 95 %
    intervals of the mean over seeds.

    `methods`: which to draw, in the order of the legend; all in the order of METHODS if None.  One that diverged is not drawn:
    the title says so.  Returns (figure, table of what is drawn).
    """
    failed, runs = failures(history), finished(history)
    scores = runs[runs["split"] == "validation"]
    failed = {name: text for name, text in failed.items() if methods is None or name in methods}
    methods = _present(scores, methods and [name for name in methods if name not in failed])
    by = list(dict.fromkeys([panel, "task", "metric", "method", "round"]))
    means = scores[scores["method"].isin(methods)].groupby([*by, "seed"], sort=False)["value"].mean().reset_index()
    table = over_seeds(means, by)
    panels = sorted(table["client"].unique()) if panel == "client" else list(table["task"].unique())
    columns = min(next((number for number in (3, 5, 4) if len(panels) % number == 0), 3), len(panels))
    rows = -(-len(panels) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=((3.4 if columns <= 3 else 2.6) * columns, 2.5 * rows + 0.6), sharex=True,
                             squeeze=False, layout="constrained")
    for ax, shown in zip(axes.flat, panels, strict=False):
        drawn = table[table[panel] == shown]
        for method in methods:
            line = drawn[drawn["method"] == method]
            ax.plot(line["round"], line["mean"], color=colour_of(method), label=METHODS[method].label)
            ax.fill_between(line["round"], line["low"], line["high"], color=colour_of(method), linewidth=0,
                            alpha=0.18 if len(methods) <= 3 else 0.1)
        ax.set_title(("" if panel == "task" else f"client {shown}: ") + task_label(drawn["task"].iloc[0]))
        ax.set_ylabel(f"{drawn['metric'].iloc[0]} (%)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    for ax in axes.flat[len(panels):]:
        ax.set_visible(False)
    for ax in axes.flat[max(0, len(panels) - columns):len(panels)]:
        ax.set_xlabel("round")
        ax.tick_params(labelbottom=True)
    fig.get_layout_engine().set(w_pad=0.12)
    of = "" if panel == "client" else "the clients of a task and "
    title = marked(f"Validation score, mean over {of}{_seeds(table)}", history)
    lost = "".join(f"\nnot drawn: {METHODS[name].label}, {text}" for name, text in failed.items())
    bands = "; bands: 95 % intervals of the mean" if table["low"].notna().any() else ""
    fig.suptitle(f"{title}{bands}{lost}", x=0.01, ha="left")
    fig.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=min(2 * columns + 1, len(methods)))
    return fig, table


def change_heatmap(changes, methods=None):
    """Heat map of the mean relative change over seeds in percent: a row a method, a column a client.

    changes: as from `statistics.relative_change`.  `methods`: the rows from the top; all but Local in the order of METHODS if
    None.  The colours are symmetric about 0 and end at the largest absolute value without the most extreme client, at least
    1 %, so that one client cannot wash out the others.  Bold: the 95 % interval over seeds excludes 0.
    Returns (figure, table of means and intervals).
    """
    methods = _present(changes, methods or [name for name in _present(changes, None) if name != "local"])
    table = over_seeds(changes[changes["method"].isin(methods)].assign(value=changes["change"]), ["method", "client", "task"])
    tasks = table.groupby("client")["task"].first()
    limit = max(1.0, sorted(table["mean"].abs().groupby(table["client"]).max())[-2:][0])
    fig, ax = plt.subplots(figsize=(0.85 * len(tasks) + 2.6, 0.45 * len(methods) + 1.5), layout="constrained")
    cells = table.assign(shown=(table["low"] > 0) | (table["high"] < 0)).pivot(index="method", columns="client").loc[methods]
    names = [f"{client} {task_label(task)}" for client, task in tasks.items()]
    means = cells["mean"].set_axis(names, axis=1).rename(lambda name: METHODS[name].label)
    image = grid_heatmap(ax, means, "", limit, "client", bold=cells["shown"].to_numpy(), fontsize=None)
    fig.colorbar(image, ax=ax, extend="both" if table["mean"].abs().max() > limit else "neither", label="change (%)")
    title = marked(f"Change against Local (%), mean over {_seeds(table)}", changes)
    above, below = (table["low"] > 0).sum(), (table["high"] < 0).sum()
    fig.suptitle(f"{title}\nbold, as the 95 % interval excludes 0: {above} above, {below} below", x=0.01, ha="left")
    return fig, table


def forest_plot(rows, title):
    """Paired differences in log-odds with their intervals, one line each from the top, the numbers as text at the right.

    rows: DataFrame with label, mean, low, high (nan: no interval, or no difference) and, optionally, group, which heads the
    lines of a domain.  Blue and red intervals exclude 0, grey ones do not: the title counts them.  Returns the figure.
    """
    grouped = rows.groupby("group", sort=False) if "group" in rows else [(None, rows)]
    lines = [line for name, group in grouped for line in ([str(name)] if name is not None else []) + list(group.itertuples())]
    fig, ax = plt.subplots(figsize=(7.5, 0.36 * len(lines) + 1.3), layout="constrained")
    for y, line in enumerate(lines):
        if isinstance(line, str):
            continue
        colour = GAIN if line.low > 0 else LOSS if line.high < 0 else UNCLEAR
        text = f"{line.mean:+.2f}" if line.mean == line.mean else "-"
        if line.low == line.low:
            ax.plot([line.low, line.high], [y, y], color=colour)
            text += f" [{line.low:+.2f}, {line.high:+.2f}]"
        ax.plot(line.mean, y, "o", color=colour)
        ax.text(1.02, y, text, transform=ax.get_yaxis_transform(), va="center")
    ax.axvline(0, color="k", linewidth=1)
    ax.set_yticks(range(len(lines)), [line if isinstance(line, str) else line.label for line in lines])
    for label, line in zip(ax.get_yticklabels(), lines, strict=True):
        label.set_weight("bold" if isinstance(line, str) else "normal")
    ax.set_ylim(len(lines) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(True, axis="x")
    ax.grid(False, axis="y")
    ax.set_xlabel("paired change in log-odds")
    above, below = (rows["low"] > 0).sum(), (rows["high"] < 0).sum()
    fig.suptitle(f"{marked(title, rows)}\nshown above 0: {above} of {len(rows)}; below: {below}", x=0.01, ha="left")
    return fig


def measure_dots(table, title):
    """One panel a measure, one dot a row with its interval, from 0 to 1.

    table: columns measure, label, method (of its colour, None for grey), mean, low, high; rows in the order of the labels.
    """
    panels = dict(list(table.groupby("measure", sort=False)))
    fig, axes = plt.subplots(1, len(panels), figsize=(9, 0.9 + 0.35 * len(table) / len(panels)), sharey=True,
                             layout="constrained", squeeze=False)
    for ax, (measure, rows) in zip(axes[0], panels.items(), strict=True):
        for y, row in enumerate(rows.itertuples()):
            ax.errorbar(row.mean, y, xerr=[[row.mean - row.low], [row.high - row.mean]], fmt="o", capsize=3,
                        color=colour_of(row.method) if isinstance(row.method, str) else UNCLEAR)
        ax.set(title=measure.upper() if measure == "cka" else measure, xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5))
        ax.set_yticks(range(len(rows)), rows["label"])
        ax.grid(True, axis="x")
    fig.suptitle(title, x=0.01, ha="left")
    return fig


def slope_chart(columns, title, ylabel="Delta (%)"):
    """How methods stand in one column and the next, a line each, named at its right end; one that a column lacks begins later.

    columns: {heading: {method: (mean, low, high), or a number}}.  Returns (figure, table of what is drawn).
    """
    rows = [(place, heading, method, *(value if isinstance(value, tuple) else (value, float("nan"), float("nan"))))
            for place, (heading, values) in enumerate(columns.items()) for method, value in values.items()]
    table = pd.DataFrame(rows, columns=["place", "column", "method", "mean", "low", "high"])
    fig, ax = plt.subplots(figsize=(2.6 * len(columns) + 1.6, 3.8), layout="constrained")
    several = _present(table, None)
    for shift, method in enumerate(several):
        line = table[table["method"] == method]
        line = line.assign(place=line["place"] + 0.03 * (shift - (len(several) - 1) / 2))          # bars side by side
        own = method in ("fedmuscle", "simclr")
        bars = [(line["mean"] - line["low"]).fillna(0), (line["high"] - line["mean"]).fillna(0)]
        ax.errorbar(line["place"], line["mean"], bars, fmt="o-", color=colour_of(method), capsize=3,
                    linewidth=2.4 if own else 1.2, markersize=6 if own else 4)
    ends = table.sort_values("place").groupby("method").last().sort_values("mean")
    heights, gap = [], 0.07 * (table["mean"].max() - table["mean"].min())
    for value in ends["mean"]:
        heights.append(max(value, heights[-1] + gap) if heights else value)                   # names do not cover one another
    for method, place, height in zip(ends.index, ends["place"], heights, strict=True):
        ax.text(place + 0.1, height, METHODS[method].label, color=colour_of(method), va="center",
                weight="bold" if method in ("fedmuscle", "simclr") else "normal")
    ax.axhline(0, color="k", lw=0.8)
    ax.set_xticks(range(len(columns)), columns)
    ax.set(xlim=(-0.25, len(columns) - 0.25), ylabel=ylabel)
    fig.suptitle(title, x=0.01, ha="left")
    return fig, table.drop(columns="place")


def _present(table, methods):
    """`methods` as a list, those of METHODS that occur in `table` if None; ValueError for one that does not occur."""
    found = set(table["method"])
    methods = [name for name in METHODS if name in found] if methods is None else list(methods)
    if missing := [name for name in methods if name not in found]:
        raise ValueError(f"methods: got {missing} without rows, expected some of {sorted(found)}")
    return methods


def _seeds(table):
    counts = sorted(set(table["seeds"]))
    number = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{number} seed" if counts == [1] else f"{number} seeds"


def heatmaps(matrices, title, vmax=1.0, labels=None):
    """Square matrices, {panel title: (N, N)} of 0 to vmax, every value in its cell; three a row where there are more than four.
    Returns the figure."""
    columns = len(matrices) if len(matrices) <= 4 else 3
    rows = -(-len(matrices) // columns)
    fig, axes = plt.subplots(rows, columns, figsize=(3.3 * columns, 3.3 * rows), squeeze=False)
    for ax in axes.flat[len(matrices):]:
        ax.set_visible(False)
    for ax, (name, matrix) in zip(axes.flat, matrices.items(), strict=False):
        matrix = np.asarray(matrix)
        ax.imshow(matrix, vmin=0, vmax=vmax)
        ax.grid(False)
        ax.set_title(name)
        names = labels or [str(n) for n in range(1, len(matrix) + 1)]
        ax.set_xticks(range(len(matrix)), names)
        ax.set_yticks(range(len(matrix)), names)
        for (row, column), value in np.ndenumerate(matrix):
            ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color="w" if value / vmax < 0.6 else "k")
    fig.suptitle(title, x=0.01, ha="left")
    return fig


def value_curves(ax, measured, tuned=None):
    """A line a method on `ax`: mean Delta over seeds against the value, bars: 95 % intervals; returns what is drawn.

    measured: as from `effects.measure`, with numbers as values.  A value that diverged is not drawn: the legend says so.
    tuned: the value that other settings were tuned with, marked by a line.
    """
    if tuned is not None:
        ax.axvline(tuned, color=UNCLEAR, linewidth=1, linestyle=":")
        ax.text(tuned, 1, " tuned", color=UNCLEAR, fontsize=8, va="top", transform=ax.get_xaxis_transform())
    failed = measured[measured["delta"].isna()]
    measured = measured[measured["delta"].notna()]
    table = over_seeds(measured.assign(setting=measured["value"], value=measured["delta"]), ["method", "setting"])
    for method in _present(measured, None):
        line = table[table["method"] == method].sort_values("setting")
        bars = [line["mean"] - line["low"], line["high"] - line["mean"]]
        ax.errorbar(line["setting"].astype(float), line["mean"], bars, fmt="o-", color=colour_of(method), capsize=3,
                    markersize=4, label="; ".join([marked(METHODS[method].label, measured), *(
                        f"diverged with {value:g}" for value in failed[failed["method"] == method]["value"].unique())]))
    return table


def pairs_in_the_plane(pairs, names):
    """What two clients make of the same samples: one panel each of {title: (first, second)}, representations (n, d), scaled to
    unit length, on the two principal axes of both together, a line a sample from one client's dot to the other's.

    names: of the clients.  Returns (figure, table of what is drawn).
    """
    fig, axes = plt.subplots(1, len(pairs), figsize=(4.2 * len(pairs), 3.9), squeeze=False, layout="constrained")
    drawn = []
    for ax, (title, both) in zip(axes[0], pairs.items(), strict=True):
        first, second = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in map(np.asarray, both))
        points = np.concatenate([first, second])
        points = points - points.mean(0)
        axes_of_spread = np.linalg.svd(points, full_matrices=False)[2][:2]
        largest = np.abs(axes_of_spread).argmax(axis=1, keepdims=True)
        points = points @ (axes_of_spread * np.sign(np.take_along_axis(axes_of_spread, largest, axis=1))).T
        lines = points.reshape(2, len(first), 2)
        ax.plot(*lines.transpose(2, 0, 1), color="#d4d4d4", linewidth=0.9)
        for name, dots, colour in zip(names, lines, (GAIN, LOSS), strict=True):
            ax.plot(*dots.T, "o", markersize=5, color=colour, label=name)
            drawn.append(pd.DataFrame(dots, columns=["x", "y"]).assign(panel=title, client=name))
        ax.set(title=f"{title}: mean cosine {(first * second).sum(1).mean():+.2f}", xticks=[], yticks=[])
        ax.grid(False)
    axes[0, 0].legend(loc="best")
    return fig, pd.concat(drawn, ignore_index=True)


def grid_heatmap(ax, grid, title, limit, xlabel=None, ylabel=None, bold=None, fontsize=8, digits=1):
    """Table of numbers, some nan, as an annotated heat map on `ax`: blue above 0, red below, colours end at `limit`; which are
    `bold`: an array of that shape.  Returns the image."""
    image = ax.imshow(grid, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto")
    for (row, column), value in np.ndenumerate(grid.to_numpy(dtype=float)):
        if value == value:
            ax.text(column, row, f"{value:+.{digits}f}", ha="center", va="center", fontsize=fontsize,
                    color="w" if abs(value) > 0.55 * limit else "k",
                    weight="bold" if bold is not None and bold[row, column] else "normal")
    ax.set_xticks(range(grid.shape[1]), grid.columns)
    ax.set_yticks(range(grid.shape[0]), grid.index)
    ax.grid(False)
    ax.set(title=title, xlabel=xlabel, ylabel=ylabel)
    return image


def scene_grid(images, titles=None):
    """Images (n, 3, H, W) in [0, 1] in one row.  Returns the figure."""
    fig, axes = plt.subplots(1, len(images), figsize=(1.15 * len(images), 1.45), squeeze=False)
    for index, ax in enumerate(axes[0]):
        ax.imshow(images[index].permute(1, 2, 0).numpy())
        ax.axis("off")
        if titles is not None:
            ax.set_title(titles[index], fontsize=8)
    return fig


def mask_rows(images, masks):
    """Scenes (n, 3, H, W) in one row and below it one row for each entry of {name: n masks (H, W)}, one colour a class.
    Returns the figure."""
    fig, axes = plt.subplots(1 + len(masks), len(images), figsize=(1.15 * len(images) + 1.8, 1.15 * (1 + len(masks))),
                             squeeze=False, layout="constrained")
    for ax, image in zip(axes[0], images, strict=True):
        ax.imshow(image.permute(1, 2, 0).numpy())
    for row, drawn in zip(axes[1:], masks.values(), strict=True):
        for ax, mask in zip(row, drawn, strict=True):
            ax.imshow(np.asarray(mask), cmap=CLASS_COLOURS, vmin=-0.5, vmax=10.5, interpolation="nearest")
    for row, name in zip(axes, ["scene", *masks], strict=True):
        row[0].set_ylabel(name.replace(", ", "\n"), rotation=0, ha="right", va="center")
    for ax in axes.flat:
        ax.set_xticks([])
        ax.set_yticks([])
        ax.grid(False)
    return fig

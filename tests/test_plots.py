from itertools import combinations

import matplotlib
import numpy as np
import pandas as pd
import pytest
import torch

from fedmuscle_core.analysis import plots
from fedmuscle_core.method import Method
from fedmuscle_core.methods import METHODS, of_group

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    matplotlib.pyplot.close("all")


def history(methods, clients, seeds=3):
    rows = [(method, client, "mlc", "mAP", "validation", round, seed, 10 * round + client + seed)
            for method in methods for client in range(1, clients + 1) for round in (0, 1) for seed in range(seeds)]
    return pd.DataFrame(rows, columns=["method", "client", "task", "metric", "split", "round", "seed", "value"])


def changes(values, seeds=3):
    """{method: [change of client 1, 2, ...]}, the same on every seed but for +-1 %."""
    rows = [(method, client, "mlc", seed, change + seed - (seeds - 1) / 2)
            for method, column in values.items() for client, change in enumerate(column, 1) for seed in range(seeds)]
    return pd.DataFrame(rows, columns=["method", "client", "task", "seed", "change"])


def overlapping(texts, figure):
    """Pairs of non-empty texts whose boxes overlap on the drawn figure."""
    figure.canvas.draw()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text() and text.get_visible()]
    return [(first, second) for (first, a), (second, b) in combinations(boxes, 2) if a.overlaps(b)]


@pytest.mark.parametrize("together", [of_group("aligning"), ("local", "fedmuscle", *of_group("sharing"))],
                         ids=["aligning", "sharing"])
def test_every_method_has_a_colour_that_the_colour_blind_tell_apart(together):
    """CIELAB distances, as seen normally and with protanopia, deuteranopia and tritanopia (Machado et al. 2009)."""
    colours = [*map(plots.colour_of, together), *plots.FURTHER_COLOURS]
    rgb = np.array([matplotlib.colors.to_rgb(colour) for colour in colours])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = {"normal": np.eye(3),
            "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
            "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
            "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]}
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    for vision, matrix in seen.items():
        xyz = np.clip(linear @ np.transpose(matrix), 0, 1) @ to_xyz.T / [0.9505, 1, 1.089]
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        lab = np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)
        assert min(np.linalg.norm(a - b) for a, b in combinations(lab, 2)) > 20, vision


@pytest.fixture
def new_methods():
    """Makes n methods that name no colour."""
    before = dict(METHODS)
    yield lambda n: [type(f"New{place}", (Method,), {"name": f"new{place}", "label": f"New {place}"}) for place in range(n)]
    METHODS.clear()
    METHODS.update(before)


def test_a_method_without_a_colour_has_a_free_one_that_stays(new_methods):
    assert plots.colour_of("fedmuscle") == METHODS["fedmuscle"].colour
    number = len(plots.FURTHER_COLOURS)
    new_methods(1)
    first = plots.colour_of("new0")
    new_methods(number + 1)
    colours = [plots.colour_of(f"new{place}") for place in range(number + 1)]
    assert colours == [*plots.FURTHER_COLOURS, first]                            # over again where they are not enough
    assert not set(colours) & {method.colour for method in METHODS.values()}
    type("Taken", (Method,), {"name": "taken", "label": "Taken", "colour": first})
    assert plots.colour_of("new0") == plots.FURTHER_COLOURS[1]
    with pytest.raises(ValueError, match="method: got 'nobody'"):
        plots.colour_of("nobody")


def test_curves_of_a_method_of_ones_own_are_drawn_in_its_colour(new_methods):
    new_methods(1)
    fig, _ = plots.learning_curves(history(["local", "new0"], 1))
    assert [line.get_color() for line in fig.axes[0].get_lines()] == [METHODS["local"].colour, plots.FURTHER_COLOURS[0]]


def test_titles_say_untuned_where_nobody_tuned_the_setup():
    runs, table = history(["local", "fedmuscle"], 2), changes({"local": [0, 0], "fedmuscle": [1, 2]})
    for untuned in ([], ["mine"]):
        runs.attrs["untuned"] = table.attrs["untuned"] = untuned
        figures = [plots.learning_curves(runs)[0], plots.change_heatmap(table)[0]]
        assert ["(untuned)" in fig.get_suptitle() for fig in figures] == [bool(untuned)] * 2
        assert not overlapping([figures[1]._suptitle, *figures[1].axes[0].texts], figures[1])


def test_learning_curves_of_many_methods_and_clients_stay_readable():
    methods = list(METHODS)
    fig, table = plots.learning_curves(history(methods, 10))
    shown = [ax for ax in fig.axes if ax.get_visible()]
    assert len(shown) == 10 and all(ax.get_legend() is None for ax in shown)
    legend, = fig.legends
    assert [text.get_text() for text in legend.get_texts()] == [METHODS[method].label for method in methods]
    assert len(table) == 10 * len(methods) * 2 and "3 seeds" in fig.get_suptitle()
    texts = [*legend.get_texts(), fig._suptitle, *(ax.xaxis.label for ax in shown), *(ax.yaxis.label for ax in shown),
             *(ax._left_title for ax in shown), *(ax.title for ax in shown)]
    assert not overlapping(texts, fig)
    fig.canvas.draw()
    assert not any(ax.get_tightbbox().overlaps(legend.get_window_extent()) for ax in shown)


def test_tasks_on_real_data_have_labels_that_do_not_run_into_each_other():
    assert [plots.task_label(name) for name in ("ic100", "class@cifar10_excerpt", "labels@voc")] == [
        "IC100", "class\ncifar10", "labels\nvoc"]
    clients = [(client, "class@cifar100_excerpt") for client in range(1, 11)]
    changes = pd.DataFrame([{"client": client, "task": task, "method": method, "seed": 0, "change": float(client)}
                            for client, task in clients for method in ("simclr", "fedmuscle")])
    fig, _ = plots.change_heatmap(changes)
    fig.canvas.draw()
    boxes = [label.get_window_extent() for label in fig.axes[0].get_xticklabels()]
    assert len(boxes) == 10 and all(left.x1 <= right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_learning_curves_draw_means_with_bands_over_seeds():
    fig, table = plots.learning_curves(history(["local", "fedmuscle"], 2))
    assert len(fig.axes) == 2 and fig.axes[0].get_title() == "client 1: MLC"
    row = table.query("client == 1 and method == 'fedmuscle' and round == 1").iloc[0]
    assert row["mean"] == 12 and row["low"] == pytest.approx(12 - 4.303 / 3 ** 0.5, rel=1e-3) and row["seeds"] == 3


def test_learning_curves_of_tasks_are_means_over_clients_before_seeds():
    runs = history(["local", "fedmuscle"], 4)
    runs["task"] = runs["client"].map({1: "ss", 2: "ss", 3: "mlc", 4: "mlc"})
    runs["value"] = runs["value"] + 10 * runs["client"]
    fig, table = plots.learning_curves(runs, panel="task")
    assert [ax.get_title() for ax in fig.axes] == ["SS", "MLC"]
    assert "mean over the clients of a task and 3 seeds" in fig.get_suptitle()
    row = table.query("task == 'ss' and method == 'fedmuscle' and round == 1").iloc[0]
    each = plots.learning_curves(runs)[1].query("client < 3 and method == 'fedmuscle' and round == 1")
    assert row["mean"] == pytest.approx(each["mean"].mean()) and row["seeds"] == 3
    noise = each["high"] - each["low"]                                        # the same for each client here
    assert row["high"] - row["low"] == pytest.approx(noise.mean())


def test_learning_curves_choose_and_order_methods():
    fig, table = plots.learning_curves(history(["local", "pairwise", "fedmuscle"], 7), ["fedmuscle", "local"])
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["FedMuscle", "Local"]
    assert [line.get_color() for line in fig.axes[0].get_lines()] == [plots.colour_of("fedmuscle"), plots.colour_of("local")]
    assert set(table["method"]) == {"fedmuscle", "local"}
    visible = [ax.get_visible() for ax in fig.axes]
    assert visible == [True] * 7 + [False] * 2
    assert [bool(ax.get_xlabel()) for ax in fig.axes[:7]] == [False] * 4 + [True] * 3
    assert len(plots.learning_curves(history(["local"], 12))[0].axes) == 12                   # no gap: three a row
    with pytest.raises(ValueError, match=r"methods: got \['simclr'\] without rows"):
        plots.learning_curves(history(["local"], 1), ["local", "simclr"])


def test_the_heat_map_writes_the_means_and_one_client_does_not_wash_out_the_others():
    values = {"local": [0, 0, 0], "pairwise": [0.5, -3, 400], "fedmuscle": [4, -8, 900]}
    fig, table = plots.change_heatmap(changes(values))
    ax, bar = fig.axes
    assert [text.get_text() for text in ax.texts] == ["+0.5", "-3.0", "+400.0", "+4.0", "-8.0", "+900.0"]
    assert [text.get_weight() for text in ax.texts] == ["normal", "bold", "bold", "bold", "bold", "bold"]   # half-width 2.5
    assert ax.images[0].get_clim() == (-8, 8)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1 MLC", "2 MLC", "3 MLC"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Pairwise", "FedMuscle"]
    assert table.set_index(["method", "client"])["mean"][("fedmuscle", 2)] == pytest.approx(-8) and len(table) == 6
    assert not overlapping([*ax.texts, *ax.get_xticklabels(), fig._suptitle], fig)


def test_the_heat_map_of_one_client_and_one_seed():
    fig, table = plots.change_heatmap(changes({"local": [0], "fedmuscle": [0.25]}, seeds=1), ["fedmuscle", "local"])
    assert fig.axes[0].images[0].get_clim() == (-1, 1) and table["low"].isna().all()
    assert [text.get_text() for text in fig.axes[0].texts] == ["+0.2", "+0.0"] and "1 seed\n" in fig.get_suptitle()


ROWS = pd.DataFrame([("A", 2.0, 1.0, 3.0), ("B", 0.5, -1.0, 2.0), ("C", -4.0, -5.0, -3.0), ("D", 1.0, np.nan, np.nan)],
                    columns=["label", "mean", "low", "high"])


def test_the_forest_plot_draws_the_intervals_in_the_order_given():
    fig = plots.forest_plot(ROWS, "title")
    ax, = fig.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "B", "C", "D"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]                                   # the first on top
    assert fig.get_suptitle() == "title\nshown above 0: 1 of 4; below: 1"
    intervals = [line for line in ax.get_lines() if line.get_marker() == "None" and len(set(line.get_ydata())) == 1]
    assert [list(line.get_xdata()) for line in intervals] == [[1, 3], [-1, 2], [-5, -3]]
    assert [line.get_color() for line in intervals] == [plots.GAIN, plots.UNCLEAR, plots.LOSS]
    assert [text.get_text() for text in ax.texts] == ["+2.00 [+1.00, +3.00]", "+0.50 [-1.00, +2.00]", "-4.00 [-5.00, -3.00]",
                                                      "+1.00"]
    assert not overlapping([*ax.texts, *ax.get_yticklabels(), ax.xaxis.label, fig._suptitle], fig)
    assert min(text.get_window_extent().x0 for text in ax.texts) > ax.get_window_extent().x1


def test_the_forest_plot_heads_its_groups():
    rows = pd.concat([ROWS.assign(group="digits"), ROWS.head(1).assign(group="photos")])
    ax, = plots.forest_plot(rows, "title").axes
    labels = [(label.get_text(), label.get_weight()) for label in ax.get_yticklabels()]
    assert labels[0] == ("digits", "bold") and labels[5:] == [("photos", "bold"), ("A", "normal")] and len(ax.texts) == 5


def test_mask_rows_draws_a_row_for_the_scenes_and_one_for_each_name():
    masks = [torch.randint(0, 11, (32, 32)) for _ in range(3)]
    fig = plots.mask_rows(torch.rand(3, 3, 32, 32), {"truth": masks, "client 7, Local": masks[::-1]})
    assert len(fig.axes) == 9 and fig.axes[6].get_ylabel() == "client 7\nLocal"
    assert (fig.axes[6].images[0].get_array() == masks[2].numpy()).all()


def test_many_heat_maps_wrap():
    assert len([ax for ax in plots.heatmaps({str(n): np.eye(2) for n in range(5)}, "x").axes if ax.get_visible()]) == 5


def test_value_curves_draw_a_line_a_method_in_the_order_of_the_values():
    measured = pd.DataFrame([{"method": method, "value": value, "seed": seed, "delta": 10 * value + seed}
                             for method in ("pairwise", "fedmuscle") for value in (5, 1, 3) for seed in range(3)])
    _, ax = matplotlib.pyplot.subplots()
    drawn = plots.value_curves(ax, measured)
    lines = [container.lines[0] for container in ax.containers]
    assert [list(line.get_xdata()) for line in lines] == [[1, 3, 5]] * 2 and list(lines[0].get_ydata()) == [11, 31, 51]
    assert [container.get_label() for container in ax.containers] == ["Pairwise", "FedMuscle"]
    assert len(drawn) == 6 and set(drawn["seeds"]) == {3}
    top = ax.containers[0].lines[2][0].get_segments()[0][:, 1]
    assert top[1] - top[0] == pytest.approx(2 * 4.303 / 3 ** 0.5, rel=1e-3)   # t of two degrees of freedom, sd 1


PAIRS = pd.DataFrame([[1.0, np.nan], [-30.0, 4.0]], index=["a", "b"], columns=[0.1, 0.2])


def test_a_grid_heat_map_writes_its_numbers_and_leaves_gaps():
    _, ax = matplotlib.pyplot.subplots()
    plots.grid_heatmap(ax, PAIRS, "title", 10, "x", "y")
    assert [text.get_text() for text in ax.texts] == ["+1.0", "-30.0", "+4.0"]
    assert [text.get_color() for text in ax.texts] == ["k", "w", "k"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.1", "0.2"] and ax.get_ylabel() == "y"


def test_a_curve_over_values_marks_the_one_that_was_tuned():
    measured = pd.DataFrame({"value": [1, 3, 1, 3], "method": "fedmuscle", "seed": [0, 0, 1, 1], "delta": [1.0, 2.0, 1.5, 2.5]})
    for tuned, texts in ((None, []), (3, [" tuned"])):
        _, ax = matplotlib.pyplot.subplots()
        table = plots.value_curves(ax, measured, tuned)
        assert [text.get_text() for text in ax.texts] == texts and table["mean"].tolist() == [1.25, 2.25]


def test_pairs_in_the_plane_join_the_same_samples_and_say_how_alike_they_are():
    own = np.eye(4)[:3]
    fig, table = plots.pairs_in_the_plane({"before": (own, -2 * own), "after": (own, own)}, ("a", "b"))
    assert [ax.get_title() for ax in fig.axes] == ["before: mean cosine -1.00", "after: mean cosine +1.00"]
    after = table[table["panel"] == "after"].groupby("client")[["x", "y"]]
    assert np.allclose(after.get_group("a"), after.get_group("b")) and len(table) == 12
    assert len(fig.axes[0].lines) == 3 + 2


def test_a_saved_figure_has_its_numbers_beside_it_and_stable_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "figures", lambda profile: tmp_path / profile)
    table = pd.DataFrame({"x": [1.0, 1 / 3]})
    written = []
    for _ in range(2):
        fig = plots.heatmaps({"a": np.eye(2)}, "title")
        plots.save_figure(fig, table, "99_test", "quick")
        written.append([(tmp_path / "quick" / f"99_test.{kind}").read_bytes() for kind in ("png", "csv", "svg")])
    assert written[0] == written[1]
    assert written[0][1] == b"x\n1\n0.333333\n"
    assert sorted(path.name for path in (tmp_path / "quick").iterdir()) == ["99_test.csv", "99_test.png", "99_test.svg"]


def test_what_diverged_is_not_drawn_and_the_title_says_so():
    runs = history(["local", "fedmuscle"], 2)
    marker = runs[runs["method"] == "fedmuscle"].head(1).assign(split="diverged", value=np.nan, round=1)
    for lost in (pd.concat([runs, marker], ignore_index=True),
                 runs.assign(value=runs["value"].where(runs.index < len(runs) - 1))):
        fig, table = plots.learning_curves(lost)
        assert "not drawn: FedMuscle, diverged on 1 of 3 seeds" in fig.get_suptitle() and set(table["method"]) == {"local"}
    measured = pd.DataFrame([{"method": "fedmuscle", "value": value, "seed": seed,
                              "delta": np.nan if value == 3 else 1.0 * seed}
                             for value in (1, 3) for seed in range(3)])
    measured.attrs["untuned"] = ["mine"]
    _, ax = matplotlib.pyplot.subplots()
    assert plots.value_curves(ax, measured)["setting"].tolist() == [1]
    assert ax.containers[0].get_label() == "FedMuscle (untuned); diverged with 3"
    rows = pd.DataFrame([("A, which diverged", np.nan, np.nan, np.nan)], columns=ROWS.columns)
    rows.attrs["untuned"] = ["mine"]
    fig = plots.forest_plot(rows, "title")
    assert [text.get_text() for text in fig.axes[0].texts] == ["-"] and fig.get_suptitle().startswith("title (untuned)\n")


def test_a_figure_that_cannot_be_saved_leaves_the_old_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "figures", lambda profile: tmp_path)
    fig = plots.heatmaps({"a": np.eye(2)}, "title")
    plots.save_figure(fig, pd.DataFrame({"x": [1]}), "99_test", "quick")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")
    for broken in ((fig, "savefig"), (type(tmp_path), "write_bytes")):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left on device: '.*99_test"):
            patch.setattr(*broken, fail)
            plots.save_figure(fig, pd.DataFrame({"x": [2]}), "99_test", "quick")
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_dots_of_measures_stand_at_their_means_in_the_order_of_the_labels():
    rows = pd.DataFrame([(measure, label, method, 0.1 * place, 0.0, 0.5) for measure in ("retrieval", "cka")
                         for place, (label, method) in enumerate((("before", None), ("after", "fedmuscle")), 1)],
                        columns=["measure", "label", "method", "mean", "low", "high"])
    fig = plots.measure_dots(rows, "title")
    assert [ax.get_title() for ax in fig.axes] == ["retrieval", "CKA"] and fig.get_suptitle() == "title"
    assert [tick.get_text() for tick in fig.axes[0].get_yticklabels()] == ["before", "after"]
    for ax in fig.axes:
        assert [line.lines[0].get_xdata()[0] for line in ax.containers] == pytest.approx([0.1, 0.2])
        assert ax.containers[1].lines[0].get_color() == plots.colour_of("fedmuscle") != ax.containers[0].lines[0].get_color()

import matplotlib
import numpy as np
import pandas as pd
import pytest

from fedmuscle_core import plots, report


def history(changes, seeds=3):
    """Local scores 50 for two clients; other methods 50 * (1 + change) plus a small effect of the seed."""
    rows = []
    for method, change in {"local": 0.0, **changes}.items():
        for seed in range(seeds):
            for client in (1, 2):
                value = 50 * (1 + change) + (seed if method != "local" else 0) * 0.1
                for split, round in (("validation", 0), ("validation", 1), ("test", 1)):
                    rows.append((method, client, "mlc", "mAP", split, round, seed, value, 0))
    return pd.DataFrame(rows, columns=["method", "client", "task", "metric", "split", "round", "seed", "value", "bytes"])


def test_the_sentence_follows_from_the_numbers():
    text = report.delta_sentence(history({"fedmuscle": 0.2, "pairwise": 0.1}), "fedmuscle", "pairwise")
    assert text.startswith("FedMuscle improves 2 of 2 clients on average over 3 seed(s); Delta +20.2 [")
    assert "paired difference to Pairwise +10.0 [+10.0, +10.0] points: higher" in text
    text = report.delta_sentence(history({"fedmuscle": -0.2, "pairwise": 0.1}), "fedmuscle", "pairwise")
    assert "improves 0 of 2" in text and "points: lower" in text


def test_tables_have_a_row_a_method_and_a_row_a_client():
    table = report.delta_table(history({"fedmuscle": 0.2, "pairwise": 0.1}))
    assert table["method"].tolist() == ["Local", "Pairwise", "FedMuscle"]
    assert table["clients improved"].tolist() == ["0 %", "100 %", "100 %"] and set(table["seeds"]) == {3}
    scores = report.score_table(history({"fedmuscle": 0.2}))
    assert scores["client"].tolist() == [1, 2] and scores["FedMuscle"][0].startswith("60.1 [")


@pytest.mark.parametrize(("interval", "text"), [((9.06, 7, 11), "+9.1 [+7.0, +11.0]"), ((-1, np.nan, np.nan), "-1.0")])
def test_interval_text(interval, text):
    assert report.interval_text(interval) == text


@pytest.mark.parametrize(("interval", "words"), [
    ((20, 10, 30), "inside our interval"), ((5, 3, 7), "same sign, other size"), ((5, -3, 13), "sign not shown"),
    ((-5, -7, -3), "other sign"), ((5, np.nan, np.nan), "same sign"), ((-5, np.nan, np.nan), "other sign")])
def test_agreement_with_a_published_26(interval, words):
    assert report.agreement(26.0, interval) == words


def test_learning_curves_draw_means_with_bands_over_seeds():
    matplotlib.use("Agg")
    fig, table = plots.learning_curves(history({"fedmuscle": 0.2}))
    assert len(fig.axes) == 2 and fig.axes[0].get_title() == "client 1: MLC"
    row = table.query("client == 1 and method == 'fedmuscle' and round == 1").iloc[0]
    assert row["mean"] == pytest.approx(60.1) and row["low"] < 60.1 < row["high"] and row["seeds"] == 3


def test_a_saved_figure_has_its_numbers_beside_it_and_stable_bytes(tmp_path, monkeypatch):
    matplotlib.use("Agg")
    monkeypatch.setattr(plots, "figures", lambda profile: tmp_path / profile)
    table = pd.DataFrame({"x": [1.0, 1 / 3]})
    written = []
    for _ in range(2):
        fig = plots.heatmaps({"a": np.eye(2)}, "title")
        plots.save_figure(fig, table, "99_test", "quick")
        matplotlib.pyplot.close(fig)
        written.append([(tmp_path / "quick" / f"99_test.{kind}").read_bytes() for kind in ("png", "csv")])
    assert written[0] == written[1]
    assert written[0][1] == b"x\n1\n0.333333\n"
    assert sorted(path.name for path in (tmp_path / "quick").iterdir()) == ["99_test.csv", "99_test.png"]

import re

import matplotlib
import numpy as np
import pandas as pd
import pytest

from fedmuscle_core.analysis import plots
from fedmuscle_core.analysis import tables as report


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


def test_the_comparison_table_by_hand():
    """Both clients change alike, +20 % and 0.2 points more a seed: mean and worst agree; 50 to 60 % is 0.41 log-odds."""
    runs = history({"fedmuscle": 0.2, "pairwise": -0.1})
    table = report.comparison_table(runs, ["fedmuscle", "local", "pairwise"]).set_index("method")
    assert table.index.tolist() == ["FedMuscle", "Pairwise"] and table["seeds"].tolist() == [3, 3]
    texts = table.loc["FedMuscle"]
    assert texts["Delta (%)"] == texts["worst client (%)"] == texts["worst third (%)"] == "+20.2 [+19.7, +20.7]"
    assert re.fullmatch(r"\+20\.2 \[\+20\.[01], \+20\.[34]\]", texts["IQM (%)"])       # between the seeds' 20.0 and 20.4
    assert texts["balanced gain (log-odds)"] == "+0.41 [+0.40, +0.42]"
    assert table["clients improved"].tolist() == ["100 %", "0 %"] and table["Delta (%)"].iloc[1].startswith("-9.8 [")


def test_the_comparison_table_does_not_hide_a_missing_client():
    runs = history({"fedmuscle": 0.2})
    with pytest.raises(ValueError, match=r"'fedmuscle' lacks a client on seeds \[1\]"):
        report.comparison_table(runs.query("not (method == 'fedmuscle' and client == 2 and seed == 1)"), ["fedmuscle"])
    with pytest.raises(ValueError, match="method: got 'pairwise', expected one of"):
        report.comparison_table(runs, ["pairwise"])


def test_pairwise_differences_agree_with_delta_difference():
    runs = history({"fedmuscle": 0.2, "pairwise": 0.1})
    runs.loc[(runs["method"] == "pairwise") & (runs["client"] == 1), "value"] += 7.5 * runs["seed"]
    row = report.pairwise_differences(runs, "fedmuscle", ["pairwise"]).iloc[0]
    assert row[["mean", "low", "high"]].tolist() == pytest.approx(report.delta_difference(runs, "fedmuscle", "pairwise"))
    assert row["mean"] == pytest.approx(2.5) and row["seeds"] == 3
    assert row["probability"] == pytest.approx((1 + 1 / 3) / 2)              # client 2 on all seeds, client 1 on the first
    assert row["seeds_needed"] == 442                                        # sd 7.5: (2.8016 * 7.5)^2 = 441.5


def test_the_pairwise_table_is_those_numbers_as_text():
    runs = history({"fedmuscle": 0.2, "pairwise": 0.1})
    table = report.pairwise_table(runs, "fedmuscle", ["pairwise", "local"])
    assert table["FedMuscle against"].tolist() == ["Pairwise", "Local"]
    assert table.iloc[0].tolist()[1:] == ["+10.0 [+10.0, +10.0]", "higher", "1.00 [1.00, 1.00]", 3, 2]
    single = report.pairwise_table(runs.query("seed == 0"), "fedmuscle", ["pairwise"]).iloc[0].tolist()
    assert single == ["Pairwise", "+10.0", "one seed: no interval", "1.00", 1, "?"]


def test_the_improvement_sentence_adds_the_probability():
    text = report.improvement_sentence(history({"fedmuscle": -0.2, "pairwise": 0.1}), "fedmuscle", "pairwise")
    assert "improves 0 of 2 clients" in text
    assert text.endswith("points: lower; probability of improvement 0.00 [0.00, 0.00].")


def test_rank_disagreements_name_the_pair_that_delta_and_balanced_gain_order_differently():
    runs = history({"fedmuscle": 0.2, "pairwise": 0.1})
    names = ["local", "pairwise", "fedmuscle"]
    assert report.rank_disagreements(runs, names).empty
    runs.loc[(runs["method"] == "fedmuscle") & (runs["client"] == 1), "value"] -= 12      # loses, and
    runs.loc[(runs["method"] == "fedmuscle") & (runs["client"] == 2), "value"] += 20      # is outweighed
    table = report.rank_disagreements(runs, names)
    assert table.iloc[:, :2].to_numpy().tolist() == [["FedMuscle", "Local"], ["FedMuscle", "Pairwise"]]
    row = table.iloc[1]
    assert row["Delta of former (%)"] == pytest.approx(28.2) and row["Delta of latter (%)"] == pytest.approx(10.2)
    assert row["gain of former"] < 0 < row["gain of latter"]
    assert report.rank_disagreements(runs, names[::-1]).shape == table.shape
    assert report.rank_disagreements(runs, ["local", "pairwise"]).columns.equals(table.columns)


def test_a_tie_is_no_rank_disagreement():
    runs = history({"pairwise": 0.2, "fedmuscle": 0.2}, seeds=1)
    runs.loc[runs["method"] == "fedmuscle", "value"] += runs["client"].map({1: 10, 2: -10})       # +40 % and 0 %: Delta 20 too
    for names in (["pairwise", "fedmuscle"], ["fedmuscle", "pairwise"]):
        assert report.rank_disagreements(runs, names).empty
    assert report.comparison_table(runs, ["pairwise", "fedmuscle"])["Delta (%)"].tolist() == ["+20.0", "+20.0"]


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


def test_the_exchange_table_counts_the_bytes_of_the_runs():
    rows = [(method, client, "mlc", metric, "train", round, 0, 1.0, size) for method, size in (("local", 0), ("fedhenn", 2048))
            for client in (1, 2) for metric in ("local_loss", "mAP") for round in (0, 1, 2)]
    table = report.exchange_table(pd.DataFrame(rows, columns=["method", "client", "task", "metric", "split", "round", "seed",
                                                              "value", "bytes"]))
    assert table["method"].tolist() == ["Local", "FedHeNN"] and table["KiB per client and round"].tolist() == ["0.0", "2.0"]
    assert "kernels" in table["exchanged"].iloc[1] and "averages" in table["needs"].iloc[1]


def test_a_published_delta_is_a_number_or_none():
    assert report.published_delta("setup1", "fedmuscle", "pascal_voc") == 26.70
    assert report.published_delta("setup2", "simclr", "flickr30k") is None

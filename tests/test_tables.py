import re

import numpy as np
import pandas as pd
import pytest

from fedmuscle_core.analysis import tables


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
    text = tables.delta_sentence(history({"fedmuscle": 0.2, "pairwise": 0.1}), "fedmuscle", "pairwise")
    assert text.startswith("FedMuscle improves 2 of 2 clients on average over 3 seeds, 2 shown above Local and 0 below; "
                           "Delta +20.2 [")
    assert "paired difference to Pairwise +10.0 [+10.0, +10.0] points: higher" in text
    text = tables.delta_sentence(history({"fedmuscle": -0.2, "pairwise": 0.1}), "fedmuscle", "pairwise")
    assert "improves 0 of 2 clients on average over 3 seeds, 0 shown above Local and 2 below" in text
    assert "points: lower" in text


def test_who_pays_is_named_with_the_task():
    runs = history({"fedmuscle": 0.2})
    lower = (runs["client"] == 2) & (runs["method"] == "fedmuscle")
    runs.loc[lower, "value"] -= 20
    assert tables.clients_shown(runs, "fedmuscle") == ([(1, "mlc")], [(2, "mlc")])
    assert tables.who_pays(runs, "fedmuscle").startswith(
        "A mean hides who pays: with FedMuscle, of 2 clients 1 (1: mlc) shown above training alone, 1 (2: mlc) below (95 %")
    assert "2 (1: mlc, 2: mlc) shown above training alone, none below" in tables.who_pays(history({"simclr": 0.2}), "simclr")


def test_a_difference_in_log_odds_is_that_of_the_clients_of_the_history():
    runs = history({"fedmuscle": 0.2, "pairwise": 0.1})
    runs.loc[(runs["client"] == 2) & (runs["method"] == "fedmuscle"), "value"] = 50.0

    def logit(value):
        return np.log(value / (100 - value))

    mean, low, high = tables.log_odds_difference(runs[runs["client"] == 1], "fedmuscle", "pairwise")
    assert mean == pytest.approx(np.mean([logit(60 + 0.1 * seed) - logit(55 + 0.1 * seed) for seed in range(3)]))
    assert low < mean < high and tables.log_odds_difference(runs, "fedmuscle", "pairwise")[0] < mean / 2


def test_tables_have_a_row_a_method_and_a_row_a_client():
    table = tables.delta_table(history({"fedmuscle": 0.2, "pairwise": 0.1}))
    assert table["method"].tolist() == ["Local", "Pairwise", "FedMuscle"]
    assert table["clients improved"].tolist() == ["0 %", "100 %", "100 %"] and set(table["seeds"]) == {3}
    scores = tables.score_table(history({"fedmuscle": 0.2}))
    assert scores["client"].tolist() == [1, 2] and scores["FedMuscle"][0].startswith("60.1 [")


def test_the_comparison_table_by_hand():
    """Both clients change alike, +20 % and 0.2 points more a seed: mean and worst agree; 50 to 60 % is 0.41 log-odds."""
    runs = history({"fedmuscle": 0.2, "pairwise": -0.1})
    table = tables.comparison_table(runs, ["fedmuscle", "local", "pairwise"]).set_index("method")
    assert table.index.tolist() == ["FedMuscle", "Pairwise"] and table["seeds"].tolist() == [3, 3]
    texts = table.loc["FedMuscle"]
    assert texts["Delta (%)"] == texts["worst client (%)"] == "+20.2 [+19.7, +20.7]"
    assert texts["log-odds"] == texts["balanced gain (log-odds)"]
    assert re.fullmatch(r"\+20\.2 \[\+20\.[01], \+20\.[34]\]", texts["IQM (%)"])       # between the seeds' 20.0 and 20.4
    assert texts["balanced gain (log-odds)"] == "+0.41 [+0.40, +0.42]"
    assert table["clients improved"].tolist() == ["100 %", "0 %"] and table["Delta (%)"].iloc[1].startswith("-9.8 [")


def test_the_comparison_table_does_not_hide_a_missing_client():
    runs = history({"fedmuscle": 0.2})
    with pytest.raises(ValueError, match=r"'fedmuscle' lacks a client on seeds \[1\]"):
        tables.comparison_table(runs.query("not (method == 'fedmuscle' and client == 2 and seed == 1)"), ["fedmuscle"])
    with pytest.raises(ValueError, match="method: got 'pairwise', expected one of"):
        tables.comparison_table(runs, ["pairwise"])


def test_pairwise_differences_agree_with_delta_difference():
    runs = history({"fedmuscle": 0.2, "pairwise": 0.1})
    runs.loc[(runs["method"] == "pairwise") & (runs["client"] == 1), "value"] += 7.5 * runs["seed"]
    row = tables.pairwise_differences(runs, "fedmuscle", ["pairwise"]).iloc[0]
    assert row[["delta", "delta_low", "delta_high"]].tolist() == pytest.approx(
        tables.delta_difference(runs, "fedmuscle", "pairwise"))
    assert row["delta"] == pytest.approx(2.5) and row["seeds"] == 3
    assert row["probability"] == pytest.approx((1 + 1 / 3) / 2)              # client 2 on all seeds, client 1 on the first
    scores = runs[runs["split"] == "test"].set_index(["method", "client", "seed"])["value"] / 100
    odds = np.log(scores / (1 - scores)).groupby(["method", "seed"]).mean()
    assert row["mean"] == pytest.approx((odds["fedmuscle"] - odds["pairwise"]).mean())
    assert row["low"] < row["mean"] < row["high"]


def test_the_pairwise_table_is_those_numbers_as_text():
    runs = history({"fedmuscle": 0.2, "pairwise": 0.1})
    table = tables.pairwise_table(runs, "fedmuscle", ["pairwise", "local"])
    assert table["FedMuscle against"].tolist() == ["Pairwise", "Local"]
    assert table.iloc[0].tolist()[1:] == ["+10.0 [+10.0, +10.0]", "+0.20 [+0.20, +0.21]", "higher", "1.00 [1.00, 1.00]", 3]
    single = tables.pairwise_table(runs.query("seed == 0"), "fedmuscle", ["pairwise"]).iloc[0].tolist()
    assert single == ["Pairwise", "+10.0", "+0.20", "one seed: no interval", "1.00", 1]


def test_the_improvement_sentence_adds_the_probability():
    text = tables.improvement_sentence(history({"fedmuscle": -0.2, "pairwise": 0.1}), "fedmuscle", "pairwise")
    assert "improves 0 of 2 clients" in text
    assert text.endswith("points: lower; probability of improvement 0.00 [0.00, 0.00].")


def test_rank_disagreements_name_the_pair_that_delta_and_balanced_gain_order_differently():
    runs = history({"fedmuscle": 0.2, "pairwise": 0.1})
    names = ["local", "pairwise", "fedmuscle"]
    assert tables.rank_disagreements(runs, names).empty
    runs.loc[(runs["method"] == "fedmuscle") & (runs["client"] == 1), "value"] -= 12      # loses, and
    runs.loc[(runs["method"] == "fedmuscle") & (runs["client"] == 2), "value"] += 20      # is outweighed
    table = tables.rank_disagreements(runs, names)
    assert table.iloc[:, :2].to_numpy().tolist() == [["FedMuscle", "Local"], ["FedMuscle", "Pairwise"]]
    row = table.iloc[1]
    assert row["Delta of former (%)"] == pytest.approx(28.2) and row["Delta of latter (%)"] == pytest.approx(10.2)
    assert row["gain of former"] < 0 < row["gain of latter"]
    assert tables.rank_disagreements(runs, names[::-1]).shape == table.shape
    assert tables.rank_disagreements(runs, ["local", "pairwise"]).columns.equals(table.columns)


def test_a_tie_is_no_rank_disagreement():
    runs = history({"pairwise": 0.2, "fedmuscle": 0.2}, seeds=1)
    runs.loc[runs["method"] == "fedmuscle", "value"] += runs["client"].map({1: 10, 2: -10})       # +40 % and 0 %: Delta 20 too
    for names in (["pairwise", "fedmuscle"], ["fedmuscle", "pairwise"]):
        assert tables.rank_disagreements(runs, names).empty
    assert tables.comparison_table(runs, ["pairwise", "fedmuscle"])["Delta (%)"].tolist() == ["+20.0", "+20.0"]


@pytest.mark.parametrize(("interval", "text", "unsigned"), [((9.06, 7, 11), "+9.1 [+7.0, +11.0]", "9.1 [7.0, 11.0]"),
                                                            ((-1, np.nan, np.nan), "-1.0", "-1.0")])
def test_interval_text(interval, text, unsigned):
    assert tables.interval_text(interval) == text and tables.interval_text(interval, signed=False) == unsigned


def test_the_exchange_table_counts_the_bytes_of_the_runs():
    rows = [(method, client, "mlc", metric, "train", round, 0, 1.0, size) for method, size in (("local", 0), ("fedhenn", 2048))
            for client in (1, 2) for metric in ("local_loss", "mAP") for round in (0, 1, 2)]
    table = tables.exchange_table(pd.DataFrame(rows, columns=["method", "client", "task", "metric", "split", "round", "seed",
                                                              "value", "bytes"]))
    assert table["method"].tolist() == ["Local", "FedHeNN"] and table["KiB per client and round"].tolist() == ["0.0", "2.0"]
    assert "kernels" in table["exchanged"].iloc[1] and "averages" in table["needs"].iloc[1]


@pytest.mark.parametrize(("table", "name"), [
    (tables.delta_table, "method (untuned)"), (tables.score_table, "FedMuscle (untuned)"),
    (tables.exchange_table, "method (untuned)"),
    (lambda runs: tables.comparison_table(runs, ["pairwise", "fedmuscle"]), "method (untuned)"),
    (lambda runs: tables.pairwise_table(runs, "fedmuscle", ["pairwise"]), "FedMuscle (untuned) against"),
    (lambda runs: tables.rank_disagreements(runs, ["pairwise", "fedmuscle"]), "better by Delta (untuned)"),
    (lambda runs: [tables.delta_sentence(runs, "fedmuscle", "pairwise")[:19]], "FedMuscle (untuned)")])
def test_tables_and_sentences_say_untuned_where_nobody_tuned_the_setup(table, name):
    runs = history({"pairwise": 0.1, "fedmuscle": 0.2})
    for untuned in ([], ["mine"]):
        runs.attrs["untuned"] = untuned
        assert (name in list(table(runs.query("seed < 2")))) == bool(untuned)


@pytest.fixture
def diverged():
    """Pairwise diverged on seed 1 of three."""
    runs = history({"fedmuscle": 0.2, "pairwise": 0.1})
    lost = (runs["method"] == "pairwise") & (runs["seed"] == 1)
    marker = runs[lost].head(1).assign(split="diverged", client=2, round=4, value=np.nan, task="", metric="")
    return pd.concat([runs[~lost], marker], ignore_index=True)


WHY = "diverged on 1 of 3 seeds: seed 1, client 2, round 4"


def test_a_method_that_diverged_has_no_delta_but_the_reason(diverged):
    table = tables.delta_table(diverged).set_index("method")
    assert table.loc["Pairwise"].tolist() == [WHY, "-", "-", "-", "-"]
    assert table.loc["FedMuscle", "Delta (%)"].startswith("+20.2")
    assert tables.delta_table(diverged).equals(tables.delta_table(diverged.iloc[::-1]))
    table = tables.comparison_table(diverged, ["pairwise", "fedmuscle"]).set_index("method")
    assert set(table.loc["Pairwise"]) == {WHY, "-"} and table.loc["FedMuscle", "IQM (%)"].startswith("+20.2")
    assert tables.score_table(diverged)["Pairwise"].tolist() == [WHY] * 2
    assert tables.exchange_table(diverged).set_index("method").loc["Pairwise", "KiB per client and round"] == WHY


def test_sentences_and_pairs_say_which_method_diverged(diverged):
    assert tables.delta_sentence(diverged, "pairwise", "fedmuscle") == f"Pairwise {WHY}: it has no Delta."
    text = tables.delta_sentence(diverged, "fedmuscle", "pairwise")
    assert "below; Delta +20.2 [" in text and text.endswith(f"%; no difference to Pairwise, which {WHY}.")
    assert tables.improvement_sentence(diverged, "fedmuscle", "pairwise") == text
    row = tables.pairwise_table(diverged, "fedmuscle", ["pairwise"]).iloc[0].tolist()
    assert row == [f"Pairwise, which {WHY}", "-", "-", "-", "-", 0]
    for refused in (lambda: tables.pairwise_differences(diverged, "pairwise", ["fedmuscle"]),
                    lambda: tables.delta_interval(diverged, "pairwise"), lambda: tables.clients_improved(diverged, "pairwise"),
                    lambda: tables.delta_difference(diverged, "fedmuscle", "pairwise"),
                    lambda: tables.rank_disagreements(diverged, ["fedmuscle", "pairwise"])):
        with pytest.raises(ValueError, match="'pairwise' diverged on 1 of 3"):
            refused()
    with pytest.raises(ValueError, match="'local' diverged on 1 of 3"):
        tables.delta_table(diverged.replace({"method": {"local": "pairwise", "pairwise": "local"}}))


def test_pairwise_differences_keep_the_mark_of_what_nobody_tuned():
    runs = history({"fedmuscle": 0.2, "pairwise": 0.1})
    runs.attrs["untuned"] = ["mine"]
    assert tables.pairwise_differences(runs, "fedmuscle", ["pairwise"]).attrs == {"untuned": ["mine"]}

import pandas as pd
import pytest

from fedmuscle_core.analysis import published as against_paper
from fedmuscle_core.methods import METHODS

COLUMNS = ["method", "client", "task", "metric", "split", "round", "seed", "value", "bytes"]


def history(gains, clients=6, seeds=(0, 1)):
    """Test scores: Local 50 on every client, method m 50 + gains[m] (and a little more with the seed)."""
    return pd.DataFrame([(method, client, "mlc", "mAP", "test", 1, seed, 50 + gain + (0.1 * seed if gain else 0), 0)
                         for method, gain in {"local": 0.0, **gains}.items()
                         for client in range(1, clients + 1) for seed in seeds], columns=COLUMNS)


def test_the_order_sentence_counts_what_both_have():
    published = against_paper.published_deltas()
    assert published["fedmuscle"] == 26.7 and published["sage"] == 0.96 and "local" not in published
    same = {method: published[method] for method in ("fedmuscle", "cofed", "simclr", "fedhenn")}
    sentence = against_paper.order_sentence(history({**same, "pairwise": 40.0}))
    assert sentence == ("published FedMuscle > CoFED > SimCLR > FedHeNN; ours FedMuscle > CoFED > SimCLR > FedHeNN; "
                        "Kendall's tau +1.00.")
    turned = against_paper.order_sentence(history({method: -gain for method, gain in same.items()}))
    assert "ours FedHeNN > SimCLR > CoFED > FedMuscle; Kendall's tau -1.00." in turned


def test_table_1_has_a_row_for_every_method_published_or_run():
    table = against_paper.table1_beside(history({"fedmuscle": 5.0, "gramian": 1.0}), [0, 1]).set_index("method")
    sage = table.loc["SAGE (published only: could not be identified)"]
    assert sage["published delta (%)"] == 0.96 and sage["ours: Delta (%), mean [95 % CI]"] == "-" and sage["seeds"] == 0
    assert sage["agrees?"] == table.loc["Gramian", "agrees?"] == "cannot be said"
    assert table.loc["FedMuscle", "published client6_ic10 (%)"] == 66.57
    assert table.loc["FedMuscle", "ours: Delta (%), mean [95 % CI]"].startswith("+10.1 [")
    assert table.loc["FedMuscle", "agrees?"] == "same sign, other size"
    assert table.loc["Gramian", "published delta (%)"] == "not found" and {"Local", "CoFED", "SimCLR"} <= set(table.index)


def test_domains_stand_beside_one_another():
    table = against_paper.domains_beside({"single": history({"fedmuscle": 5.0, "cofed": 1.0})}, ["single"])
    assert table["method"].tolist() == ["FedMuscle", "CoFED"] and table["published, COCO (%)"].tolist() == [28.65, 9.85]
    assert table.loc[0, "ours, single (%), 2 seeds"].startswith("+10.1")


def test_the_gain_over_gramian_is_paired():
    table = against_paper.loss_gains_beside({"single": history({"fedmuscle": 5.0, "gramian": 2.0})}, ["single"])
    assert table["published"].tolist() == [11.2, 28.4, 11.1, "-"]
    assert table["ours"].iloc[-1] == "+6.0 [+6.0, +6.0]" and table["agrees?"].iloc[-1] == "same sign"
    assert table["seeds"].tolist() == ["-", "-", "-", 2]


def test_table_2_shows_ranges_over_the_clients_of_a_group():
    table = against_paper.table2_beside(history({"fedmuscle": 5.0}, clients=10), [0, 1])
    assert len(table) == 2 * len(against_paper.SETUP_2_GROUPS) + 1
    first = table.iloc[1]
    assert (first["clients"], first["method"], first["published (%)"]) == ("MLC 1-3", METHODS["fedmuscle"].label, "47-51")
    assert first["ours (%)"] == "55.0-55.0" or first["ours (%)"] == "55.1-55.1"
    assert table.iloc[4]["clients"] == "IC10 6" and "-" not in table.iloc[4]["ours (%)"]
    assert table.iloc[-1]["published (%)"] == pytest.approx(14.39) and table.iloc[-1]["ours (%)"].startswith("+10.1")


def test_deltas_against_peers_stand_row_by_row():
    measured = pd.DataFrame([{"method": "fedmuscle", "value": count, "seed": seed, "delta": 16.0 + count + 0.1 * seed}
                             for count in (1, 3) for seed in range(3)])
    table = against_paper.peers_beside(measured).set_index("M")
    assert table["published Delta (%)"].tolist() == [17.9, 26.7, 27.74] and table["seeds"].tolist() == [3, 3, 0]
    assert table.loc[1, "ours (%)"].startswith("+17.1 [") and table.loc[1, "agrees?"] == "same sign, other size"
    assert table.loc[5, "ours (%)"] == "not run" and table.loc[5, "agrees?"] == "cannot be said"


def test_cost_ratios_follow_from_the_formula():
    table = against_paper.costs_beside((20, 32), 256).set_index("M")
    assert table["published ratio"].tolist() == [239.0, 399.1] and table["ours: downlink, B = 32"].tolist() == [1024.0, 1024.0]
    up, one, three = 20 * 256, 20 * 257, 20 ** 3 * 257
    assert table.loc["3 over 1", "with uplink, B = 20"] == pytest.approx((up + three) / (up + one), abs=0.05)
    assert table["agrees?"].tolist() == ["with neither", "with B = 20"]


def test_the_spread_over_domains_has_the_published_rows_first():
    table = against_paper.domain_spread({"single": history({"fedmuscle": 5.0}), "noise": history({"fedmuscle": -5.0})},
                                        ["single", "noise"])
    assert table["published (%)"].tolist() == [26.7, 28.65, 16.88, "-", "-"]
    assert table["agrees?"].tolist() == ["-"] * 3 + ["same sign", "other sign"]

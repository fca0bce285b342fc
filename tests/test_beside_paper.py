import re

import numpy as np
import pandas as pd
import pytest

from fedmuscle_core.analysis import beside_paper
from fedmuscle_core.methods import METHODS

COLUMNS = ["method", "client", "task", "metric", "split", "round", "seed", "value", "bytes"]


def history(gains, clients=6, seeds=(0, 1)):
    """Test scores: Local 50 on every client, method m 50 + gains[m] (and a little more with the seed)."""
    return pd.DataFrame([(method, client, "mlc", "mAP", "test", 1, seed, 50 + gain + (0.1 * seed if gain else 0), 0)
                         for method, gain in {"local": 0.0, **gains}.items()
                         for client in range(1, clients + 1) for seed in seeds], columns=COLUMNS)


def test_published_numbers():
    assert beside_paper.published_value(setup="setup1", public_data="pascal_voc", method="fedmuscle", quantity="delta") == 26.70
    assert beside_paper.published(method="sage")["value"].size == 4
    for arguments, message in [({"colour": "red"}, "colour: not a column"), ({"method": "x"}, "no row with"),
                               ({"method": "sage", "setup": "setup1"}, "4 rows with")]:
        with pytest.raises(ValueError, match=message):
            beside_paper.published_value(**arguments)


def test_a_published_delta_is_a_number_or_none():
    assert beside_paper.published_delta("setup1", "fedmuscle", "pascal_voc") == 26.70
    assert beside_paper.published_delta("setup2", "simclr", "flickr30k") is None


@pytest.mark.parametrize(("interval", "words"), [
    ((20, 10, 30), "not told apart"), ((20, -5, 45), "not told apart, nor from 0"),
    ((5, 3, 7), "same sign, other size"), ((5, -3, 13), "sign not shown"),
    ((-5, -7, -3), "other sign"), ((5, np.nan, np.nan), "same sign"), ((-5, np.nan, np.nan), "other sign")])
def test_agreement_with_a_published_26(interval, words):
    assert beside_paper.agreement(26.0, interval) == words


def test_the_published_order_counts_what_both_have():
    published = beside_paper.published_deltas()
    assert published["fedmuscle"] == 26.7 and published["sage"] == 0.96 and "local" not in published
    same = {method: published[method] for method in ("fedmuscle", "cofed", "simclr", "fedhenn")}
    sentence = beside_paper.order_beside(history({**same, "pairwise": 40.0}))
    order, doubled = (" > ".join(f"{METHODS[method].label} {times * gain + more:+.1f}" for method, gain in same.items())
                      for times, more in ((1, 0), (2, 0.1)))                  # ours: of 50
    ends = "(mean Delta in %, 2 seeds; > shown, ~ not shown)"
    assert sentence == f"published {order}; ours {doubled} {ends}; Kendall's tau over the 4: +1.00."
    turned = beside_paper.order_beside(history({method: -gain for method, gain in same.items()}))
    assert "; ours FedHeNN +" in turned and turned.endswith("tau over the 4: -1.00.")
    assert beside_paper.order_beside(history({"fedmuscle": 3.0, "simclr": 5.0})) == (
        f"published FedMuscle +26.7 > SimCLR {same['simclr']:+.1f}; ours SimCLR +10.1 > FedMuscle +6.1 {ends}.")


def test_table_1_has_a_row_for_every_method_published_or_run():
    table = beside_paper.table1_beside(history({"fedmuscle": 5.0, "gramian": 1.0}), [0, 1]).set_index("method")
    sage = table.loc["SAGE (published only: could not be identified)"]
    assert sage["published delta (%)"] == 0.96 and sage["ours: Delta (%), mean [95 % CI]"] == "-" and sage["seeds"] == 0
    assert sage["agrees?"] == table.loc["Gramian", "agrees?"] == "cannot be said"
    assert table.loc["FedMuscle", "published client6_ic10 (%)"] == 66.57
    assert table.loc["FedMuscle", "ours: Delta (%), mean [95 % CI]"].startswith("+10.1 [")
    assert table.loc["FedMuscle", "agrees?"] == "same sign, other size"
    assert table.loc["Gramian", "published delta (%)"] == "not found" and {"Local", "CoFED", "SimCLR"} <= set(table.index)


def test_a_method_that_diverged_is_named_with_its_seed_client_and_round():
    """In Table 1 its row says so; among the domains, and elsewhere, it has no Delta to show."""
    def lose(method):
        runs = history({"fedmuscle": 5.0, "cofed": 1.0, "gramian": 2.0})
        lost = (runs["method"] == method) & (runs["seed"] == 1)
        marker = runs[lost].head(1).assign(split="diverged", client=2, round=4, value=np.nan, task="", metric="")
        return pd.concat([runs[~lost], marker], ignore_index=True)

    why = "diverged on 1 of 2 seeds: seed 1, client 2, round 4"
    table = beside_paper.table1_beside(lose("cofed"), [0, 1]).set_index("method")
    ours = "ours: Delta (%), mean [95 % CI]"
    assert table.loc["CoFED", [ours, "agrees?"]].tolist() == [why, "cannot be said"]
    assert table.loc["FedMuscle", ours].startswith("+10.1 [") and table[ours].eq(why).sum() == 1
    with pytest.raises(ValueError, match=f"'fedmuscle' {re.escape(why)}"):
        beside_paper.domain_spread({"single": history({"fedmuscle": 5.0}), "mixed": lose("fedmuscle")}, ["single", "mixed"])


def test_the_gain_over_gramian_is_paired():
    table = beside_paper.loss_gains_beside({"single": history({"fedmuscle": 5.0, "gramian": 2.0})}, ["single"])
    assert table["published"].tolist() == [11.2, 28.4, 11.1, "-"]
    assert table["ours"].iloc[-1] == "+6.0 [+6.0, +6.0]" and table["agrees?"].iloc[-1] == "same sign"
    assert table["seeds"].tolist() == ["-", "-", "-", 2]


def test_table_2_shows_ranges_over_the_clients_of_a_group():
    table = beside_paper.table2_beside(history({"fedmuscle": 5.0}, clients=10), [0, 1])
    assert len(table) == 2 * len(beside_paper.SETUP_2_GROUPS) + 1
    first = table.iloc[1]
    assert (first["clients"], first["method"], first["published (%)"]) == ("MLC 1-3", METHODS["fedmuscle"].label, "47-51")
    assert first["ours (%)"] == "55.0-55.0" or first["ours (%)"] == "55.1-55.1"
    assert table.iloc[4]["clients"] == "IC10 6" and "-" not in table.iloc[4]["ours (%)"]
    assert table.iloc[-1]["published (%)"] == pytest.approx(14.39) and table.iloc[-1]["ours (%)"].startswith("+10.1")


def test_deltas_against_peers_stand_row_by_row():
    measured = pd.DataFrame([{"method": "fedmuscle", "value": count, "seed": seed, "delta": 16.0 + count + 0.1 * seed}
                             for count in (1, 3) for seed in range(3)])
    table = beside_paper.peers_beside(measured).set_index("M")
    assert table["published Delta (%)"].tolist() == [17.9, 26.7, 27.74] and table["seeds"].tolist() == [3, 3, 0]
    assert table.loc[1, "ours (%)"].startswith("+17.1 [") and table.loc[1, "agrees?"] == "same sign, other size"
    assert table.loc[5, "ours (%)"] == "not run" and table.loc[5, "agrees?"] == "cannot be said"


def test_cost_ratios_follow_from_the_formula():
    table = beside_paper.costs_beside((20, 32), 256).set_index("M")
    assert table["published ratio"].tolist() == [239.0, 399.1] and table["ours: downlink, B = 32"].tolist() == [1024.0, 1024.0]
    up, one, three = 20 * 256, 20 * 257, 20 ** 3 * 257
    assert table.loc["3 over 1", "with uplink, B = 20"] == pytest.approx((up + three) / (up + one), abs=0.05)
    assert table["agrees?"].tolist() == ["with neither", "with B = 20"]


def test_the_spread_over_domains_has_the_published_rows_first():
    table = beside_paper.domain_spread({"single": history({"fedmuscle": 5.0}), "noise": history({"fedmuscle": -5.0})},
                                        ["single", "noise"])
    assert table["published (%)"].tolist() == [26.7, 28.65, 16.88, "-", "-"]
    assert table["agrees?"].tolist() == ["-"] * 3 + ["same sign", "other sign"]


def test_published_ranks_of_m_fed_stand_beside_ours():
    tasks = {1: ("semseg", "mIoU"), 2: ("edges", "odsF")}
    scores = {"local": (20, 50), "fedavg": (22, 48), "mfed": (27, 48.5), "centralised": (60, 90)}
    runs = pd.DataFrame([(method, client, *tasks[client], "test", 3, seed, scores[method][client - 1] + 0.1 * client * seed, 0)
                         for method in scores for client in tasks for seed in (0, 1, 2)], columns=COLUMNS)
    runs.loc[(runs["method"] == "mfed") & (runs["client"] == 2), "value"] += runs["seed"]
    table = beside_paper.mfed_beside(runs).set_index("task")
    assert table["published: rank"].tolist() == [1, 1] and table["ours: rank"].tolist() == [1, 2]
    assert table["published: minus best other"].tolist() == ["+1.58", "not found"]
    assert table["best other"].tolist() == ["FedAvg in task", "Local"]
    assert table["agrees?"].to_dict() == {"semseg": "yes", "edges": "not shown"}


def test_ours_says_untuned_where_nobody_tuned_the_setup():
    runs = history({"fedmuscle": 5.0, "gramian": 2.0, "cofed": 1.0, "mfed": 3.0}, clients=10)
    measured = pd.DataFrame([{"method": "fedmuscle", "value": 1, "seed": 0, "delta": 16.0}])
    for untuned in ([], ["mine"]):
        runs.attrs["untuned"] = measured.attrs["untuned"] = untuned
        found = [beside_paper.order_beside(runs), beside_paper.table1_beside(runs, [0, 1]).to_string(),
                 beside_paper.table2_beside(runs, [0, 1]).to_string(), beside_paper.peers_beside(measured).to_string(),
                 beside_paper.mfed_beside(runs).to_string(),
                 *(table({"single": runs}, ["single"]).to_string() for table in (
                     beside_paper.domain_spread, beside_paper.loss_gains_beside))]
        assert ["(untuned)" in text for text in found] == [bool(untuned)] * 7

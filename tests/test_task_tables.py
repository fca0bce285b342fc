"""M-Fed's tables, from histories small enough to work out by hand."""

import pandas as pd
import pytest

from fedmuscle_core.analysis import task_tables
from fedmuscle_core.experiments.setups import Setup, with_tasks


def history(scores, seeds=(0,)):
    """scores: {method: {client: test score, or one a seed}}; clients 1, 2 segment, 3, 4 find edges."""
    tasks = {1: ("semseg", "mIoU"), 2: ("semseg", "mIoU"), 3: ("edges", "odsF"), 4: ("edges", "odsF")}
    rows = [(method, client, *tasks[client], "test", 3, seed, values[place] if isinstance(values, tuple) else values, 0)
            for method, of_client in scores.items() for client, values in of_client.items() for place, seed in enumerate(seeds)]
    return pd.DataFrame(rows, columns=["method", "client", "task", "metric", "split", "round", "seed", "value", "bytes"])


THREE = history({"local": {1: (20.0, 22.0, 24.0), 2: (10.0, 10.0, 10.0), 3: (50.0, 50.0, 50.0), 4: (40.0, 40.0, 40.0)},
                 "fedavg": {1: (22.0, 24.0, 26.0), 2: (14.0, 16.0, 15.0), 3: (48.0, 50.0, 49.0), 4: (41.0, 40.0, 39.0)},
                 "mfed": {1: (26.0, 28.0, 30.0), 2: (20.0, 20.0, 21.0), 3: (50.0, 48.0, 49.0), 4: (40.0, 39.0, 41.0)},
                 "centralised": {1: (60.0, 60.0, 60.0), 2: (60.0, 60.0, 60.0), 3: (90.0, 90.0, 90.0), 4: (90.0, 90.0, 90.0)}},
                seeds=(0, 1, 2))
FOUR = Setup("four", with_tasks({"semseg": (50, 20), "edges": (10, 30)}))


def test_a_task_s_score_is_the_mean_of_its_clients():
    scores = task_tables.task_scores(THREE).set_index(["method", "task", "seed"])["value"]
    assert scores["mfed", "semseg", 1] == 24 and scores["fedavg", "edges", 0] == 44.5
    table = task_tables.task_table(THREE)
    assert list(table) == ["task", "metric", "Local", "FedAvg in task", "M-Fed", "Centralised"]
    assert table["task"].tolist() == ["semseg", "edges"] and table["metric"].tolist() == ["mIoU", "odsF"]
    assert table["M-Fed"][0] == "24.2 [21.0, 27.3]" and table["Centralised"][1] == "90.0 [90.0, 90.0]"


def test_the_client_with_the_least_data_of_every_task():
    found = task_tables.least_data(THREE, FOUR)
    assert set(found["client"]) == {2, 3} and "local" not in set(found["method"])
    assert found.query("method == 'mfed' and client == 2 and seed == 2")["change"].tolist() == pytest.approx([110])
    table = task_tables.least_data_table(THREE, FOUR)
    assert table.set_index("task")["M-Fed"].to_dict() == {"semseg": "+103.3 [+89.0, +117.7]", "edges": "-2.0 [-7.0, +3.0]"}


def test_the_order_tells_what_is_shown_from_what_is_not():
    text = task_tables.order_sentence(THREE, ["local", "fedavg", "mfed", "centralised"])
    assert text.startswith("Centralised +219.8 > M-Fed +32.2 > FedAvg in task +14.3 > Local +0.0 (")
    noisy = history({"local": {1: 20.0}, "fedavg": {1: (20.0, 22.0)}, "mfed": {1: (23.0, 20.0)}}, (0, 1))
    said = task_tables.order_sentence(noisy, ["local", "fedavg", "mfed"])
    assert said.startswith("M-Fed +7.5 ~ FedAvg in task +5.0 ~ Local +0.0 (mean Delta in %, 2 seed(s)")


def test_ranks_are_among_the_federated_methods_and_local():
    rows = task_tables.against_best(THREE).set_index("task")
    assert rows["rank"].to_dict() == {"semseg": 1, "edges": 3}
    assert rows["best_other"].to_dict() == {"semseg": "FedAvg in task", "edges": "Local"}
    assert rows.loc["semseg", "mean"] == pytest.approx(14 / 3) and rows.loc["edges", "mean"] == pytest.approx(-0.5)


def test_a_setup_can_be_given_by_name():
    with pytest.raises(ValueError, match="setup: got 'four'"):
        task_tables.least_data(THREE, "four")
    smallest = task_tables.least_data(THREE.assign(client=THREE["client"] * 3), "mfed_dense")
    assert set(smallest["client"]) == {3, 6, 9, 12}                          # the third of every task


def test_tables_and_the_order_say_untuned_where_nobody_tuned_the_setup():
    marked = THREE.copy()
    marked.attrs["untuned"] = ["four"]
    for table in (task_tables.task_table, lambda history: task_tables.least_data_table(history, FOUR)):
        names = [f"{name} (untuned)" for name in list(table(THREE))[2:]]
        assert list(table(marked)) == ["task", "metric", *names] and "M-Fed (untuned)" in names
        assert (table(marked).to_numpy() == table(THREE).to_numpy()).all()
    assert "(mean Delta in % (untuned), 3" in task_tables.order_sentence(marked, ["local", "mfed"])
    assert "untuned" not in task_tables.order_sentence(THREE, ["local", "mfed"])


def test_the_order_names_who_diverged():
    marker = THREE[(THREE["method"] == "fedavg") & (THREE["seed"] == 2)].head(1).assign(split="diverged", value=float("nan"))
    runs = pd.concat([THREE, marker])
    text = task_tables.order_sentence(runs, ["local", "fedavg", "mfed"])
    assert text.endswith("FedAvg in task diverged on 1 of 3 seed(s): seed 2, client 1, round 3.") and text.startswith("M-Fed +")
    with pytest.raises(ValueError, match="'fedavg' diverged"):
        task_tables.task_table(runs)

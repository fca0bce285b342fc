"""M-Fed's tables, from histories small enough to work out by hand."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from fedmuscle_core.analysis import task_tables
from fedmuscle_core.experiments.setups import Setup, with_tasks
from fedmuscle_core.experiments.statistics import mean_interval


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


def test_the_clients_with_least_data_beside_the_others():
    """Clients 2 and 3 have the fewest samples of their tasks."""
    table = task_tables.least_against_others(THREE, FOUR)
    assert list(table) == ["least data", "the others", "difference"]
    assert list(table.index) == ["FedAvg in task", "M-Fed", "Centralised"]

    def logit(value):
        return math.log(value / (100 - value))

    gains = [(logit(segments) - logit(10) + logit(edges) - logit(50)) / 2 for segments, edges in ((20, 50), (20, 48), (21, 49))]
    assert table.loc["M-Fed", "least data"] == pytest.approx(mean_interval(gains))


def test_the_order_tells_what_is_shown_from_what_is_not():
    text = task_tables.order_sentence(THREE, ["local", "fedavg", "mfed", "centralised"])
    assert text.startswith("Centralised +219.8 > M-Fed +32.2 > FedAvg in task +14.3 > Local +0.0 (")
    noisy = history({"local": {1: 20.0}, "fedavg": {1: (20.0, 22.0)}, "mfed": {1: (23.0, 20.0)}}, (0, 1))
    said = task_tables.order_sentence(noisy, ["local", "fedavg", "mfed"])
    assert said.startswith("M-Fed +7.5 ~ FedAvg in task +5.0 ~ Local +0.0 (mean Delta in %, 2 seeds")


def test_ranks_are_among_the_federated_methods_and_local():
    rows = task_tables.against_best(THREE).set_index("task")
    assert rows["rank"].to_dict() == {"semseg": 1, "edges": 3}
    assert rows["best_other"].to_dict() == {"semseg": "FedAvg in task", "edges": "Local"}
    assert rows.loc["semseg", "mean"] == pytest.approx(14 / 3) and rows.loc["edges", "mean"] == pytest.approx(-0.5)


def test_every_method_but_a_ceiling_has_a_rank_on_every_task():
    found = task_tables.ranks(THREE).set_index(["method", "task", "seed"])["rank"].sort_index()
    assert found["mfed", "semseg"].tolist() == [1, 1, 1] and found["local", "semseg"].tolist() == [3, 3, 3]
    assert found["local", "edges"].tolist() == [1.5, 1.5, 1.5] and found["fedavg", "edges"].tolist() == [3, 1.5, 3]
    table = task_tables.rank_table(THREE)
    assert list(table) == ["semseg", "edges", "mean over tasks"] and list(table.index) == ["M-Fed", "FedAvg in task", "Local"]
    assert table.loc["M-Fed", "semseg"] == "1.0 [1.0, 1.0]"


def test_the_conflict_of_two_tasks_is_the_mean_cosine_of_their_clients_gradients():
    rows = [("mfed", client, task, f"gradient_cosine_{other}", "train", round, 0, value, 0)
            for client, task, other, value in (
                (1, "semseg", "semseg", 0.5), (1, "semseg", "edges", -0.2), (2, "semseg", "edges", 0.0),
                (3, "edges", "semseg", -0.1), (3, "edges", "edges", 0.9)) for round in (1, 2)]
    table = task_tables.conflict(pd.DataFrame(rows, columns=THREE.columns))
    assert table.loc["semseg", "edges"] == pytest.approx(-0.1) and table.loc["edges", "semseg"] == pytest.approx(-0.1)
    assert table.loc["edges", "edges"] == pytest.approx(0.9) and list(table) == list(table.index) == ["semseg", "edges"]
    with pytest.raises(ValueError, match="history: got no gradient_cosine_. of 'mfed'"):
        task_tables.conflict(THREE)


def test_a_setup_can_be_given_by_name():
    with pytest.raises(ValueError, match="setup: got 'four'"):
        task_tables.least_against_others(THREE, "four")


def test_tables_and_the_order_say_untuned_where_nobody_tuned_the_setup():
    marked = THREE.copy()
    marked.attrs["untuned"] = ["four"]
    table = task_tables.task_table
    names = [f"{name} (untuned)" for name in list(table(THREE))[2:]]
    assert list(table(marked)) == ["task", "metric", *names] and "M-Fed (untuned)" in names
    assert (table(marked).to_numpy() == table(THREE).to_numpy()).all()
    assert list(task_tables.least_against_others(marked, FOUR).index) == names[1:]
    assert "(mean Delta in % (untuned), 3" in task_tables.order_sentence(marked, ["local", "mfed"])
    assert "untuned" not in task_tables.order_sentence(THREE, ["local", "mfed"])


def test_the_order_names_who_diverged():
    marker = THREE[(THREE["method"] == "fedavg") & (THREE["seed"] == 2)].head(1).assign(split="diverged", value=float("nan"))
    runs = pd.concat([THREE, marker])
    text = task_tables.order_sentence(runs, ["local", "fedavg", "mfed"])
    assert text.endswith("FedAvg in task diverged on 1 of 3 seeds: seed 2, client 1, round 3.") and text.startswith("M-Fed +")
    assert "FedAvg in task" not in task_tables.task_table(runs)


def test_pixels_said_right_are_those_of_the_foreground():
    truths = [torch.tensor([[0, 1], [2, 2]]), torch.tensor([[0, 0], [0, 3]])]
    said = [np.array([[1, 1], [2, 0]]), np.zeros((2, 2))]
    assert task_tables.right_pixels(truths, said) == 50

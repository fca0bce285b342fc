import json
import time

import pytest

from fedmuscle_core import plans
from fedmuscle_core.benchmarks import loss, losses, round, sweep
from fedmuscle_core.paths import results


def test_the_loss_benchmark_measures_the_same_loss_three_ways(capsys):
    assert loss.main(["--quick", "--dim", "8"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    by_case = {(row[0], int(row[1]), int(row[2])): row for row in lines}
    for case in [(32, 2), (32, 3)]:
        assert float(by_case["factored", *case][4]) == pytest.approx(float(by_case["literal", *case][5]), abs=1e-3)
        assert by_case["literal", *case][4].endswith("x")


def test_the_stored_loss_benchmark_keeps_what_the_readme_says():
    rows = {(row["evaluation"], row["B"], row["M"]): row
            for row in json.loads((results("mini") / "benchmark_loss.json").read_text())["rows"]}
    assert rows["literal", 32, 3]["times_slower"] >= 100
    assert rows["literal", 32, 4]["times_slower"] >= 1000
    assert rows["factored", 32, 5]["extra_MiB"] < 1024
    assert rows["factored", 256, 3]["extra_MiB"] < 1024


def test_the_stored_round_benchmark_keeps_what_the_readme_says():
    stored = json.loads((results("mini") / "benchmark_round.json").read_text())
    assert stored["settings"]["setup"] == "setup1" and stored["settings"]["method"] == "fedmuscle"
    assert stored["median_ratio"] <= 1.15 and len(stored["rows"]) >= 3


def test_the_round_benchmark_prints_a_ratio_per_repeat(monkeypatch, capsys, tiny):
    monkeypatch.setattr(round, "Settings", tiny)
    assert round.main(["--repeats", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("ratio" in line for line in lines)


def test_the_losses_benchmark_times_every_contrastive_method(tmp_path, capsys):
    assert losses.main(["--repeats", "3", "--save", str(tmp_path / "losses.json")]) == 0
    stored = json.loads((tmp_path / "losses.json").read_text())["milliseconds"]
    assert set(stored) == set(plans.LOSSES) - {"local"} and min(stored.values()) > 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_the_stored_sweep_benchmark_keeps_what_the_readme_says():
    assert json.loads((results("mini") / "benchmark_sweep.json").read_text())["times_faster"] >= 1.6


def test_the_sweep_benchmark_computes_the_same_runs_with_one_worker_and_with_two(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(sweep, "sweep", lambda wanted, folder, workers: asked.append((wanted, workers)) or time.sleep(0.05))
    assert sweep.main(["--runs", "3"]) == 0
    assert asked[0][0] == asked[1][0] and len(asked[0][0]) == 3 and [workers for _, workers in asked] == [1, 2]
    assert "times faster" in capsys.readouterr().out

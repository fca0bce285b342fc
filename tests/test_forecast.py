"""The forecast of runs: from the times of stored ones, and on real data against what can be counted by hand."""

import math
import re

import pandas as pd
import pytest
import torch
from rounds import fit

from fedmuscle_core.commands import cli, reproduce
from fedmuscle_core.experiments import forecast, plans, tuning
from fedmuscle_core.experiments.forecast import as_text, estimate, seconds_per_client_round
from fedmuscle_core.experiments.profiles import profile_settings
from fedmuscle_core.experiments.runs import missing_runs
from fedmuscle_core.experiments.store import append_run, stored_runs
from fedmuscle_core.federation import COLUMNS
from fedmuscle_core.methods import FedMuscle
from fedmuscle_core.networks.client_network import num_parameters


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path))
    monkeypatch.setenv("FEDMUSCLE_RUNS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("FEDMUSCLE_CHECKPOINTS", raising=False)


def store(folder, settings, seconds):
    settings = settings.canonical()
    record = {"run": settings.run(), "settings": settings.flat(), "wall_seconds": seconds, "fingerprint": "", "finished": ""}
    rows = [(settings.method.name, client, "mlc", "mAP", "validation", 0, settings.seed, 50.0, 0) for client in (1, 2, 3)]
    append_run(folder, record, pd.DataFrame(rows, columns=COLUMNS))


def test_the_estimate_scales_what_was_measured_by_rounds_and_clients(tiny, tmp_path):
    for seed, seconds in enumerate((12.0, 6.0, 600.0)):       # 3 clients, 2 rounds: 2, 1 and 100 s each; median 2
        store(tmp_path, tiny(method="local", seed=seed), seconds)
    store(tmp_path, tiny(), 60.0)                                             # 10 s each
    assert seconds_per_client_round(tmp_path)["tiny", "local"] == 2
    assert estimate([tiny(method="local", rounds=10)], tmp_path) == pytest.approx(2 * 10 * 3)
    assert estimate([tiny(method="local", rounds=10)] * 4, tmp_path, 2) == pytest.approx(2 * 2 * 10 * 3)
    assert estimate([tiny(setup="embedded1")], tmp_path) == pytest.approx(10 * 2 * 6)                        # another setup
    assert estimate([tiny(method="simclr")], tmp_path) == pytest.approx(6 * 2 * 3)                        # another method
    store(tmp_path / "tuning", tiny(method="simclr"), 90.0)                   # known there alone: 15 s each
    store(tmp_path / "tuning", tiny(), 600.0)
    assert estimate([tiny(method="simclr")], tmp_path) == pytest.approx(15 * 2 * 3)
    assert estimate([tiny()], tmp_path) == pytest.approx(10 * 2 * 3)
    assert estimate([], tmp_path) == 0 and math.isnan(estimate([tiny()], tmp_path / "empty"))


def test_only_what_is_not_stored_is_missing_and_once(tiny, tmp_path):
    wanted = [tiny(method="local"), tiny(method="local", tau=0.4), tiny()]
    assert missing_runs(wanted, tmp_path) == [wanted[0].canonical(), wanted[2]]


def test_durations_in_words():
    assert [as_text(value) for value in (40, 720, 12600, float("nan"))] == ["40 s", "12 min", "3.5 h", "an unknown time"]


def test_reproduce_says_beforehand_how_long_it_will_take(monkeypatch, capsys, tiny, tmp_path):
    monkeypatch.setattr(reproduce, "PLANS", {"02": lambda profile, seeds: [tiny(method="local"), tiny()]})
    monkeypatch.setattr(reproduce, "results", lambda profile: tmp_path)
    monkeypatch.setattr(reproduce, "sweep", lambda *_, progress: None)
    store(tmp_path, tiny(method="local", seed=5), 60.0)
    reproduce.compute("mini", ["02"], None, 2)
    assert "2 runs to compute: about 60 s with 2 worker(s)" in capsys.readouterr().out


def test_what_the_command_prints(capsys):
    assert cli.main(["reproduce", "--profile", "paper", "--only", "02", "--dry-run"]) == 0
    said = capsys.readouterr().out
    for part in ("notebooks 02: 15 runs, 15 of them not in", "voc: Pascal VOC 2012", "fedmuscle data fetch voc",
                 "none stated", "vit_base: google/vit-base-patch16-224-in21k at b4569560a3, to download, about 346 MB",
                 "paper1: clients, lora", "memory of the accelerator", "no accelerator was timed"):
        assert part in said, part


def test_the_other_profiles_say_how_long(capsys):
    assert cli.main(["reproduce", "--profile", "quick", "--only", "02", "--dry-run"]) == 0
    assert "14 runs, 14 of them not in" in capsys.readouterr().out


def test_all_of_it_anew_is_said_with_the_tuning_behind_it(capsys):
    assert cli.main(["reproduce", "--profile", "mini", "--only", "02", "--force", "--dry-run"]) == 0
    said = capsys.readouterr().out
    count = len([record for record, _ in stored_runs(tuning.FOLDER) if record["settings"]["setup"] == "embedded1"])
    assert count > 80
    assert re.search(rf"from nothing: {count} runs of the tuning, about [\d.]+ h, then \d+ runs, about [\d.]+ (h|min), with 1",
                     said)


def test_parameters_and_operations_of_vit_base():
    settings = profile_settings("paper", "embedded1", "fedmuscle", [0])[0]
    table = forecast.client_table(settings).set_index("client")
    assert num_parameters(forecast.skeleton("vit_base")) == 86_389_248
    head = 4 * 768 * 256 + 256 + 256 * 20 + 20
    lora = 12 * 2 * 16 * (768 + 768)
    assert table.loc[1, "trainable"] == head + lora and table.loc[1, "parameters"] == 86_389_248 + lora + head
    tokens, width = 197, 768                      # patches and layers, two operations a multiply-add
    layer = 2 * tokens * width * width * 12 + 4 * tokens * tokens * width + 2 * 2 * tokens * 16 * 2 * width
    by_hand = 12 * layer + 2 * 196 * 3 * 256 * width + 2 * 4 * width * 256
    assert table.loc[1, "GFLOP"] == pytest.approx(by_hand / 1e9, rel=0.01)


def test_bytes_are_those_of_the_ledger(tiny):
    settings = tiny()
    _, federation = fit(settings)
    assert forecast.bytes_exchanged(settings) == federation.ledger.table()["bytes"].sum() > 0
    assert forecast.megabytes(settings.replace(dim=64_000)) == f"{forecast.bytes_exchanged(settings) * 1000 / 1e6:,.0f}"
    assert forecast.megabytes(settings.replace(method="simclr")) == "0"
    assert forecast.megabytes(settings.replace(method="cofed")) == "counted when run"


def test_hours_grow_with_rounds_and_the_second_forward():
    settings = profile_settings("paper", "embedded1", "fedmuscle", [0])[0]
    clients = forecast.client_table(settings)
    local = forecast.hours(profile_settings("paper", "embedded1", "local", [0])[0], clients)
    assert forecast.hours(settings, clients) > local > 0
    assert forecast.hours(settings.replace(micro_batch_size=None, offload=False), clients) < forecast.hours(settings, clients)
    assert local < forecast.hours(settings.replace(method="cofed"), clients) < forecast.hours(settings, clients)
    stays = settings.replace(offload=False)                                   # nothing travels to the accelerator and back
    moved = 4 * clients["parameters"].sum() + forecast.STATE * clients["trainable"].sum()
    turns = 2 * settings.rounds * (2 + 2 * settings.method.num_batches(settings.public_size))
    assert forecast.hours(settings, clients) - forecast.hours(stays, clients) == pytest.approx(
        turns * moved / forecast.BANDWIDTH / 3600, rel=1e-6)
    once = settings.replace(test_size=0)
    twice = forecast.hours(once.replace(rounds=40), clients)
    assert twice == pytest.approx(2 * forecast.hours(once.replace(rounds=20), clients))


def test_memory_is_that_of_one_client_or_of_all():
    settings = profile_settings("paper", "embedded1", "fedmuscle", [0])[0]
    clients = forecast.client_table(settings)
    def gigabytes(**changes):
        return float(forecast.memory_text(settings.replace(**changes), clients).split("about ")[1].split(" GB")[0])

    weights = (4 * clients["parameters"] + forecast.STATE * clients["trainable"]) / 1e9
    activations = 32 * clients["MB a sample"] / 1e3
    assert gigabytes() == pytest.approx((weights + activations).max(), abs=0.06)
    assert gigabytes(offload=False) == pytest.approx(weights.sum() + activations.max(), abs=0.06)
    assert gigabytes(offload=False, micro_batch_size=None) == pytest.approx(weights.sum() + activations.sum(), abs=0.06)
    assert gigabytes(method="simclr") == pytest.approx((weights + 2 * activations).max(), abs=0.06)


def test_nothing_is_allocated():
    settings = profile_settings("paper", "embedded1", "local", [0])[0]
    network = forecast.client_skeleton(settings.setup.clients[0], settings)
    assert {parameter.device for parameter in network.parameters()} == {torch.device("meta")}


def test_runs_that_cost_differently_have_rows_of_their_own():
    runs = plans.notebook_09("paper", [0])
    table = forecast.run_table(runs, forecast.client_table(runs[0]))
    assert table["runs"].sum() == len(runs)
    absent = table[table["MB exchanged each"] == "counted when run"]          # by each client that is there, and when it came
    uncounted = [settings.absence > 0 or getattr(settings.method, "refresh", "batch") == "round" for settings in runs]
    assert absent["runs"].sum() == sum(uncounted) > 0
    peers = [settings for settings in plans.notebook_07("paper", [0])
             if settings.setup.name == "paper1" and isinstance(settings.method, FedMuscle) and settings.rounds > 1]
    table = forecast.run_table(peers, forecast.client_table(peers[0]))
    assert table["MB exchanged each"].nunique() == len({settings.method.num_peers for settings in peers}) > 2


def test_a_paper_run_is_forecast_before_it_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "results", lambda profile: tmp_path)
    monkeypatch.setattr(reproduce, "sweep", lambda wanted, *_, progress: print(f"the sweep of {len(wanted)} runs begins"))
    reproduce.compute("paper", ["02"], [0])
    said = capsys.readouterr().out
    assert "trainable" in said and "hours of all" in said
    assert said.index("Hours are at an assumed") < said.index("the sweep of 5 runs begins")

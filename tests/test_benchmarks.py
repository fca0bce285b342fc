import contextlib
import json
import time
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import ViTConfig

from fedmuscle_core.benchmarks import clients, loss, method_losses, paper_round, round, setup_run, sweep
from fedmuscle_core.experiments import plans
from fedmuscle_core.network import Network
from fedmuscle_core.networks import backbones
from fedmuscle_core.paths import results


def test_the_loss_benchmark_measures_the_same_loss_three_ways(tmp_path, capsys):
    assert loss.main(["--quick", "--dim", "8", "--save", str(tmp_path / "loss.json")]) == 0
    rows = json.loads((tmp_path / "loss.json").read_text())["rows"]
    found = {(row["evaluation"], row["M"]): row["loss"] for row in rows}
    for num_peers in (1, 2, 3):
        assert found["factored", num_peers] == pytest.approx(found["literal", num_peers], abs=1e-4)
        assert found["sampled", num_peers] == pytest.approx(found["literal", num_peers], rel=0.05)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows) == 9 and sum("times as long as factored" in line for line in lines) == 3
    assert [row["evaluation"] for row in rows if "times_slower" in row] == ["literal"] * 3


def test_the_loss_benchmark_leaves_out_what_does_not_fit():
    wanted = loss.cases()
    assert ("literal", 32, 4) in wanted and ("literal", 32, 5) not in wanted
    assert ("factored", 32, 5) in wanted and ("factored", 32, 6) not in wanted and ("sampled", 256, 9) in wanted
    assert ("factored", 256, 3) in wanted and ("literal", 256, 3) not in wanted


def test_the_stored_loss_benchmark_keeps_what_is_said_of_it():
    rows = {(row["evaluation"], row["B"], row["M"]): row
            for row in json.loads((results("mini") / "benchmark_loss.json").read_text())["rows"]}
    assert set(rows) == set(loss.cases())
    assert rows["literal", 32, 3]["times_slower"] >= 100
    assert rows["literal", 32, 4]["times_slower"] >= 1000
    assert rows["factored", 32, 5]["extra_MiB"] < 1024
    assert rows["factored", 256, 3]["extra_MiB"] < 1024


def test_the_stored_round_benchmark_keeps_what_the_readme_says():
    stored = json.loads((results("mini") / "benchmark_round.json").read_text())
    assert (stored["settings"]["setup"], stored["settings"]["method"]) == ("embedded1", "fedmuscle")
    assert (stored["settings"]["dim"], stored["settings"]["contrastive_steps"]) == (256, 60)
    assert stored["median_ratio"] <= 1.25 and len(stored["rows"]) >= 3


def test_the_round_benchmark_prints_a_ratio_per_repeat_above_one(monkeypatch, capsys, tiny, tmp_path):
    small = tiny()
    monkeypatch.setattr(round.Settings, "of", lambda setup, method, **changes: small)
    assert round.main(["--repeats", "2", "--save", str(tmp_path / "round.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all("ratio" in line for line in lines)
    stored = json.loads((tmp_path / "round.json").read_text())
    assert stored["settings"] == small.flat() and all(row["ratio"] > 1 for row in stored["rows"])


def test_the_setup_benchmark_prints_how_much_longer_each_variant_takes(monkeypatch, capsys, tiny, tmp_path):
    real, layouts = setup_run.seconds, []
    monkeypatch.setattr(setup_run, "SIZES_BEFORE", (12,) * 6)
    monkeypatch.setattr(setup_run.Settings, "of", lambda setup, method, **changes: tiny(method=method))
    monkeypatch.setattr(setup_run, "seconds", lambda *arguments: layouts.append(arguments[2]) or real(*arguments))
    assert setup_run.main(["--repeats", "1", "--save", str(tmp_path / "setup.json")]) == 0
    lines, stored = capsys.readouterr().out.splitlines(), json.loads((tmp_path / "setup.json").read_text())
    assert len(lines) == 4 and all("times as long as it is" in line for line in lines[:3]) and lines[3].startswith(
        f"{100 * stored['share_of_passes']:.0f} % of it")
    assert stored["ratios"]["as it is"] == 1 and all(len(rows) == 1 for rows in stored["seconds"].values())
    assert layouts == 2 * [torch.channels_last, torch.contiguous_format, torch.channels_last]


def test_resnets_read_images_in_the_fast_format_with_the_same_features(monkeypatch):
    backbone, images = backbones.load_backbone("resnet_small").eval(), torch.rand(4, 3, 32, 32)
    seen = []
    backbone.register_forward_pre_hook(lambda module, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True)
    fast = backbones.feature_map(backbone, images)
    monkeypatch.setattr(backbones, "RESNET_FORMAT", torch.contiguous_format)
    assert torch.allclose(fast, backbones.feature_map(backbone, images), atol=1e-5)
    assert [one.is_contiguous(memory_format=torch.channels_last) for one in seen] == [True, False]


class Ticking(torch.autograd.Function):
    """Doubles its input, and lets time pass: a second forward, ten backward."""

    @staticmethod
    def forward(context, inputs, clock):
        context.clock = clock
        clock["now"] += 1
        return 2 * inputs

    @staticmethod
    def backward(context, grad):
        context.clock["now"] += 10
        return 2 * grad, None


def test_the_clock_counts_the_passes_of_networks_and_neither_losses_nor_passes_without_a_graph(monkeypatch):
    class Half(nn.Linear):
        def forward(self, inputs):
            return Ticking.apply(super().forward(inputs), clock)

    clock, inputs = {"now": 0.0}, torch.ones(2, 3)
    monkeypatch.setattr(round, "time", SimpleNamespace(perf_counter=lambda: clock["now"]))
    network = Network(Half(3, 3), Half(3, 3))
    with round.pass_clock([network]) as passes:
        with torch.no_grad():
            network(inputs)
        assert passes == [0]
        network.representation(inputs).sum().backward()                       # as in a contrastive step
        assert passes == [1 + 10]
        Ticking.apply(network(inputs), clock).sum().backward()                # as in a local one; the loss takes time, too
        assert passes == [11 + 2 + 20]
    network(inputs).sum().backward()
    assert passes == [33]


def test_the_losses_benchmark_times_every_contrastive_method(tmp_path, capsys):
    assert method_losses.main(["--repeats", "3", "--save", str(tmp_path / "losses.json")]) == 0
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


def test_the_clients_benchmark_runs_all_three_ways_with_the_same_bytes_down(tmp_path, monkeypatch, capsys):
    here = SimpleNamespace(apply=lambda function, arguments: function(*arguments))       # processes take long to start
    monkeypatch.setattr(clients, "get_context", lambda kind: SimpleNamespace(Pool=lambda workers: contextlib.nullcontext(here)))
    assert clients.main(["--setups", "quickstart", "--public-size", "64", "--save", str(tmp_path / "clients.json")]) == 0
    rows = json.loads((tmp_path / "clients.json").read_text())["rows"]
    assert [(row["refresh"], row["parked"]) for row in rows] == list(clients.WAYS)
    assert {row["clients"] for row in rows} == {3} and len({row["KiB_per_client"] for row in rows}) == 1
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_the_paper_round_benchmark_plays_rounds_of_lora_clients(monkeypatch, tmp_path, capsys):
    small = ViTConfig(image_size=32, patch_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                      intermediate_size=16)
    monkeypatch.setitem(paper_round.CONFIGS, "vit_base", small)
    monkeypatch.setattr(paper_round, "SIDE", 32)
    path = tmp_path / "round.json"
    assert paper_round.main(["--batches", "2", "--repeats", "2", "--device", "cpu", "--save", str(path)]) == 0
    stored = json.loads(path.read_text())
    assert len(stored["rows"]) == 2 and stored["median_ratio"] > 0 and stored["device"] == "cpu" and stored["peak_MiB"] is None
    assert capsys.readouterr().out.count("passes alone") == 2

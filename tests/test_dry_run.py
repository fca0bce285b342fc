"""The forecast of runs on real data, against what can be counted by hand."""

import pytest
import torch

from fedmuscle_core import cli, dry_run
from fedmuscle_core.models import num_parameters
from fedmuscle_core.profiles import profile_settings


@pytest.fixture(autouse=True)
def nothing_here(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path))
    monkeypatch.setenv("FEDMUSCLE_RUNS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("FEDMUSCLE_CHECKPOINTS", raising=False)


def test_what_the_command_prints(capsys):
    assert cli.main(["reproduce", "--profile", "paper", "--only", "02", "--dry-run"]) == 0
    said = capsys.readouterr().out
    for part in ("notebooks 02: 9 runs, 9 of them not in", "voc: Pascal VOC 2012", "fedmuscle data fetch voc",
                 "none stated", "vit_base: google/vit-base-patch16-224-in21k at b4569560a3, to download, about 346 MB",
                 "paper1: clients, lora", "memory of the accelerator", "no accelerator was timed"):
        assert part in said, part


def test_the_other_profiles_say_how_long(capsys):
    assert cli.main(["reproduce", "--profile", "quick", "--only", "02", "--dry-run"]) == 0
    assert "3 runs, 3 of them not in" in capsys.readouterr().out


def test_parameters_and_operations_of_vit_base():
    settings = profile_settings("paper", "setup1", "fedmuscle", [0])[0]
    table = dry_run.client_table(settings).set_index("client")
    assert num_parameters(dry_run.skeleton("vit_base")) == 86_389_248
    head = 4 * 768 * 256 + 256 + 256 * 20 + 20
    lora = 12 * 2 * 16 * (768 + 768)
    assert table.loc[1, "trainable"] == head + lora and table.loc[1, "parameters"] == 86_389_248 + lora + head
    tokens, width = 197, 768                      # patches and layers, two operations a multiply-add
    layer = 2 * tokens * width * width * 12 + 4 * tokens * tokens * width + 2 * 2 * tokens * 16 * 2 * width
    by_hand = 12 * layer + 2 * 196 * 3 * 256 * width + 2 * 4 * width * 256
    assert table.loc[1, "GFLOP"] == pytest.approx(by_hand / 1e9, rel=0.01)


def test_bytes_are_those_of_the_ledger(tiny):
    from fedmuscle_core import federation
    from fedmuscle_core.experiment import one_thread
    settings = tiny()
    with one_thread():
        built = federation.build(settings)
        federation.train(built, progress=False)
    assert dry_run.megabytes(settings) == f"{built.ledger.table()['bytes'].sum() / 1e6:,.0f}"
    large = settings.replace(dim=4096)
    each = 4 * large.batch_size * large.dim * (1 + large.num_peers)
    assert dry_run.megabytes(large) == f"{2 * 2 * 3 * each / 1e6:,.0f}"
    assert dry_run.megabytes(settings.replace(method="simclr")) == "0"
    assert dry_run.megabytes(settings.replace(method="cofed")) == "counted when run"


def test_hours_grow_with_rounds_and_the_second_forward():
    settings = profile_settings("paper", "setup1", "fedmuscle", [0])[0]
    clients = dry_run.client_table(settings)
    local = dry_run.hours(profile_settings("paper", "setup1", "local", [0])[0], clients)
    assert dry_run.hours(settings, clients) > local > 0
    assert dry_run.hours(settings.replace(micro_batch_size=None, offload=False), clients) < dry_run.hours(settings, clients)
    once = settings.replace(test_size=0)
    assert dry_run.hours(once.replace(rounds=40), clients) == pytest.approx(2 * dry_run.hours(once.replace(rounds=20), clients))


def test_memory_is_that_of_one_client_or_of_all():
    settings = profile_settings("paper", "setup1", "fedmuscle", [0])[0]
    clients = dry_run.client_table(settings)
    one, every = (float(dry_run.memory_text(settings.replace(offload=offload), clients).split("about ")[1].split(" GB")[0])
                  for offload in (True, False))
    weights = (4 * clients["parameters"] + 12 * clients["trainable"]).sum() / 1e9
    largest = (4 * clients["parameters"] + 12 * clients["trainable"]).max() / 1e9
    assert every - one == pytest.approx(weights - largest, abs=0.11)


def test_nothing_is_allocated():
    model = dry_run.client_skeleton(dry_run.SETUPS["paper1"][0], profile_settings("paper", "setup1", "local", [0])[0])
    assert {parameter.device for parameter in model.parameters()} == {torch.device("meta")}

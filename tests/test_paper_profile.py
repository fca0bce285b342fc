"""The paper profile end to end, without a network: its own setups and code path on tiny data sets in the official layouts and
tiny checkpoints, LoRA on, bfloat16 on, clients in host memory between turns, killed and resumed."""

import shutil

import numpy as np
import pandas as pd
import pytest
import tiny_world
import torch
from PIL import Image

from fedmuscle_core import federation, placement
from fedmuscle_core.client import accumulated, embed
from fedmuscle_core.commands import cli
from fedmuscle_core.experiments import plans
from fedmuscle_core.experiments import runs as experiment
from fedmuscle_core.experiments.profiles import profile_settings
from fedmuscle_core.experiments.resume import State
from fedmuscle_core.experiments.runs import one_thread, run, sweep
from fedmuscle_core.experiments.setups import PAPER_SETUPS, SETUPS
from fedmuscle_core.experiments.store import load_run, run_path
from fedmuscle_core.methods import ALIGNING
from fedmuscle_core.methods.contrastive import micro_batches
from fedmuscle_core.networks.adaptation import adapt
from fedmuscle_core.networks.backbones import IMAGENET, PIXELS, load_backbone, normalised, pixels_of
from fedmuscle_core.networks.client_network import num_parameters
from fedmuscle_core.world import partition
from fedmuscle_core.world.real import photos
from fedmuscle_core.world.real import splits as real_data

SMALL = {"rounds": 2, "public_size": 16, "batch_size": 8, "dim": 8, "local_batch_size": 4, "min_local_steps": 2,
         "validation_size": 8, "test_size": 8, "micro_batch_size": 3, "image_size": 32}


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """(folder of tiny data, folder of tiny checkpoints), written once."""
    folder = tmp_path_factory.mktemp("tiny world")
    tiny_world.write_data(folder / "data")
    tiny_world.write_checkpoints(folder / "checkpoints")
    return folder / "data", folder / "checkpoints"


@pytest.fixture
def paper(world, monkeypatch):
    """Settings of the paper profile at the scale of the tiny world; `paper(setup, method, field=value)` changes a field."""
    monkeypatch.setenv("FEDMUSCLE_DATA", str(world[0]))
    monkeypatch.setenv("FEDMUSCLE_CHECKPOINTS", str(world[1]))
    for name in PAPER_SETUPS.values():
        monkeypatch.setitem(SETUPS, name, tuple(spec._replace(train_size=6) for spec in SETUPS[name]))

    def settings(setup="setup1", method="fedmuscle", **changes):
        return profile_settings("paper", setup, method, [0], **{**SMALL, **changes})[0]
    return settings


def test_every_method_runs_on_setup_1_and_learns_something(paper, tmp_path):
    several = [paper(method=method) for method in ALIGNING]
    records, history = sweep(several, tmp_path, progress=False)
    assert set(history["method"]) == set(ALIGNING) and {record["settings"]["setup"] for record in records} == {"paper1"}
    trained = history[(history["split"] == "train") & (history["metric"] == "local_loss")]
    assert trained.groupby(["method", "client"])["value"].size().eq(2).all() and trained["value"].notna().all()
    scores = history[history["split"] == "test"]
    assert scores["value"].between(0, 100).all() and len(scores) == 6 * len(ALIGNING)
    assert not list(tmp_path.rglob("*.state.pt*"))
    for record in records:
        assert record["device"] == "cpu" and record["versions"]["peft"]
        public = record["settings"]["method"] != "local"
        assert set(record["data"]["sources"]) == {"cifar10", "cifar100", "voc"}
        assert ("0" in {str(index) for index in record["data"]["clients"]}) == public


def test_setup_2_reads_captions_masks_and_texts(paper, tmp_path, capsys):
    record, history = run(paper("setup2"), tmp_path)
    few, every = record["parameters"][9]
    assert f"client 9 {few:,} of {every:,}" in capsys.readouterr().out and few < every
    assert sorted(set(history["client"])) == list(range(1, 11))
    assert set(record["data"]["sources"]) == {"cifar10", "cifar100", "voc", "flickr30k", "ag_news"}
    assert set(history.loc[history["client"] == 7, "metric"]) == {"mIoU", "local_loss", "contrastive_loss"}
    assert len(record["alignment"]["after"]["cka"]) == 10


@pytest.mark.parametrize("changes", [{}, {"refresh": "round"}, {"peer_choice": "bandit", "num_peers": 2}])
def test_a_killed_run_goes_on_with_the_same_result(paper, tmp_path, monkeypatch, changes):
    settings = paper(rounds=3).replace(**changes)
    whole, history = run(settings, tmp_path / "whole", progress=False)
    save, seen = State.save, []

    def killed(state, built, round, *rest):
        save(state, built, round, *rest)
        seen.append(round)
        if seen == [1, 2]:
            raise KeyboardInterrupt
    monkeypatch.setattr(State, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(settings, tmp_path / "killed", progress=False)
    state = run_path(tmp_path / "killed", experiment.canonical(settings)).with_suffix(".state.pt")
    assert state.is_file()
    resumed, again = run(settings, tmp_path / "killed", progress=False)
    assert seen == [1, 2, 3] and not state.is_file()
    pd.testing.assert_frame_equal(again, history, check_exact=True)
    for name in ("ledger", "alignment", "data", "fingerprint", "parameters"):
        assert resumed[name] == whole[name], name


def test_a_state_that_is_not_whole_or_of_something_else_is_named(paper, tmp_path, monkeypatch):
    settings = experiment.canonical(paper())
    state = run_path(tmp_path, settings).with_suffix(".state.pt")
    state.parent.mkdir()
    state.write_bytes(b"half")
    with pytest.raises(ValueError, match=r"state\.pt: not a whole state"):
        run(settings, tmp_path, progress=False)
    torch.save({"key": settings.key(), "identity": {"data": "another"}}, state)
    with pytest.raises(ValueError, match="got the state of a run with other settings, data, backbones or another device"):
        run(settings, tmp_path, progress=False)
    monkeypatch.setenv(experiment.RECOMPUTE_BEFORE, "2999-01-01T00:00:00+00:00")      # --force: what is older does not count
    run(settings, tmp_path, progress=False)


def test_a_stored_run_counts_only_for_the_data_and_backbones_it_had(paper, world, tmp_path, monkeypatch):
    settings = paper(method="local")
    run(settings, tmp_path, progress=False)
    assert experiment.is_stored(settings, tmp_path)
    for variable, original, name in (("FEDMUSCLE_DATA", world[0], "cifar10"), ("FEDMUSCLE_CHECKPOINTS", world[1], "vit_base")):
        copy = tmp_path / variable
        shutil.copytree(original, copy)
        next((copy / name).rglob("train/class003/*.png") if name == "cifar10" else (copy / name).glob("*.safetensors")).unlink()
        monkeypatch.setenv(variable, str(copy))
        assert not experiment.is_stored(settings, tmp_path)
        shutil.rmtree(copy / name)
        if name == "cifar10":
            assert experiment.is_stored(settings, tmp_path)                   # not here: it cannot be told
        monkeypatch.setenv(variable, str(original))
    assert experiment.is_stored(settings, tmp_path)


def test_waiting_in_host_memory_and_micro_batches_change_nothing_but_memory(paper, monkeypatch):
    """In float32 and without dropout, up to rounding."""
    without = tuple(spec._replace(backbone=spec.backbone.replace("segformer_b2", "segformer_b0")) for spec in SETUPS["paper1"])
    monkeypatch.setitem(SETUPS, "paper1", without)
    plain = {"precision": "float32", "micro_batch_size": None, "offload": False}
    found = {}
    for name, changes in (("whole", {}), ("offload", {"offload": True}), ("micro", {"micro_batch_size": 3})):
        with one_thread():
            built = federation.build(paper(**{**plain, **changes}))
            history = federation.train(built, progress=False)[0]
            found[name] = history[history["split"] == "train"].reset_index(drop=True)
    assert len(found["whole"]) == 2 * 2 * 6
    pd.testing.assert_frame_equal(found["offload"], found["whole"], check_exact=False, rtol=1e-5)
    pd.testing.assert_frame_equal(found["micro"], found["whole"], check_exact=False, rtol=1e-4)


@pytest.mark.parametrize("changes", [{}, {"method": "simclr"}, {"method": "cofed"}, {"method": "fedhenn"},
                                     {"refresh": "round"}])
def test_one_client_at_a_time_is_at_work(paper, monkeypatch, changes):
    """With `offload` every use of a network lies between its arrival and its departure, and no other is there."""
    there, used = set(), []

    def move(client, device):
        there.symmetric_difference_update({client.index})
        assert len(there) <= 1
    monkeypatch.setattr(placement, "move", move)
    method = changes.get("method", "fedmuscle")
    with one_thread():
        built = federation.build(paper(method=method, rounds=2).replace(**changes))
        for client in built.clients:
            def watch(module, inputs, index=client.index):
                used.append((index, set(there)))
            client.model.representation.backbone.register_forward_pre_hook(watch)
        federation.train(built, progress=False)
    assert len(used) > 50 and all(here == {index} for index, here in used) and not there


def test_dropout_repeats_when_a_graph_is_made_again(paper):
    """Client 2 has drop path: its upload equals what the second pass makes of the same parts, and another batch's differs."""
    settings = paper(offload=False, precision="float32")
    client = federation.build(settings).clients[1]
    assert client.has_dropout
    parts = micro_batches(client, torch.arange(8), settings, 1, 0)
    first, second, other = ([embed(client, part, 1, number, place) for place, part in enumerate(parts)] for number in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(torch.cat(first), torch.cat(other))


def test_moving_a_client_keeps_its_views_its_moments_and_its_updates(paper):
    settings = paper(rounds=1, offload=False)
    built = federation.build(settings)
    client, twin = built.clients[0], federation.build(settings).clients[0]
    for each in (client, twin):
        inputs, wanted = (values[:4] for values in each.data["train"])
        for _ in range(2):
            each.task.loss(each.model(inputs), wanted).backward()
            each.local_optimizer.step()
            each.local_optimizer.param_groups[0]["params"][0].grad.zero_()
            if each is client:
                placement.move(client, "cpu")
    flat = client.local_optimizer.param_groups[0]["params"][0]
    learning = [p for p in client.model.parameters() if p.requires_grad]
    start, size = flat.data_ptr(), 4 * flat.numel()
    assert all(start <= p.data_ptr() < start + size for p in learning)
    assert all(torch.equal(a, b) for a, b in zip(client.model.parameters(), twin.model.parameters(), strict=True))


@pytest.mark.parametrize("index", [1, 4, 7, 9])
def test_accumulated_gradients_are_those_of_the_whole_batch(paper, index):
    """For labels, classes, pixels (one photo has hardly any that count, one none) and texts."""
    client = federation.build(paper("setup2", precision="float32")).clients[index - 1]
    inputs, wanted = client.data["train"]
    if client.task.dense:
        wanted[0], wanted[1, 3:] = 255, 255
    gradients = []
    for size in (None, 4, 1):
        client.model.eval()
        loss = accumulated(client, inputs, wanted, size)
        loss.backward()
        flat = client.local_optimizer.param_groups[0]["params"][0].grad
        gradients.append((loss.item(), flat.clone()))
        flat.zero_()
    for value, gradient in gradients[1:]:
        assert value == pytest.approx(gradients[0][0], rel=1e-5)
        assert torch.allclose(gradient, gradients[0][1], atol=1e-6) and gradient.abs().max() > 0


@pytest.mark.parametrize("name", ["vit_base", "segformer_b0", "bert_base", "distilbert_base"])
def test_lora_trains_its_updates_only_and_starts_as_the_checkpoint(paper, name):
    plain, adapted = load_backbone(name).eval(), adapt(load_backbone(name), "lora", 4).eval()
    inputs = {"input_ids": torch.ones(2, 5, dtype=torch.long)} if "bert" in name else {"pixel_values": torch.rand(2, 3, 32, 32)}
    with torch.no_grad():
        assert torch.equal(plain(**inputs).last_hidden_state, adapted(**inputs).last_hidden_state)
    learning = [key for key, value in adapted.named_parameters() if value.requires_grad]
    assert learning and all("lora_" in key for key in learning)
    projections = [key for key, module in plain.named_modules() if key.rsplit(".", 1)[-1] in
                   ("q_proj", "v_proj", "query", "value", "q_lin", "v_lin")]
    width = {key: plain.get_submodule(key).weight.shape for key in projections}
    assert num_parameters(adapted) == sum(4 * (rows + columns) for rows, columns in width.values())


def test_lora_needs_attention_and_frozen_trains_nothing(paper):
    with pytest.raises(ValueError, match="adaptation: got 'lora' for ResNetModel, expected 'full' or 'frozen'"):
        adapt(load_backbone("resnet_small"), "lora")
    assert num_parameters(adapt(load_backbone("vit_base"), "frozen")) == 0


def test_frozen_features_are_computed_once_and_give_the_same_run(paper, monkeypatch):
    settings = paper(adaptation="frozen", precision="float32", micro_batch_size=None, offload=False)
    with one_thread():
        built = federation.build(settings)
        kept = federation.train(built, progress=False)[0]
        assert built.clients[0].data["train"][0].shape == (6, 4 * 16) and built.clients[0].public.shape == (16, 4 * 16)
        monkeypatch.setattr("fedmuscle_core.client.keep_features", lambda client: None)
        again = federation.train(federation.build(settings), progress=False)[0]
    pd.testing.assert_frame_equal(kept, again, check_exact=False, rtol=1e-4)


def test_hub_segformers_read_imagenets_pixels_and_sizes_are_fitted(paper):
    assert pixels_of("segformer_medium", 224) == PIXELS._replace(side=224)
    for name in ("nvidia/mit-b0", "segformer_b0"):
        assert pixels_of(name, 64, "bfloat16") == IMAGENET._replace(side=64, precision="bfloat16")
    clients = federation.build(paper()).clients                               # of local copies
    assert clients[2].model.representation.scale.mean == IMAGENET.mean and clients[0].model.representation.scale.mean == 0.5
    image = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    assert torch.allclose(normalised(image, PIXELS), torch.ones(1, 3, 8, 8))
    white = normalised(image, IMAGENET._replace(side=16))
    assert white.shape == (1, 3, 16, 16) and white[0, :, 0, 0].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-3)


def test_private_validation_and_test_samples_are_all_different(paper):
    settings = paper("setup2", public_domain="pairs")
    rows, other = real_data.run_rows(settings, public=True), real_data.run_rows(settings.replace(method="local"))
    assert all(torch.equal(rows[index], other[index]) for index in other)     # whatever the method reads
    sources = {index: real_data.task_named(spec.task).source for index, spec in enumerate(SETUPS["paper2"], 1)}
    sources[0] = "flickr30k"
    for source in set(sources.values()):
        several = [rows[index].tolist() for index in rows if sources[index] == source]
        parts = real_data.split_rows(source)
        used = [*(row for mine in several for row in mine), *parts["validation"].tolist(), *parts["test"].tolist()]
        assert len(used) == len(set(used))
        assert not set(used) & set(parts["reserved"].tolist())
    table = real_data.source_table("voc")
    assert set(table["split"].iloc[real_data.split_rows("voc")["test"].tolist()]) == {"val"}
    again = real_data.run_rows(settings.replace(seed=1), public=True)
    assert not torch.equal(again[1], rows[1])


def test_non_iid_clients_of_a_task_deal_what_they_would_have_together(paper):
    iid = paper("noniid", test_size=200, validation_size=200)
    skewed = iid.replace(dirichlet=0.1)
    rows, dealt = real_data.run_rows(iid, public=True), real_data.run_rows(skewed, public=True)
    assert torch.equal(rows[0], dealt[0])                                     # the public data stay
    for task in {spec.task for spec in SETUPS["paper_noniid"]}:
        together = real_data.of_task("paper_noniid", task)
        assert len(together) == 3
        assert sorted(torch.cat([rows[index] for index in together]).tolist()) == sorted(
            torch.cat([dealt[index] for index in together]).tolist())
        assert any(not torch.equal(rows[index], dealt[index]) for index in together)
    for task in ("class@cifar10", "class@cifar100"):                          # 10 and 100 test photos
        together = real_data.of_task("paper_noniid", task)
        everybody = real_data.scored_rows(real_data.task_named(task), "test", 200)
        mine = [real_data.own_scored_rows(index, skewed, "test", 200) for index in together]
        assert sorted(torch.cat(mine).tolist()) == everybody.tolist()
        assert torch.equal(real_data.own_scored_rows(together[0], iid, "test", 200), everybody)


def test_a_client_is_scored_on_the_classes_it_trains_on(paper, monkeypatch):
    """Shares of one client a class: what it has of a class in training it has in the test, and nothing else."""
    def whole(classes, sizes, concentration, seed, *names, num_classes):
        shares = np.eye(3)[np.arange(num_classes) % 3]
        return partition.deal(classes, shares, torch.Generator().manual_seed(0)), shares

    monkeypatch.setattr(real_data, "split_by_class", whole)
    settings, task = paper("noniid", dirichlet=0.1), real_data.task_named("class@cifar10")
    rows = real_data.run_rows(settings)
    for place, index in enumerate(real_data.of_task("paper_noniid", task.name)):
        tested = real_data.own_scored_rows(index, settings, "test", 200)
        for found in (rows[index], tested):
            assert set((real_data.sample_classes(task, found) % 3).tolist()) == {place}


def test_the_class_of_a_sample_is_its_own_the_first_label_or_that_of_most_pixels(paper, tmp_path):
    task, everything = real_data.task_named("labels@voc"), torch.arange(len(real_data.source_table("voc")))
    rows = real_data.with_needs("voc", everything, ("image", "label"))
    labels = real_data.source_table("voc")["label"].iloc[rows.tolist()]
    found = real_data.sample_classes(task, rows).tolist()
    assert found == [next((place for place, there in enumerate(label) if there), 0) for label in labels]
    mask = np.zeros((6, 6), dtype=np.uint8)
    mask[0], mask[1:3], mask[3:5] = 255, 7, 4
    mask[5, :2] = 7
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert photos.largest_class(tmp_path / "mask.png") == 7
    Image.fromarray(np.zeros((6, 6), dtype=np.uint8)).save(tmp_path / "empty.png")
    assert photos.largest_class(tmp_path / "empty.png") == 0
    with pytest.raises(ValueError, match="none.png: no such file"):
        photos.largest_class(tmp_path / "none.png")
    pixels = real_data.task_named("pixels@voc")
    rows = real_data.with_needs("voc", everything, ("image", "mask"))
    found = real_data.sample_classes(pixels, rows)
    assert found.min() >= 0 and found.max() < pixels.num_outputs - 1


def test_a_client_without_a_sample_to_be_scored_on_is_named(paper):
    with pytest.raises(ValueError, match="dirichlet: got 0.1, which leaves client .* without a validation sample"):
        federation.build(paper("noniid", method="local", dirichlet=0.1, validation_size=1))


def test_too_few_samples_are_said_before_any_training(paper):
    with pytest.raises(ValueError, match="voc: got .* free samples with photos for the public data, expected at least 500"):
        federation.build(paper(public_size=500))
    with pytest.raises(ValueError, match="coco: got 27 free samples with photos and texts .* expected at least 28"):
        federation.build(paper("setup2", public_domain="scenes", public_size=28))


@pytest.mark.parametrize(("setup", "changes", "message"), [
    ("clients12", {}, "profile: got 'paper' for clients12, expected one of"),
    ("setup1", {"public_domain": "noise"}, "public_domain: got 'noise', expected one of"),
])
def test_what_has_no_real_version_is_refused(paper, setup, changes, message):
    with pytest.raises(ValueError, match=message):
        profile_settings("paper", setup, "local", [0], **changes)


def test_real_clients_and_scenes_do_not_mix(paper, monkeypatch):
    with pytest.raises(ValueError, match="public_domain: got 'single', expected the name of a real source"):
        federation.check(paper().replace(public_domain="single"))
    monkeypatch.setitem(SETUPS, "mixed", (*SETUPS["paper1"][:2], *SETUPS["setup1"][:2]))
    with pytest.raises(ValueError, match="got clients with scenes and with real data in 'mixed'"):
        federation.check(paper().replace(setup="mixed"))


def test_the_plans_of_its_notebooks_have_a_paper_version(paper):
    for number in plans.PAPER_NOTEBOOKS:
        runs = plans.PLANS[number]("paper", [0])
        assert runs and {settings.setup for settings in runs} <= set(PAPER_SETUPS.values())
        assert all(settings.adaptation == "lora" and settings.dim == 256 for settings in runs)


def test_micro_batches_are_the_batch_in_parts(paper):
    client = federation.build(paper(offload=False)).clients[0]
    parts = micro_batches(client, torch.arange(8), paper(), 1, 0)
    assert [len(part) for part in parts] == [3, 3, 2] and torch.equal(torch.cat(parts), client.public[:8])


def test_a_stored_run_of_the_paper_profile_loads(paper, tmp_path):
    settings = paper(method="local")
    run(settings, tmp_path, progress=False)
    record, history = load_run(run_path(tmp_path, experiment.canonical(settings)))
    assert experiment.is_stored(settings, tmp_path) and record["settings"]["lora_rank"] == 16 and len(history)


def test_labels_and_masks_that_do_not_fit_are_named_before_training(paper, world, tmp_path, monkeypatch):
    monkeypatch.setitem(SETUPS, "wrong", (SETUPS["paper1"][0]._replace(task="class@voc"), SETUPS["paper1"][5]))
    monkeypatch.setitem(federation.SETUP_SETTINGS, "wrong", {"public_domain": "coco"})
    with pytest.raises(ValueError, match=r"jpg: got label \(.*, expected a class from 0 to 19 for class@voc"):
        federation.build(paper(method="local").replace(setup="wrong"))
    shutil.copytree(world[0], tmp_path / "data")
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path / "data"))
    for path in (tmp_path / "data" / "voc").rglob("SegmentationClass/*.png"):
        Image.new("L", (40, 30), 33).save(path)
    with pytest.raises(ValueError, match=r"png: got class 33, expected 0 to 20 or 255"):
        federation.build(paper("setup2", "local"))
    with pytest.raises(ValueError, match=r"png: got class 33, expected 0 to 20 or 255"):
        federation.build(paper("noniid", "local", dirichlet=0.1))
    for path in (tmp_path / "data" / "voc").rglob("SegmentationClass/*.png"):
        Image.new("RGB", (40, 30)).save(path)
    photos.largest_class.cache_clear()
    with pytest.raises(ValueError, match=r"png: got 3 channels, expected one, a class at each pixel"):
        federation.build(paper("noniid", "local", dirichlet=0.1))
    table = real_data.source_table("voc").assign(label=[tuple([2] + [0] * 19)] * len(real_data.source_table("voc")))
    with pytest.raises(ValueError, match=r"jpg: got label \(2, .*, expected 20 numbers, 0 or 1 for labels@voc"):
        real_data.check_labels(real_data.task_named("labels@voc"), table)
    monkeypatch.setitem(SETUPS, "scored", (SETUPS["paper1"][0]._replace(task="labels@coco"), SETUPS["paper1"][5]))
    monkeypatch.setitem(federation.SETUP_SETTINGS, "scored", {"public_domain": "voc"})
    with pytest.raises(ValueError, match="coco: got no test sample for labels@coco"):
        federation.build(paper(method="local").replace(setup="scored"))
    monkeypatch.delitem(federation.SETUP_SETTINGS, "scored")
    with pytest.raises(ValueError, match="setup: got 'scored', whose clients have real data, without a public source"):
        federation.check(paper(method="local").replace(setup="scored"))


STARTUP = """
from dataclasses import replace
import torch
from fedmuscle_core.experiments import ablations, setups
from fedmuscle_core.world.real import splits as real_data
from fedmuscle_core.world import tasks
ablations.EXCHANGED = (("setup1", 4, 1), ("setup1", 4, 2), ("setup2", 3, 2))
real_data.deal = lambda classes, shares, order: [torch.arange(len(classes))] * shares.shape[1]    # too few to be shared out
for kind, task in tasks.REAL_KINDS.items():            # one point more: a score of 0 has no relative change, and noise scores 0
    if kind in ("class", "text"):
        tasks.REAL_KINDS[kind] = replace(task, score=lambda logits, wanted: 1 + tasks._accuracy(logits, wanted))
for name in setups.PAPER_SETUPS.values():
    setups.SETUPS[name] = tuple(spec._replace(train_size=6) for spec in setups.SETUPS[name])
    setups.SETUP_SETTINGS[name].update({small!r})
"""


@pytest.mark.parametrize(("number", "seeds", "count"), [("02", [0, 1], 6), ("05", [0, 1], 14), ("07", [0], 32),
                                                        ("09", [0], 14)])
def test_the_notebooks_themselves_run_with_it(world, tmp_path, monkeypatch, capsys, number, seeds, count):
    """Through `fedmuscle reproduce`, in kernels that begin with smaller sets and fewer rounds."""
    for path in ("startup", "none"):
        (tmp_path / "profile_default" / path).mkdir(parents=True)
    startup = STARTUP.format(small=SMALL)
    (tmp_path / "profile_default" / "startup" / "small.py").write_text(startup)
    for variable, value in (("IPYTHONDIR", tmp_path), ("FEDMUSCLE_RUNS", tmp_path / "runs"), ("FEDMUSCLE_DATA", world[0]),
                            ("FEDMUSCLE_CHECKPOINTS", world[1]), ("OMP_NUM_THREADS", 1)):
        monkeypatch.setenv(variable, str(value))
    monkeypatch.setattr("fedmuscle_core.commands.reproduce.compute", lambda *arguments: None)      # only kernels know the small setups
    status = cli.main(["reproduce", "--profile", "paper", "--only", number, "-p", "seeds", str(seeds)])
    assert status == 0, capsys.readouterr().out
    stored = list((tmp_path / "runs" / "paper" / "results").rglob("paper*/*.json"))
    assert len(stored) == count

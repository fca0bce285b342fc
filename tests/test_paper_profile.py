"""The paper profile end to end, without a network: its own setups and code path on tiny data sets in the official layouts and
tiny checkpoints, LoRA on, bfloat16 on, clients in host memory between turns, killed and resumed."""

import shutil
from dataclasses import replace

import pandas as pd
import pytest
import tiny_world
import torch
from found_runs import run_names
from rounds import fit

from fedmuscle_core import placement
from fedmuscle_core.client import accumulated, embed
from fedmuscle_core.commands import cli
from fedmuscle_core.experiments import plans, resume, runs
from fedmuscle_core.experiments.build import build, check
from fedmuscle_core.experiments.profiles import profile_settings
from fedmuscle_core.experiments.resume import State
from fedmuscle_core.experiments.runs import is_stored, one_thread, run, sweep
from fedmuscle_core.experiments.setups import SETUPS, Setup
from fedmuscle_core.files import save_state
from fedmuscle_core.methods import of_group
from fedmuscle_core.networks.adaptation import adapt
from fedmuscle_core.networks.backbones import IMAGENET, PIXELS, load_backbone, normalised, pixels_of
from fedmuscle_core.networks.client_network import num_parameters

SMALL = {"rounds": 2, "public_size": 16, "batch_size": 8, "dim": 8, "local_batch_size": 4, "min_local_steps": 2,
         "validation_size": 8, "test_size": 8, "micro_batch_size": 3, "image_size": 32}
PAPER = {name: setup.paper for name, setup in SETUPS.items() if setup.paper}


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
    for name in PAPER.values():
        clients = tuple(spec._replace(train_size=6) for spec in SETUPS[name].clients)
        monkeypatch.setitem(SETUPS, name, replace(SETUPS[name], clients=clients))

    def settings(setup="embedded1", method="fedmuscle", **changes):
        return profile_settings("paper", setup, method, [0], **{**SMALL, **changes})[0]
    return settings


def state_of(folder, settings):
    """Where the state of a run is kept."""
    return folder / f"{settings.setup.name}-{settings.canonical().run()}.state.pt"


def test_every_method_runs_on_setup_1_and_learns_something(paper, tmp_path):
    several = [paper(method=method) for method in of_group("aligning")]
    records, history = sweep(several, tmp_path, progress=False)
    assert set(history["method"]) == set(of_group("aligning"))
    assert {record["settings"]["setup"] for record in records} == {"paper1"}
    trained = history[(history["split"] == "train") & (history["metric"] == "local_loss")]
    assert trained.groupby(["method", "client"])["value"].size().eq(2).all() and trained["value"].notna().all()
    scores = history[history["split"] == "test"]
    assert scores["value"].between(0, 100).all() and len(scores) == 6 * len(several)
    assert not list(tmp_path.rglob("*.state.pt*"))
    for settings, record in zip(several, records, strict=True):
        assert record["device"] == "cpu" and record["versions"]["peft"]
        assert set(record["data"]["sources"]) == {"cifar10", "cifar100", "voc"}
        assert ("0" in record["data"]["clients"]) == settings.method.uses_public
        assert is_stored(settings, tmp_path) and record["settings"]["lora_rank"] == 16


def test_setup_2_reads_captions_masks_and_texts(paper, tmp_path, capsys):
    record, history = run(paper("embedded2"), tmp_path)
    few, every = record["parameters"]["9"]
    assert f"client 9 {few:,} of {every:,}" in capsys.readouterr().out and few < every
    assert sorted(set(history["client"])) == list(range(1, 11))
    assert set(record["data"]["sources"]) == {"cifar10", "cifar100", "voc", "flickr30k", "ag_news"}
    assert set(history.loc[history["client"] == 7, "metric"]) == {"mIoU", "local_loss", "contrastive_loss"}
    assert len(record["alignment"]["after"]["cka"]) == 10


@pytest.mark.parametrize("changes", [{}, {"refresh": "round"}, {"peer_choice": "bandit", "num_peers": 2}])
def test_a_killed_run_goes_on_with_the_same_result(paper, tmp_path, monkeypatch, changes):
    settings = paper(rounds=3, **changes)
    whole, history = run(settings, tmp_path / "whole", progress=False)
    save, seen = State.save, []

    def killed(state, federation):
        save(state, federation)
        seen.append(federation.round)
        if seen == [1, 2]:
            raise KeyboardInterrupt
    monkeypatch.setattr(State, "save", killed)
    monkeypatch.setattr(resume, "EVERY", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(settings, tmp_path / "killed", progress=False)
    state = state_of(tmp_path / "killed", settings)
    assert state.is_file()
    resumed, again = run(settings, tmp_path / "killed", progress=False)
    assert seen == [1, 2, 3] and not state.is_file()
    pd.testing.assert_frame_equal(again, history, check_exact=True)
    for name in ("ledger", "alignment", "data", "fingerprint", "parameters"):
        assert resumed[name] == whole[name], name


def test_a_state_of_something_else_is_named(paper, tmp_path, monkeypatch):
    settings = paper(method="local", rounds=1)
    state = state_of(tmp_path, settings)
    save_state({"identity": {"run": settings.canonical().run(), "data": "another"}}, state)
    with pytest.raises(ValueError, match="got the state of a run with other settings, data, backbones or another device"):
        run(settings, tmp_path, progress=False)
    monkeypatch.setenv(runs.RECOMPUTE_BEFORE, "2999-01-01T00:00:00+00:00")      # --force: what is older does not count
    run(settings, tmp_path, progress=False)
    assert not state.is_file()


def test_a_stored_run_counts_only_for_the_data_and_backbones_it_had(paper, world, tmp_path, monkeypatch):
    settings = paper(method="local", rounds=1)
    run(settings, tmp_path, progress=False)
    assert is_stored(settings, tmp_path)
    for variable, original, name in (("FEDMUSCLE_DATA", world[0], "cifar10"), ("FEDMUSCLE_CHECKPOINTS", world[1], "vit_base")):
        copy = tmp_path / variable
        shutil.copytree(original, copy)
        next((copy / name).rglob("train/class003/*.png") if name == "cifar10" else (copy / name).glob("*.safetensors")).unlink()
        monkeypatch.setenv(variable, str(copy))
        assert not is_stored(settings, tmp_path)
        shutil.rmtree(copy / name)
        if name == "cifar10":
            assert is_stored(settings, tmp_path)                                # not here: it cannot be told
        monkeypatch.setenv(variable, str(original))
    assert is_stored(settings, tmp_path)


def test_waiting_in_host_memory_and_micro_batches_change_nothing_but_memory(paper, monkeypatch):
    """In float32 and without dropout, up to rounding."""
    setup = SETUPS["paper1"]
    clients = tuple(spec._replace(backbone=spec.backbone.replace("segformer_b2", "segformer_b0")) for spec in setup.clients)
    monkeypatch.setitem(SETUPS, "paper1", replace(setup, clients=clients))
    plain = {"precision": "float32", "micro_batch_size": None, "offload": False}
    found = {}
    for name, changes in (("whole", {}), ("offload", {"offload": True}), ("micro", {"micro_batch_size": 3})):
        history, _ = fit(paper(**{**plain, **changes}))
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
        there.symmetric_difference_update({client.name})
        assert len(there) <= 1
    monkeypatch.setattr(placement, "move", move)
    with one_thread():
        federation = build(paper(**changes))
        for client in federation.clients:
            def watch(module, inputs, name=client.name):
                used.append((name, set(there)))
            client.network.representation.backbone.register_forward_pre_hook(watch)
        federation.fit(2, progress=False)
    assert len(used) > 50 and all(here == {name} for name, here in used) and not there


def test_drop_path_repeats_when_a_graph_is_made_again(paper):
    """Client 2's upload equals what the second pass makes of the same parts, and another batch's differs."""
    federation = build(paper(offload=False, precision="float32"))
    client = federation.clients[1]
    parts = federation.method.micro_batches(client, (1, 0))
    assert [len(part) for part in parts] == [3, 3, 2]
    first, second, other = ([embed(client, part, 1, number, place) for place, part in enumerate(parts)] for number in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(torch.cat(first), torch.cat(other))


def test_moving_a_client_keeps_its_views_its_moments_and_its_updates(paper):
    settings = paper(offload=False)
    client, twin = (build(settings).clients[0] for _ in range(2))
    for each in (client, twin):
        inputs, wanted = each.data["train"].take(torch.arange(4))
        for _ in range(2):
            each.task.loss(each.network(inputs), wanted).backward()
            each.local_optimizer.step()
            each.local_optimizer.param_groups[0]["params"][0].grad.zero_()
            if each is client:
                placement.move(client, "cpu")
    flat = client.local_optimizer.param_groups[0]["params"][0]
    learning = [parameter for parameter in client.network.parameters() if parameter.requires_grad]
    start, size = flat.data_ptr(), 4 * flat.numel()
    assert all(start <= parameter.data_ptr() < start + size for parameter in learning)
    assert all(torch.equal(a, b) for a, b in zip(client.network.parameters(), twin.network.parameters(), strict=True))


def test_accumulated_gradients_are_those_of_the_whole_batch(paper):
    """For labels, classes, pixels (one photo has hardly any that count, one none) and texts."""
    clients = build(paper("embedded2", "local", precision="float32")).clients
    for client in (clients[place - 1] for place in (1, 4, 7, 9)):
        inputs, wanted = client.data["train"].inputs, client.data["train"].targets
        if client.task.dense:
            wanted[0], wanted[1, 3:] = 255, 255
        gradients = []
        for size in (None, 4, 1):
            client.network.eval()
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
    kept, federation = fit(settings)
    client = federation.clients[0]
    assert client.data["train"].inputs.shape == (6, 4 * 16) and client.public.inputs.shape == (16, 4 * 16)
    monkeypatch.setattr("fedmuscle_core.experiments.build.keep_features", lambda client: None)
    again, _ = fit(settings)
    pd.testing.assert_frame_equal(kept, again, check_exact=False, rtol=1e-4)


def test_hub_segformers_read_imagenets_pixels_and_sizes_are_fitted(paper):
    assert pixels_of("segformer_medium", 224) == PIXELS._replace(side=224)
    for name in ("nvidia/mit-b0", "segformer_b0"):
        assert pixels_of(name, 64, "bfloat16") == IMAGENET._replace(side=64, precision="bfloat16")
    scales = [client.network.representation.scale for client in build(paper(method="local")).clients]     # of local copies
    assert scales[2].mean == IMAGENET.mean and scales[0].mean == 0.5
    image = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    assert torch.allclose(normalised(image, PIXELS), torch.ones(1, 3, 8, 8))
    white = normalised(image, IMAGENET._replace(side=16))
    assert white.shape == (1, 3, 16, 16) and white[0, :, 0, 0].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-3)


def test_too_few_samples_are_said_before_any_training(paper):
    with pytest.raises(ValueError, match="voc: got .* free samples with photos for the public data, expected at least 500"):
        build(paper(public_size=500))
    with pytest.raises(ValueError, match="coco: got 27 free samples with photos and texts .* expected at least 28"):
        build(paper("embedded2", public_domain="scenes", public_size=28))
    with pytest.raises(ValueError, match="dirichlet: got 0.1, which leaves client .* without a validation sample"):
        build(paper("noniid", method="local", dirichlet=0.1, validation_size=1))


@pytest.mark.parametrize(("setup", "changes", "message"), [
    ("clients12", {}, "profile: got 'paper' for clients12, expected one of"),
    ("embedded1", {"public_domain": "noise"}, "public_domain: got 'noise', expected one of"),
])
def test_what_has_no_real_version_is_refused(paper, setup, changes, message):
    with pytest.raises(ValueError, match=message):
        profile_settings("paper", setup, "local", [0], **changes)


def test_real_clients_and_scenes_do_not_mix(paper):
    with pytest.raises(ValueError, match="public_domain: got 'single', expected one of .* for clients with real data"):
        check(paper().replace(public_domain="single"))
    both = Setup("mixed", (*SETUPS["paper1"].clients[:2], *SETUPS["embedded1"].clients[:2]))
    with pytest.raises(ValueError, match="setup: got clients with scenes and clients with real data, expected either"):
        check(paper().replace(setup=both))
    alone = Setup("alone", SETUPS["paper1"].clients)
    with pytest.raises(ValueError, match=r"setup: settings: public_domain: got none, expected the name of a source, as"):
        check(paper(method="local").replace(setup=alone))


def test_whole_networks_are_neither_adapted_nor_moved_where_they_are_exchanged(paper):
    for changes in ({"adaptation": "full"}, {"offload": False}):
        with pytest.raises(ValueError, match="offload, adaptation: got .*, expected False and 'full' with M-Fed"):
            check(paper(method="mfed", **changes))


def test_the_plans_of_its_notebooks_have_a_paper_version(paper):
    for number in plans.PAPER_NOTEBOOKS:
        planned = plans.PLANS[number]("paper", [0])
        assert planned and {settings.setup.name for settings in planned} <= set(PAPER.values())
        assert all(settings.compute.adaptation == "lora" and settings.dim == 256 for settings in planned)


STARTUP = """
from dataclasses import replace
import torch
from fedmuscle_core.experiments import ablations, setups
from fedmuscle_core.tasks import accuracy
from fedmuscle_core.world import tasks
from fedmuscle_core.world.real import splits
ablations.EXCHANGED = ((4, 1), (4, 2))
ablations.PEER_COUNTS, ablations.CHOICES = {{"embedded1": (1, 3)}}, ("random", "bandit")
ablations.ABSENCES, ablations.CONCENTRATIONS = ((0.0, "batch"), (0.5, "round"), (0.5, "batch")), (0.1, "IID")
splits.deal = lambda classes, shares, order: [torch.arange(len(classes))] * shares.shape[1]       # too few to be shared out
for kind in ("class", "text"):                         # one point more: a score of 0 has no relative change, and noise scores 0
    make, more = tasks.REAL_KINDS[kind]
    tasks.REAL_KINDS[kind] = make, more | {{"score": lambda outputs, targets: 1 + accuracy(outputs, targets)}}
for name in {names!r}:
    setup = setups.SETUPS[name]
    setups.SETUPS[name] = replace(setup, clients=tuple(spec._replace(train_size=6) for spec in setup.clients),
                                  settings=setup.settings | {small!r})
"""


@pytest.mark.parametrize(("number", "seeds", "count"), [("02", [0, 1], 10), ("05", [0], 9), ("07", [0], 11),
                                                        ("09", [0], 6)])
def test_the_notebooks_themselves_run_with_it(world, tmp_path, monkeypatch, capsys, number, seeds, count):
    """Through `fedmuscle reproduce`, in kernels that begin with smaller sets and fewer rounds."""
    for path in ("startup", "none"):
        (tmp_path / "profile_default" / path).mkdir(parents=True)
    startup = STARTUP.format(small=SMALL | {"rounds": 1, "public_size": 8}, names=sorted(set(PAPER.values())))
    (tmp_path / "profile_default" / "startup" / "small.py").write_text(startup)
    for variable, value in (("IPYTHONDIR", tmp_path), ("FEDMUSCLE_RUNS", tmp_path / "runs"), ("FEDMUSCLE_DATA", world[0]),
                            ("FEDMUSCLE_CHECKPOINTS", world[1]), ("OMP_NUM_THREADS", 1)):
        monkeypatch.setenv(variable, str(value))
    monkeypatch.setattr("fedmuscle_core.commands.reproduce.compute", lambda *arguments: None)    # only kernels know the setups
    status = cli.main(["reproduce", "--profile", "paper", "--only", number, "-p", "seeds", str(seeds)])
    assert status == 0, capsys.readouterr()
    found = tmp_path / "runs" / "paper" / "results"
    stored = [name for setup in sorted(set(PAPER.values())) for name in run_names(found, setup)]
    assert len(stored) == count

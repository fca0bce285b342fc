"""A client: its optimisers, its local phase, its data, the randomness that is its own."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from rounds import vector
from small_clients import TRAINING, federation, make_client, method
from small_clients import fit as small_fit
from torch import nn
from transformers import AutoModel

from fedmuscle_core import Client, Training, classification
from fedmuscle_core import client as client_module
from fedmuscle_core.client import embed, evaluate, local_phase, local_steps, public_batch, represent, step
from fedmuscle_core.experiments.build import build
from fedmuscle_core.experiments.setups import SETUPS, Setup
from fedmuscle_core.losses import nt_xent
from fedmuscle_core.networks.backbones import load_backbone
from fedmuscle_core.networks.client_network import ClientNetwork
from fedmuscle_core.placement import flat_optimizers


def clients_of(tiny, *specs, setup=None, **changes):
    """The clients with these `ClientSpec`s, ready to train."""
    setup = setup or Setup("some", specs)
    return build(tiny(setup=setup, method="simclr", **changes)).clients


def joined(name=1, training=TRAINING, rate=None):
    return make_client(name).join(0, training, rate)


def test_flat_optimizers_update_as_ordinary_ones_do():
    """Alternating contrastive and local steps, against AdamW over the separate tensors of a copy."""
    rng = torch.Generator().manual_seed(0)
    model = ClientNetwork(load_backbone("resnet_small"), 8, 3).train()
    twin = copy.deepcopy(model)
    local, contrastive = flat_optimizers(model, 1e-2, 3e-3)
    twin_local = torch.optim.AdamW(twin.parameters(), lr=1e-2, fused=True)
    twin_contrastive = torch.optim.AdamW(twin.representation.parameters(), lr=3e-3, fused=True)
    for turn in range(6):
        images = torch.rand(4, 3, 32, 32, generator=rng)
        if turn % 2:
            loss, twin_loss, pair = model(images).square().mean(), twin(images).square().mean(), (local, twin_local)
        else:
            loss, twin_loss = model.representation(images).square().mean(), twin.representation(images).square().mean()
            pair = contrastive, twin_contrastive
        value = step(pair[0], loss)
        pair[1].zero_grad()
        twin_loss.backward()
        pair[1].step()
        assert value == pytest.approx(twin_loss.item(), rel=1e-4)
        for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-5)
            assert ours.grad.abs().max() == 0


def test_a_contrastive_step_leaves_the_head_as_it_is():
    model = ClientNetwork(load_backbone("resnet_small"), 8, 3).train()
    _, contrastive = flat_optimizers(model, 1e-2, 1e-2)
    head, projection = model.head.weight.clone(), model.representation.projection.weight.clone()
    step(contrastive, model.representation(torch.rand(4, 3, 32, 32)).square().mean())
    assert torch.equal(head, model.head.weight) and not torch.equal(projection, model.representation.projection.weight)


@pytest.mark.parametrize(("size", "epochs", "least", "steps"), [(40, 1, 10, 12), (40, 5, 10, 15), (160, 1, 10, 10),
                                                                (320, 1, 10, 20)])
def test_the_local_phase_makes_whole_epochs_and_at_least_so_many_steps(size, epochs, least, steps):
    assert local_steps(Training(local_epochs=epochs, min_local_steps=least, local_batch_size=16), size)[1] == steps


def test_the_local_phase_returns_the_mean_loss_of_its_steps(monkeypatch):
    taken, client = [], joined(training=Training(local_batch_size=10, min_local_steps=7))
    monkeypatch.setattr(client_module, "step", lambda optimizer, loss: taken.append(loss.item()) or loss.item())
    assert local_phase(client, 1) == pytest.approx(sum(taken) / len(taken))
    assert len(taken) == 9                                                      # three passes over 24 samples


def test_a_further_term_of_the_local_objective_sees_every_step(monkeypatch):
    client, calls, taken = joined(2), [], []
    monkeypatch.setattr(client_module, "step", lambda optimizer, loss: taken.append(loss.item()) or loss.item())

    def extend(loss, step):
        calls.append((len(step.wanted), step.number, step.total))
        assert torch.allclose(client.task.loss(client.network.decode(step.features), step.wanted), loss)
        return loss * 0 + step.number
    local_phase(client, 1, extend)
    assert calls == [(size, number, 4) for number, size in enumerate([8, 2] * 2)] and taken == list(range(4))


def test_a_local_phase_is_its_own_stream_and_learns():
    one, other, later = joined(), joined(), joined()
    first = local_phase(one, 1)
    torch.rand(7)
    assert first == local_phase(other, 1) != local_phase(later, 2)
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True))
    for round in range(2, 12):
        last = local_phase(one, round)
    assert last < first - 0.1


@pytest.mark.parametrize("size", [1, 3, 8, None])
def test_parts_of_a_batch_give_the_gradients_of_the_whole(size):
    client = joined(3)
    client.network.eval()
    inputs, wanted = client.data["train"].take(torch.arange(8))
    whole = torch.autograd.grad(client.task.loss(client.network(inputs), wanted), list(client.network.parameters()))
    loss = client_module.accumulated(client, inputs, wanted, size)
    loss.backward()
    assert loss.item() == pytest.approx(client.task.loss(client.network(inputs), wanted).item(), rel=1e-6)
    assert all(torch.allclose(parameter.grad, gradient, atol=1e-6) for parameter, gradient in zip(
        client.network.parameters(), whole, strict=True))


def test_each_client_learns_at_its_own_rate():
    """And takes part in a federation with fresh optimisers."""
    client = make_client(1)
    client.lr_scale = 4.0
    client.join(0, Training(local_lr=1e-3), 2e-3)
    assert [each.param_groups[0]["lr"] for each in (client.local_optimizer, client.contrastive_optimizer)] == [4e-3, 2e-3]
    local_phase(client, 1)
    assert client.local_optimizer.state
    assert not client.join(1, Training()).local_optimizer.state and client.seed == 1


def test_a_score_is_that_of_the_task_on_all_samples_and_leaves_the_network_alone():
    client = joined(3)
    before = {name: value.clone() for name, value in client.network.state_dict().items()}
    client.network.eval()
    data = client.data["test"]
    assert evaluate(client, "test") == client.task.score(client.network(data.inputs), data.targets)
    assert all(torch.equal(value, before[name]) for name, value in client.network.state_dict().items())
    with torch.no_grad():
        client.network.head.weight[0, 0] = torch.inf
    assert evaluate(client, "test") != evaluate(client, "test")


def test_representations_are_unit_length_where_they_are_exchanged_and_as_they_are_where_they_are_measured():
    client = joined()
    batch = client.public.inputs[:4]
    assert torch.allclose(embed(client, batch, 1, 0).norm(dim=1), torch.ones(4), atol=1e-5)
    assert client.network.training
    found = represent(client, client.public)
    assert not found.requires_grad and not client.network.training
    assert torch.equal(found, client.network.representation(client.public.inputs))


def test_dropout_draws_from_the_clients_own_stream():
    client = joined()
    batch = client.public.inputs[:4]

    def embedded(*stream, who=client):
        who.network.representation[2].mean.zero_()                              # only the stream shall differ
        return embed(who, batch, *stream)
    first = embedded(1, 0)
    torch.rand(5)
    assert torch.equal(first, embedded(1, 0)) and not torch.equal(first, embedded(1, 1))
    twin = joined()
    assert torch.equal(first, embedded(1, 0, who=twin))
    twin.name = 9
    assert not torch.equal(first, embedded(1, 0, who=twin))


def test_dropout_of_a_backbone_repeats_too(tiny, tmp_path):
    config = load_backbone("vit_small").config
    config.hidden_dropout_prob = 0.3
    AutoModel.from_config(config).save_pretrained(tmp_path / "dropping")
    (client,) = clients_of(tiny, ("ic10", str(tmp_path / "dropping"), 8))
    images = torch.rand(4, 3, 32, 32)
    first = embed(client, images, 1, 0)
    assert torch.equal(first, embed(client, images, 1, 0)) and not torch.equal(first, embed(client, images, 1, 1))


def test_views_of_public_batches_have_the_stream_that_is_named():
    one, other = joined(1), joined(2)
    rows = torch.tensor([3, 1, 7])
    plain, view = public_batch(one, rows, False, 1, 0), public_batch(one, rows, True, 1, 0)
    assert torch.equal(plain, one.public.inputs[rows]) and not torch.equal(plain, view)
    assert torch.equal(view, public_batch(other, rows, True, 1, 0))
    assert not torch.equal(view, public_batch(one, rows, True, 1, 1))
    one.view = lambda batch, rng: batch + torch.rand(1, generator=rng)
    assert torch.equal(public_batch(one, rows, True, 1, 0), plain + torch.rand(
        1, generator=client_module.generator(0, "augment", 1, 0)))


def test_bytes_of_pixels_are_scaled_before_they_are_changed():
    client = joined()
    seen = []
    client.public = client_module.unlabelled("public", torch.full((4, 3, 8, 8), 255, dtype=torch.uint8))
    client.view = lambda batch, rng: seen.append(batch) or batch
    public_batch(client, torch.arange(4), True, 1)
    assert torch.equal(seen[0], torch.ones(4, 3, 8, 8))
    assert public_batch(client, torch.arange(4), False, 1).dtype == torch.uint8


def test_steps_on_public_batches_move_the_representation():
    client = joined(rate=1e-2)
    before, head = represent(client, client.public), client.network.head.weight.clone()
    step(client.contrastive_optimizer, nt_xent(embed(client, client.public.inputs[:4], 0),
                                               embed(client, client.public.inputs[4:8], 0)))
    assert not torch.equal(before, represent(client, client.public)) and torch.equal(head, client.network.head.weight)


def test_private_sets_belong_to_seed_and_client_and_test_scenes_to_nobody(tiny):
    spec = ("ic10", "resnet_small", 8)
    found = {seed: clients_of(tiny, spec, spec, seed=seed) for seed in (0, 1)}
    private = [client.data["train"].inputs for client in (*found[0], found[1][0])]
    assert not torch.equal(private[0], private[1]) and not torch.equal(private[0], private[2])
    tested = [client.data["test"].inputs for client in (*found[0], *found[1])]
    assert all(torch.equal(tested[0], each) for each in tested)
    assert torch.equal(private[0], clients_of(tiny, spec)[0].data["train"].inputs)


@pytest.mark.parametrize(("one_start", "same"), [(True, True), (False, False)])
def test_clients_of_a_task_start_from_the_same_weights_where_the_setup_says_so(tiny, one_start, same):
    specs = (("ic10", "resnet_small", 20), ("ic10", "resnet_small", 20), ("mlc", "resnet_small", 20))
    first, second, other = clients_of(tiny, setup=Setup("some", specs, one_start=one_start))
    assert torch.equal(first.network.head.weight, second.network.head.weight) == same
    assert not torch.equal(first.network.head.weight, other.network.head.weight)
    assert not torch.equal(first.data["train"].inputs, second.data["train"].inputs)


def test_the_setups_of_m_fed_say_so():
    assert {name for name, setup in SETUPS.items() if setup.one_start} == {
        "mfed_dense", "mfed_labels", "tasks1", "tasks2", "tasks8"}


def small(**changes):
    inputs = torch.rand(6, 5)
    usual = {"name": "birds", "encoder": nn.Linear(5, 4), "head": nn.Linear(4, 3), "task": classification(3),
             "train": (inputs, torch.arange(6) % 3)}
    return Client(**usual | changes)


@pytest.mark.parametrize(("changes", "message"), [
    ({"name": True}, "name: got True, expected a word or a number"),
    ({"name": -1}, "name: got -1, expected a word or a number from 0"),
    ({"task": None}, r"client birds: task: got None, expected a task such as classification\(10\)"),
    ({"task": "classification"}, "client birds: task: got 'classification'"), ({"task": classification}, "task: got <function"),
    ({"view": 3}, "client birds: view: got 3, expected a function"), ({"view": None}, "client birds: view: got None"),
    ({"views": 0}, "client birds: views: got 0, expected a function"),
    ({"offload": 3}, "client birds: offload: got 3, expected True or False"),
    ({"works_on": "foo"}, "client birds: works_on: got 'foo', expected a device that is here: .*foo"),
    ({"works_on": 1.5}, "client birds: works_on: got 1.5"),
    ({"works_on": "cuda:99"}, "client birds: works_on: got 'cuda:99', expected a device that is here"),
    ({"validation": (torch.full((2, 5), torch.nan), torch.tensor([0, 1]))},
     "client birds: validation: inputs: got NaN or infinity in 10 of 10 entries, expected finite numbers"),
    ({"public": torch.full((2, 5), torch.inf)}, "client birds: public: got NaN or infinity in 10 of 10"),
    ({"lr_scale": 0.0}, "client birds: lr_scale: got 0.0"),
    ({"micro_batch_size": 0}, "client birds: micro_batch_size: got 0"),
    ({"public": torch.rand(6, 4)}, "client birds: encoder: failed on one public sample of shape"),
    ({"public": torch.rand(6)}, r"client birds: public: got a tensor of shape \(6,\)"),
    ({"validation": (torch.rand(2, 5), torch.tensor([0, 3]))}, "client birds: validation: got class 3, expected 0 to 2"),
    ({"test": (torch.rand(2, 5), torch.tensor([0, -2]))}, "client birds: test: got class -2, expected 0 to 2"),
])
def test_a_client_that_does_not_fit_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=message):
        small(**changes)


def test_checking_a_client_leaves_its_network_as_it_was():
    encoder = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4))
    client = small(encoder=encoder, public=torch.rand(6, 5))
    assert encoder.training and encoder[1].num_batches_tracked == 0
    assert client.dim == 4 and client.label_space == "birds" and client.held_out.size == 6


def normalised(count, micro_batch_size=None, spatial=False, **training):
    """A client of `count` samples whose network has a batch normalisation, of 4 x 4 pixels if `spatial`, and has joined."""
    inputs = torch.rand(count, 3, 4, 4) if spatial else torch.rand(count, 3)
    norm = nn.BatchNorm2d(3) if spatial else nn.BatchNorm1d(3)
    return small(encoder=nn.Sequential(norm, nn.Dropout(), nn.Flatten(), nn.Linear(48 if spatial else 3, 4)),
                 train=(inputs, torch.arange(count) % 3), micro_batch_size=micro_batch_size).join(0, Training(**training))


@pytest.mark.parametrize(("count", "micro", "training"), [
    (17, None, {}), (1, None, {}), (5, None, {"local_batch_size": 1}), (16, 5, {}), (32, 1, {}), (19, 2, {})])
def test_a_batch_of_one_is_refused_where_a_batch_normalisation_would(count, micro, training):
    with pytest.raises(ValueError, match=f"client birds: train: got {count} samples with local_batch_size "
                                         f"{training.get('local_batch_size', 16)} and micro_batch_size {micro}, so that one"):
        normalised(count, micro, **training)


@pytest.mark.parametrize(("count", "micro", "spatial"), [
    (16, None, False), (18, None, False), (2, None, False), (32, 8, False), (17, None, True), (16, 5, True)])
def test_other_batches_pass_and_leave_network_and_randomness_as_they_were(count, micro, spatial):
    torch.manual_seed(0)
    client = normalised(count, micro, spatial)
    norm, drawn = client.network.representation[0], torch.get_rng_state()
    client.join(0, Training())
    assert norm.num_batches_tracked == 0 and not norm.running_mean.any() and client.network.training
    assert torch.equal(torch.get_rng_state(), drawn) and local_phase(client, 1) > 0
    assert norm.num_batches_tracked > 0


@pytest.mark.parametrize(("changes", "message"), [
    ({"local_epochs": 0}, "local_epochs: got 0"), ({"local_batch_size": 1.5}, "local_batch_size: got 1.5"),
    ({"min_local_steps": True}, "min_local_steps: got True"), ({"local_lr": "1e-3"}, "local_lr: got '1e-3'"),
    ({"local_lr": 0}, "local_lr: got 0, expected a finite number above 0"),
])
def test_bad_training_names_the_field(changes, message):
    with pytest.raises(ValueError, match=message):
        Training(**changes)


# The best validation round.


def scored(monkeypatch, scores, keep_best=True, rounds=3, **options):
    """A federation whose clients' validation scores are these, round 0 first, and each client's parameters after each round."""
    after, found = [], federation(method("local"), training=replace(TRAINING, keep_best=keep_best), **options)
    told = {client.name: iter(scores) for client in found.clients}
    monkeypatch.setattr(client_module, "evaluate", lambda client, split: next(told[client.name]) if split == "validation" else
                        evaluate(client, split))
    note = lambda found: after.append([vector(client).clone() for client in found.clients])     # noqa: E731
    return found, small_fit(found, rounds, after_round=note), after


@pytest.mark.parametrize(("scores", "best"), [
    ((0.0, 30.0, 40.0, 20.0), 2), ((0.0, 40.0, 40.0, 20.0), 1), ((0.0, 1.0, 2.0, 3.0), 3),
    ((math.nan, 10.0, 90.0, math.nan), 2)])
def test_clients_are_tested_with_the_parameters_of_their_first_best_validation_round(monkeypatch, scores, best):
    found, history, after = scored(monkeypatch, scores)
    for client, last, then in zip(found.clients, after[-1], after[best - 1], strict=True):
        assert torch.equal(vector(client), last)                              # it goes on from where it ended
        with client_module.at_best(client):
            assert torch.equal(vector(client), then)
            wanted = evaluate(client, "test")
        assert history.query("split == 'test' and client == @client.name")["value"].item() == wanted


def test_without_keep_best_it_is_the_last_round_that_counts(monkeypatch):
    found, history, _ = scored(monkeypatch, (0.0, 90.0, 1.0, 1.0), keep_best=False)
    assert all(client.best is None for client in found.clients)
    expected = [evaluate(client, "test") for client in found.clients]
    assert history.query("split == 'test'")["value"].tolist() == expected


def test_the_best_so_far_is_part_of_a_state_and_a_new_federation_forgets_it(monkeypatch):
    found, history, _ = scored(monkeypatch, (0.0, 90.0, 1.0, 1.0))
    again = federation(method("local"), training=replace(TRAINING, keep_best=True))
    again.load(found.state())
    for ours, theirs in zip(again.clients, found.clients, strict=True):
        assert ours.best["score"] == theirs.best["score"] == 90.0
        assert all(torch.equal(ours.best["network"][name], value) for name, value in theirs.best["network"].items())
    assert all(client.join(0, TRAINING).best is None for client in found.clients)


def test_keep_best_is_a_boolean():
    with pytest.raises(ValueError, match="keep_best: got 1, expected"):
        Training(keep_best=1)

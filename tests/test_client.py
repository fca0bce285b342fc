import copy

import pytest
import torch
from transformers import AutoModel

from fedmuscle_core import client as client_module
from fedmuscle_core.client import embed, local_phase, step
from fedmuscle_core.experiments.setups import ClientSpec
from fedmuscle_core.networks.backbones import load_backbone
from fedmuscle_core.networks.client_network import ClientModel
from fedmuscle_core.placement import flat_optimizers
from fedmuscle_core.world.pairs import public_data


def make_client(index, spec, settings):
    return client_module.make_client(index, spec, settings, public_data("single", settings.public_size, settings.seed))


def test_flat_optimizers_update_as_ordinary_ones_do():
    """Alternating contrastive and local steps, against AdamW over the separate tensors of a copy."""
    rng = torch.Generator().manual_seed(0)
    model = ClientModel(load_backbone("resnet_small"), 8, 3).train()
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
    model = ClientModel(load_backbone("resnet_small"), 8, 3).train()
    _, contrastive = flat_optimizers(model, 1e-2, 1e-2)
    head, projection = model.head.weight.clone(), model.representation.projection.weight.clone()
    step(contrastive, model.representation(torch.rand(4, 3, 32, 32)).square().mean())
    assert torch.equal(head, model.head.weight) and not torch.equal(projection, model.representation.projection.weight)


@pytest.mark.parametrize(("train_size", "epochs", "least", "steps"), [(40, 1, 10, 12), (40, 5, 10, 15), (160, 1, 10, 10),
                                                                      (320, 1, 10, 20)])
def test_the_local_phase_makes_whole_epochs_and_at_least_so_many_steps(tiny, monkeypatch, train_size, epochs, least, steps):
    settings = tiny(local_epochs=epochs, min_local_steps=least, local_batch_size=16)
    client = make_client(1, ClientSpec("ic10", "resnet_small", train_size), settings)
    taken = []
    monkeypatch.setattr(client_module, "step", lambda optimizer, loss: taken.append(loss.item()) or loss.item())
    assert local_phase(client, settings, 1) == pytest.approx(sum(taken) / len(taken))
    assert len(taken) == steps


def test_dropout_draws_from_the_clients_own_stream(tiny, tmp_path):
    config = load_backbone("vit_small").config
    config.hidden_dropout_prob = 0.3
    AutoModel.from_config(config).save_pretrained(tmp_path / "dropping")
    client = make_client(1, ClientSpec("ic10", str(tmp_path / "dropping"), 8), tiny())
    images = torch.rand(4, 3, 32, 32)
    assert client.has_dropout
    first = embed(client, images, 1, 0)
    torch.rand(5)
    assert torch.equal(first, embed(client, images, 1, 0))
    assert not torch.equal(first, embed(client, images, 1, 1))
    assert torch.allclose(first.norm(dim=1), torch.ones(4), atol=1e-5)
    assert not make_client(1, ClientSpec("ic10", "vit_small", 8), tiny()).has_dropout


def test_private_sets_belong_to_seed_and_client_and_test_scenes_to_nobody(tiny):
    spec = ClientSpec("ic10", "resnet_small", 8)
    clients = {key: make_client(key[1], spec, tiny(seed=key[0])) for key in [(0, 1), (0, 2), (1, 1)]}
    private = [client.data["train"][0] for client in clients.values()]
    assert not torch.equal(private[0], private[1]) and not torch.equal(private[0], private[2])
    assert all(torch.equal(client.data["test"][0], clients[0, 1].data["test"][0]) for client in clients.values())
    assert torch.equal(private[0], make_client(1, spec, tiny()).data["train"][0])


def test_a_further_term_of_the_local_objective_sees_every_step(tiny, monkeypatch):
    client, calls = make_client(1, ClientSpec("ic10", "resnet_small", 40), tiny()), []
    taken = []
    monkeypatch.setattr(client_module, "step", lambda optimizer, loss: taken.append(loss.item()) or loss.item())

    def extend(loss, step):
        calls.append((len(step.wanted), step.number, step.total))
        assert torch.allclose(client.task.loss(client.model.decode(step.features), step.wanted), loss)
        return loss * 0 + step.number
    local_phase(client, tiny(), 1, extend)
    assert calls == [(size, number, 12) for number, size in enumerate([16, 16, 8] * 4)] and taken == list(range(12))


@pytest.mark.parametrize(("setup", "same"), [("mfed_labels", True), ("setup1", False)])
def test_clients_of_a_task_start_from_the_same_weights_in_the_setups_of_m_fed(tiny, setup, same):
    settings = tiny(setup=setup, public_domain="single")
    first, second = (make_client(index, ClientSpec("ic10", "resnet_small", 20), settings) for index in (1, 2))
    other = make_client(3, ClientSpec("mlc", "resnet_small", 20), settings)
    assert torch.equal(first.model.head.weight, second.model.head.weight) == same
    assert not torch.equal(first.model.head.weight, other.model.head.weight)
    assert not torch.equal(first.data["train"][0], second.data["train"][0])

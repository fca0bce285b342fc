"""Centralised: one encoder, one decoder a task, all data in one place."""

import copy

import pytest
import torch
from rounds import begin, begun, equal, play, states, vector
from small_clients import federation, make_client, method

from fedmuscle_core import Centralised, Training
from fedmuscle_core.methods import centralised, sharing


def test_the_centre_has_one_encoder_and_all_data():
    found = begin(federation(method("centralised"), plain=True), 2)
    measured, centre = play(found, 1), found.server.memory
    networks = centre.networks
    assert set(networks) == {"birds", "scenes"} and networks["birds"].encoder() is networks["scenes"].encoder()
    assert {task: len(wanted) for task, (_, wanted) in centre.data.items()} == {"birds": 34, "scenes": 28}
    encoders, decoders = states(found.clients, "encoder"), states(found.clients, "decoder")
    assert all(equal(encoders[1], encoders[client]) for client in encoders)
    assert equal(decoders[1], decoders[2]) and equal(decoders[3], decoders[4]) and not equal(decoders[1], decoders[3])
    assert set(measured["local_loss"]) == {1, 2, 3, 4}


@pytest.mark.parametrize("small", [True, False])
def test_private_data_go_up_once_and_the_model_comes_down_every_round(shared, small):
    found = begin(federation(method("centralised"), plain=True), 2) if small else begun(shared(method="centralised"))
    for round in (1, 2):
        play(found, round)
    for client in found.clients:
        data = client.data["train"]
        assert found.ledger.entries[1, client.name, "up"] == sum(part.numel() * part.element_size()
                                                                 for part in (data.inputs, data.targets))
        assert (2, client.name, "up") not in found.ledger.entries
        assert {found.ledger.entries[round, client.name, "down"] for round in (1, 2)} == {4 * len(vector(client))}


def test_clients_networks_are_copied_not_taken():
    found = begin(federation(method("centralised"), plain=True), 2)
    lent = [id(parameter) for network in found.server.memory.networks.values() for parameter in network.parameters()]
    assert not set(lent) & {id(parameter) for client in found.clients for parameter in client.network.parameters()}
    assert equal(states(found.clients, "encoder")[1], sharing.copied(found.server.memory.networks["birds"].encoder()))


@pytest.mark.parametrize(("epochs", "least", "steps"), [(1, 2, 5), (2, 2, 10), (1, 12, 12)])
def test_the_centre_makes_the_steps_of_its_largest_task_at_the_tasks_own_rates(epochs, least, steps):
    """34 samples of one task, at four times the rate of 16 samples of another."""
    training = Training(local_batch_size=8, local_epochs=epochs, min_local_steps=least)
    clients = [make_client(1, plain=True, lr_scale=4.0), make_client(2, plain=True, lr_scale=4.0), make_client(3, plain=True)]
    found = begin(federation(Centralised(), clients, training=training), 1)
    optimizer, taken = found.server.memory.optimizer, []
    assert [group["lr"] / training.local_lr for group in optimizer.param_groups] == [2.5, 4, 1]
    optimizer.register_step_post_hook(lambda *_: taken.append(1))
    play(found, 1)
    assert len(taken) == steps


def test_a_central_step_is_the_sum_of_the_tasks_losses():
    """One step against AdamW over the same parameters, written out."""
    training = Training(local_batch_size=64, min_local_steps=1)
    found = begin(federation(Centralised(), plain=True, training=training), 1)
    twins = {1: copy.deepcopy(found.clients[0].network).train(), 3: copy.deepcopy(found.clients[2].network).train()}
    twins[3].representation = twins[1].representation
    data = [(client.data["train"].inputs, client.data["train"].targets) for client in found.clients]
    union = {1: map(torch.cat, zip(*data[:2], strict=True)), 3: map(torch.cat, zip(*data[2:], strict=True))}
    parameters = [*twins[1].encoder().parameters(), *twins[1].decoder().parameters(), *twins[3].decoder().parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=training.local_lr)
    losses = {}
    for client, (inputs, wanted) in union.items():
        loss = found.clients[client - 1].task.loss(twins[client](inputs), wanted)
        loss.backward()
        losses[client] = loss.item()
    optimizer.step()
    measured = play(found, 1)["local_loss"]
    for client, twin in twins.items():
        assert measured[client] == measured[client + 1] == pytest.approx(losses[client], rel=1e-5)
        for part in sharing.PARTS:
            assert equal(states(found.clients, part)[client], sharing.copied(getattr(twin, part)()), 1e-4)


def test_endless_batches_pass_over_everything_before_they_begin_again():
    batches = centralised.endless_batches(5, 2, torch.Generator().manual_seed(0))
    first, second = (torch.cat([next(batches) for _ in range(3)]).tolist() for _ in range(2))
    assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4] and first != second

"""Parameters shared within an architecture, representations aligned across: what is whose, and the two methods in the one."""

import pytest
import torch
from rounds import equal, states
from small_clients import CLIENTS, federation, make_client, method
from torch import nn

from fedmuscle_core.methods import METHODS, muscle_mfed, sharing
from fedmuscle_core.seeds import seeded

KINDS = {1: "wide", 2: "narrow", 3: "wide", 4: "narrow"}


def of_width(width, name):
    """An encoder, its weights those of the client."""
    with seeded(0, "of width", name):
        return nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.Tanh(), nn.Linear(width, 6))


def two_architectures():
    """Clients 1 and 3 have one encoder architecture, 2 and 4 another; both have one client of each task."""
    return [make_client(name, encoder=of_width(12 if KINDS[name] == "wide" else 5, name)) for name in CLIENTS]


def own_architectures():
    """Four clients with as many architectures."""
    return [make_client(name, encoder=of_width(4 + name, name)) for name in CLIENTS]


def fitted(name, clients, rounds=3, **changes):
    found = federation(method(name, **changes), clients)
    history = found.fit(rounds, progress=False)
    return found, history


def parameters(found):
    return {client.name: torch.cat([value.detach().flatten() for value in client.network.state_dict().values()]).clone()
            for client in found.clients}


def test_with_one_architecture_it_is_m_fed():
    runs = {name: parameters(fitted(name, [make_client(client, plain=True) for client in CLIENTS], **changes)[0])
            for name, changes in (("mfed", {"measure_gradients": False}), ("mfed_per_architecture", {}))}
    assert all(torch.equal(runs["mfed"][client], runs["mfed_per_architecture"][client]) for client in CLIENTS)


@pytest.mark.parametrize("name", ["mfed_per_architecture", "muscle_mfed"])
def test_nothing_is_averaged_between_architectures(monkeypatch, name):
    """Local phases that change nothing: what clients hold is what the server gave them."""
    monkeypatch.setattr(sharing, "local_phase", lambda client, round, extend: 0.0)
    found, _ = fitted(name, two_architectures(), 2)
    encoders, decoders = states(found.clients, "encoder"), states(found.clients, "decoder")
    assert equal(encoders[1], encoders[3]) and equal(encoders[2], encoders[4])
    assert encoders[1]["1.weight"].shape != encoders[2]["1.weight"].shape
    assert not any(equal(decoders[1], decoders[other]) for other in (2, 3, 4))             # one client a task and architecture
    assert len(found.server.memory.decoders) == 4


def test_a_group_s_encoder_is_the_mean_over_its_tasks_and_no_other_client_s(monkeypatch):
    monkeypatch.setattr(sharing, "local_phase", lambda client, round, extend: 0.0)
    found = federation(method("mfed_per_architecture"), two_architectures())
    found.fit(1, progress=False)
    with torch.no_grad():
        for client in found.clients:
            for parameter in client.network.parameters():
                parameter += client.name
    own = {client: {key: value.clone() for key, value in state.items()} for client, state in states(
        found.clients, "encoder").items()}
    found.fit(2, progress=False)
    after = states(found.clients, "encoder")
    for pair in ((1, 3), (2, 4)):
        wanted = {key: (own[pair[0]][key] + own[pair[1]][key]) / 2 for key in own[pair[0]]}
        assert all(equal(after[client], wanted, 1e-6) for client in pair)


def test_without_anything_to_share_it_is_fedmuscle_with_as_many_contrastive_steps():
    (found, history), (alone, its) = (fitted(name, own_architectures(), **changes) for name, changes in (
        ("muscle_mfed", {"lam": 0.0}), ("fedmuscle", {})))
    ours, theirs = parameters(found), parameters(alone)
    assert all(torch.equal(ours[client], theirs[client]) for client in CLIENTS)
    losses = [table.query("metric == 'contrastive_loss'").reset_index(drop=True)["value"] for table in (history, its)]
    assert losses[0].equals(losses[1]) and len(losses[0]) == 3 * len(CLIENTS)


def test_all_of_a_group_begin_alike_before_they_are_aligned(monkeypatch):
    seen, contrast = {}, METHODS["muscle_mfed"].contrast

    def note(self, client, message):
        seen.setdefault(client.name, {name: value.clone() for name, value in client.network.encoder().state_dict().items()})
        return contrast(self, client, message)
    monkeypatch.setattr(METHODS["muscle_mfed"], "contrast", note)
    found = federation(method("muscle_mfed"), two_architectures())
    begun = states(two_architectures(), "encoder")
    found.fit(1, progress=False)
    assert all(equal(seen[client], begun[{"wide": 1, "narrow": 2}[KINDS[client]]]) for client in CLIENTS)
    assert not equal(states(found.clients, "encoder")[1], begun[1])


def test_without_a_contrastive_phase_it_is_m_fed(monkeypatch):
    def none(self, server, round, last=()):
        return {}, {}, (yield list(last))
    monkeypatch.setattr(METHODS["muscle_mfed"], "contrast_phase", none)
    runs = [parameters(fitted(name, two_architectures())[0]) for name in ("muscle_mfed", "mfed_per_architecture")]
    assert all(torch.equal(*(run[client] for run in runs)) for client in CLIENTS)


@pytest.mark.parametrize("refresh", ["batch", "round"])
def test_both_exchanges_are_counted_and_nothing_else(refresh):
    found, history = fitted("muscle_mfed", two_architectures(), refresh=refresh)
    parts = {name: fitted(name, two_architectures(), **changes)[0].ledger for name, changes in (
        ("fedmuscle", {"refresh": refresh}), ("mfed_per_architecture", {}))}
    for client in CLIENTS:
        begin = parts["mfed_per_architecture"].total(1, client)               # down, before the first contrastive phase, too
        both = sum(ledger.total(2, client) for ledger in parts.values())
        assert found.ledger.total(1, client) == begin + both
        for round in (2, 3):
            assert found.ledger.total(round, client) == sum(ledger.total(round, client) for ledger in parts.values()) > 0
    contrasted = history.query("metric == 'contrastive_loss'")
    assert set(contrasted["round"]) == {1, 2, 3} and contrasted["value"].gt(0).all()


def test_clients_of_one_architecture_must_have_one_decoder_a_task():
    clients = two_architectures()
    clients[2] = make_client(3, encoder=of_width(12, 0), head=nn.Linear(6, 3, bias=False))
    federation(method("muscle_mfed"), clients)                                # of another task: its own decoder
    clients[2] = make_client(1, encoder=of_width(12, 0), head=nn.Linear(6, 3, bias=False))
    clients[2].name = 5
    with pytest.raises(ValueError, match="client 5: decoder: got other parameters than client 1 has"):
        federation(method("muscle_mfed"), clients)


@pytest.mark.parametrize(("changes", "message"), [
    ({"peer_choice": "bandit"}, "peer_choice: got 'bandit', expected another"),
    ({"measure_gradients": True}, "measure_gradients: got True, expected False"),
    ({"tau": 0.0}, "tau: got 0.0"), ({"lam": -1.0}, "lam: got -1.0"), ({"num_peers": 0}, "num_peers: got 0"),
])
def test_hyperparameters_of_both_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        muscle_mfed.MuscleMFed(**changes)

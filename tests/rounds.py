"""Runs and single rounds of federations, and what clients hold after them."""

import torch

from fedmuscle_core.experiments.build import build
from fedmuscle_core.experiments.runs import one_thread
from fedmuscle_core.methods.sharing import copied


def fit(settings, parked=None, reverse=False):
    """(history, federation) of `settings`, all rounds played."""
    with one_thread():
        federation = build(settings, parked)
        if reverse:
            federation.clients.reverse()
        return federation.fit(settings.rounds, progress=False), federation


def begun(settings):
    """The federation of `settings`, ready for its first round."""
    federation = build(settings)
    return begin(federation, settings.rounds)


def begin(federation, rounds):
    """Ready for the first of so many rounds."""
    federation.connect()
    federation.server.rounds = rounds
    with one_thread():
        federation.begin()
    return federation


def play(federation, round):
    """What one round of the federation's method returns."""
    federation.server.left_out = {}
    with one_thread():
        return federation.play(federation.method.play(federation.server, round), round)


def states(clients, part):
    """{client: its parameters and buffers of a part}, copied."""
    return {client.name: copied(getattr(client.network, part)()) for client in clients}


def equal(first, second, atol=0.0):
    """Whether two states {name: tensor} agree, up to `atol`, in the types of the first."""
    return first.keys() == second.keys() and all(
        torch.allclose(first[name], second[name].to(first[name].dtype), rtol=0, atol=atol) for name in first)


def vector(client):
    """All that a client's answers go through, as one vector."""
    parts = (*client.network.encoder().parameters(), *client.network.decoder().parameters())
    return torch.cat([part.detach().flatten() for part in parts])

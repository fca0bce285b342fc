"""Gramian: volumes instead of inner products."""

import math

import pytest
import torch
from literal import gramian_loops
from rounds import begun, play

from fedmuscle_core import Gramian
from fedmuscle_core.exchange import bytes_per_step


def test_the_loss_is_that_of_what_was_served():
    rng = torch.Generator().manual_seed(0)
    anchor, *peers = torch.nn.functional.normalize(torch.randn(4, 5, 6, generator=rng, dtype=torch.float64), dim=2)
    found = Gramian(tau=0.1)
    payload = found.serve(torch.stack(peers), ["", "", "", ""])
    loss = found.loss(None, anchor, payload, None, (1, 0))
    assert loss.item() == pytest.approx(gramian_loops(anchor, peers, 0.1, 1e-6).mean().item(), abs=1e-10)


def test_matching_vectors_find_each_other(tiny, monkeypatch):
    """Mean loss over the clients, round by round of contrastive phases: the last below the first and below not knowing."""
    monkeypatch.setattr(Gramian, "local", lambda self, client, message: {"local_loss": 0.0})
    found = begun(tiny(method="gramian", public_size=128, contrastive_epochs=2))
    losses = [sum(play(found, round)["contrastive_loss"].values()) / 3 for round in range(1, 5)]
    assert losses[-1] < losses[0] - 0.05 and losses[-1] < math.log(8)
    expected = 2 * 16 * sum(bytes_per_step(8, 2, 64, "matrices"))
    assert found.ledger.total(1, 1) == expected

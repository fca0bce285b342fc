"""SimCLR: two views of the public batches, alone."""

import pytest
import torch
from rounds import begun
from small_clients import federation, method
from small_clients import fit as small_fit

from fedmuscle_core.methods import simclr


def test_views_of_a_sample_find_each_other_and_the_head_stays(tiny):
    found = begun(tiny(method="simclr", public_size=128, contrastive_epochs=2, batch_size=16))
    client = found.clients[0]
    head = client.network.head.weight.clone()
    first, _, last = (found.method.contrast(client, round) for round in (1, 2, 3))
    assert last < first - 0.1 and torch.equal(head, client.network.head.weight)


@pytest.mark.parametrize(("steps", "half"), [(4, 2), (3, 2), (1, 1)])
def test_with_equal_samples_it_takes_every_second_batch(steps, half):
    every, samples = (method(name, contrastive_steps=steps) for name in ("simclr", "simclr_samples"))
    assert (every.num_batches(64), samples.num_batches(64)) == (steps, half)
    assert torch.equal(torch.stack(samples.public_batches(0, 64, 1)[0]), torch.stack(every.public_batches(0, 64, 1)[0][:half]))
    found = federation(samples)
    small_fit(found, 1)
    assert len(found.method.rows(found.clients[0], 1)) == half


def test_nothing_is_exchanged_and_every_client_has_a_loss():
    found = federation(method("simclr"))
    history = small_fit(found, 2)
    assert found.ledger.entries == {} and set(history["bytes"]) == {0}
    assert set(history[history["metric"] == "contrastive_loss"]["client"]) == {1, 2, 3, 4}


def test_both_views_are_of_the_batch_and_the_client_s_own(monkeypatch):
    seen, nt_xent = [], simclr.nt_xent
    monkeypatch.setattr(simclr, "nt_xent", lambda first, second, tau: seen.append((first, second, tau)) or nt_xent(
        first, second, tau=tau))
    found = federation(method("simclr", tau=0.4), plain=True)
    for client in found.clients[:2]:
        found.method.contrast(client, 1)
    assert len(seen) == 4 and all(first.shape == second.shape == (8, 6) and tau == 0.4 for first, second, tau in seen)
    client, (first, second, _) = found.clients[0], seen[0]
    assert not torch.equal(first, second)
    rows = found.method.rows(client, 1)[0]
    for number, view in ((0, first), (1, second)):
        batch = simclr.public_batch(client, rows, True, "simclr", 1, 1, 0, number)
        others = simclr.public_batch(client, rows, True, "simclr", 2, 1, 0, number)
        assert not torch.equal(batch, others) and view.requires_grad


def test_the_loss_is_the_mean_over_the_batches(monkeypatch):
    taken, step = [], simclr.step
    monkeypatch.setattr(simclr, "step", lambda optimizer, loss: taken.append(step(optimizer, loss)) or taken[-1])
    found = federation(method("simclr", contrastive_epochs=2))
    assert found.method.contrast(found.clients[0], 1) == pytest.approx(sum(taken) / 4) and len(set(taken)) == 4

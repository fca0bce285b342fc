"""The controls of learned alpha against literal loops, and where they are the loss they control for."""

import itertools

import pytest
import torch
from literal import muscle_loops, unit
from small_clients import federation, method
from small_clients import fit as small_fit

from fedmuscle_core.losses import info_nce, muscle_loss
from fedmuscle_core.methods import ConstantMargin, ShuffledAlpha, alpha_controls
from fedmuscle_core.methods.alpha_controls import margin_loss, shuffled_loss


def rows(num_peers=3, batch_size=4, dim=6):
    draws = unit(torch.randn(1 + num_peers, batch_size, dim, generator=torch.Generator().manual_seed(0), dtype=torch.float64))
    return draws[0].clone().requires_grad_(), draws[1:]


@pytest.mark.parametrize("margin", [0.0, 1.5])
def test_the_margin_is_taken_off_the_positives_alone(margin):
    anchor, peers = rows()
    losses = []
    for i, peer in itertools.product(range(4), peers):
        logits = [anchor[i] @ peer[j] / 0.3 - margin * (i == j) for j in range(4)]
        losses.append(torch.logsumexp(torch.stack(logits), 0) - logits[i])
    loss = margin_loss(anchor, peers, 0.3, margin)
    assert loss.item() == pytest.approx(sum(losses).item() / 4, rel=1e-12)
    if not margin:
        assert loss.item() == pytest.approx(sum(info_nce(anchor, peer, tau=0.3).item() for peer in peers), rel=1e-12)


def test_the_shuffled_loss_sums_the_same_weights_over_other_tuples(monkeypatch):
    anchor, peers = rows()
    noted, pair_log_alpha = [], alpha_controls.pair_log_alpha
    monkeypatch.setattr(alpha_controls, "pair_log_alpha", lambda *args: noted.append(pair_log_alpha(*args)) or noted[-1])
    evaluated, exact = [], alpha_controls.exact
    monkeypatch.setattr(alpha_controls, "exact", lambda logits, table: evaluated.append(table) or exact(logits, table))
    loss = shuffled_loss(anchor, peers, 0.2, 0.1, torch.Generator().manual_seed(1))
    (before,), (table,) = noted, evaluated
    assert torch.equal(table.flatten(2).sort(2).values, before.flatten(2).sort(2).values) and not torch.equal(table, before)
    total = 0.0
    for i in range(4):
        logits = {j: sum(anchor[i] @ peers[m][j[m]] / 0.2 for m in range(3)) + sum(
            table[m, k, j[m], j[k]] for m, k in itertools.combinations(range(3), 2))
            for j in itertools.product(range(4), repeat=3)}
        total += torch.logsumexp(torch.stack(list(logits.values())), 0) - logits[i, i, i]
    assert loss.item() == pytest.approx(total.item() / 4, rel=1e-12)
    ours, theirs = (torch.autograd.grad(value, anchor)[0] for value in (loss, total / 4))
    assert torch.allclose(ours, theirs, atol=1e-12)


def test_in_the_right_order_it_is_the_muscle_loss(monkeypatch):
    anchor, peers = rows()
    monkeypatch.setattr(torch, "rand", lambda shape, generator: torch.arange(shape[-1]).expand(shape).double())
    ordered = shuffled_loss(anchor, peers, 0.2, 0.15, None)
    assert ordered.item() == pytest.approx(muscle_loops(anchor, peers).mean().item(), rel=1e-10)
    assert ordered.item() == pytest.approx(muscle_loss(anchor, peers).item(), rel=1e-10)


def test_they_train_and_their_hyperparameters_matter():
    losses = {}
    for name, changes in (("constant_margin", {"margin": 0.0}), ("constant_margin", {"margin": 2.0}), ("pairwise", {}),
                          ("shuffled_alpha", {}), ("fedmuscle", {})):
        history = small_fit(federation(method(name, **changes)), 1)
        losses[name, *changes.values()] = history[history["metric"] == "contrastive_loss"]["value"].sum()
    assert losses["constant_margin", 0.0] == pytest.approx(losses["pairwise",], rel=1e-5)
    assert len({round(loss, 6) for loss in losses.values()}) == 4
    again = small_fit(federation(method("shuffled_alpha")), 1)
    assert again[again["metric"] == "contrastive_loss"]["value"].sum() == losses["shuffled_alpha",]


@pytest.mark.parametrize(("make", "message"), [
    (lambda: ConstantMargin(margin="1"), "margin: got '1'"), (lambda: ConstantMargin(margin=-1), "margin: got -1"),
    (lambda: ConstantMargin(protocol="tuples"), "protocol: got 'tuples'"),
    (lambda: ShuffledAlpha(protocol="tuples"), "protocol: got 'tuples'"),
    (lambda: ShuffledAlpha(num_samples=8), "num_samples: got 8"),
    (lambda: ConstantMargin(tau_cross=0.5), "tau_cross: got 0.5, expected None with Constant margin"),
    (lambda: ShuffledAlpha(tau_cross=0.5), "tau_cross: got 0.5, expected None with Shuffled alpha"),
])
def test_what_they_cannot_do_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

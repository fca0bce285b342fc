import pytest
import torch
from literal import muscle_tuples, per_pair, unit

from fedmuscle_core.exchange import Ledger, bytes_per_step, downlink, loss_from_downlink, tuple_payload


def draw(num_peers, batch_size, dim=6):
    rng = torch.Generator().manual_seed(num_peers)
    anchor = torch.randn(batch_size, dim, generator=rng, dtype=torch.float64)
    peers = torch.randn(num_peers, batch_size, dim, generator=rng, dtype=torch.float64)
    return unit(anchor).requires_grad_(), unit(peers)


@pytest.mark.parametrize("num_peers", [1, 2, 3])
@pytest.mark.parametrize("weighting", ["learned", "uniform"])
@pytest.mark.parametrize("temperatures", ["numbers", "per pair"])
def test_both_protocols_give_the_same_loss_and_gradient(num_peers, weighting, temperatures):
    anchor, peers = draw(num_peers, 5)
    tau, tau_prev = (0.2, 0.15) if temperatures == "numbers" else per_pair(num_peers)
    losses, gradients = [], []
    for protocol in ("matrices", "tuples"):
        payload = downlink(peers, protocol, tau, tau_prev, weighting)
        losses.append(loss_from_downlink(anchor, payload, protocol, tau, tau_prev, weighting))
        gradients.append(torch.autograd.grad(losses[-1], anchor)[0])
    assert losses[0].item() == pytest.approx(losses[1].item(), abs=1e-12)
    assert torch.allclose(*gradients, atol=1e-12)
    literal = muscle_tuples(anchor, peers, tau, tau_prev, weighting == "learned").mean()
    assert losses[1].item() == pytest.approx(literal.item(), abs=1e-12)


@pytest.mark.parametrize("protocol", ["matrices", "tuples"])
@pytest.mark.parametrize(("num_peers", "batch_size", "dim"), [(1, 4, 8), (2, 5, 3), (3, 4, 16)])
def test_the_ledger_agrees_with_the_closed_form(protocol, num_peers, batch_size, dim):
    ledger = Ledger()
    z = torch.nn.functional.normalize(torch.randn(num_peers + 1, batch_size, dim), dim=2)
    for _ in range(3):
        ledger.send(z[0], round=1, client=7, direction="up")
        ledger.send(downlink(z[1:], protocol, 0.2, 0.15), round=1, client=7, direction="down")
    up, down = bytes_per_step(batch_size, num_peers, dim, protocol)
    assert ledger.table().set_index("direction")["bytes"].to_dict() == {"up": 3 * up, "down": 3 * down}
    assert ledger.total(1, 7) == 3 * (up + down)
    assert ledger.total(2, 7) == ledger.total(1, 8) == 0


def test_closed_form_at_the_papers_size():
    """B = 32, d = 256: M = 3 takes 96 KiB or about 32 MiB down, M = 5 160 KiB or about 32 GiB."""
    assert bytes_per_step(32, 3, 256, "matrices") == (32 * 2 ** 10, 96 * 2 ** 10)
    assert bytes_per_step(32, 5, 256, "matrices")[1] == 160 * 2 ** 10
    assert bytes_per_step(32, 3, 256, "tuples")[1] == 32 ** 3 * 257 * 4
    assert bytes_per_step(32, 5, 256, "tuples")[1] / 2 ** 30 == pytest.approx(32, rel=0.005)


def test_the_tuple_payload_holds_every_tuple_in_order():
    _, peers = draw(2, 3)
    sums, log_alpha = tuple_payload(peers, 0.2, 0.15)
    assert sums.shape == (9, 6) and log_alpha.shape == (9,)
    assert torch.allclose(sums[1 * 3 + 2], (peers[0, 1] + peers[1, 2]) / 0.2)
    assert log_alpha[1 * 3 + 2].item() == pytest.approx(-(1 / 0.15 - 1 / 0.2) * float(peers[0, 1] @ peers[1, 2]))


def test_bad_input_names_the_argument():
    _, peers = draw(2, 3)
    with pytest.raises(ValueError, match="protocol: got 'pigeons', expected one of"):
        downlink(peers, "pigeons", 0.2, 0.15)
    with pytest.raises(ValueError, match="protocol: got 'pigeons'"):
        bytes_per_step(32, 3, 256, "pigeons")
    with pytest.raises(ValueError, match="direction: got 'sideways'"):
        Ledger().send(peers, round=1, client=1, direction="sideways")

import pytest
import torch
from literal import muscle_tuples, per_pair, unit

from fedmuscle_core.exchange import (
    Ledger,
    bytes_per_step,
    downlink,
    expect,
    loss_from_downlink,
    size_of,
    tuple_payload,
)


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
        ledger.send({"representations": z[0]}, round=1, client=7, direction="up")
        ledger.send({"payloads": [downlink(z[1:], protocol, 0.2, 0.15)]}, round=1, client=7, direction="down")
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


def test_tensors_count_wherever_they_are_in_a_message_and_nothing_else_does():
    wide, narrow = torch.zeros(3, 2), torch.zeros(5, dtype=torch.int16)
    assert size_of(wide) == 24 and size_of(narrow) == 10 and size_of(torch.tensor(1.0)) == 4
    assert size_of({"a": [wide, (narrow, {"b": wide})], "round": 3, "loss": 0.5, "split": "test", "no": None}) == 58


def test_the_ledger_hands_the_message_on_and_leaves_out_what_is_measured():
    ledger, message = Ledger(), {"gradient": torch.zeros(7), "state": torch.zeros(2)}
    assert ledger.send(message, round=2, client="birds", direction="up", uncounted=("gradient",)) is message
    assert ledger.send({"round": 2}, round=2, client="birds", direction="down") == {"round": 2}
    assert ledger.entries == {(2, "birds", "up"): 8} and ledger.total(2, "birds") == 8


LIKE = {"weight": torch.zeros(2, 3), "count": torch.zeros((), dtype=torch.long)}
GOOD = {"weight": torch.ones(2, 3), "count": torch.tensor(4), "loss": 0.5}


def test_a_reply_with_the_tensors_expected_passes_and_what_is_no_tensor_is_not_looked_at():
    expect(GOOD, LIKE)
    expect({"weight": torch.ones(2, 3).double()}, {"weight": torch.empty(2, 3, device="meta").double()})


@pytest.mark.parametrize(("change", "message"), [
    ({"weight": torch.ones(3, 2)}, r"got 'weight' as float32 of shape \(3, 2\), expected float32 of shape \(2, 3\)"),
    ({"weight": torch.ones(2, 3).double()}, r"got 'weight' as float64 of shape \(2, 3\), expected float32 of shape"),
    ({"weight": None}, r"got NoneType as 'weight', expected float32 of shape \(2, 3\)"),
    ({"weight": [[1.0]]}, "got list as 'weight', expected float32"),
    ({"bias": torch.ones(2)}, r"got float32 of shape \(2,\) as 'bias', expected no such thing"),
    ({"note": "word"}, "got str as 'note', expected no such thing"),
    ({"weight": torch.ones(2, 3, device="meta")}, "got a tensor that is sparse, empty or has a graph as 'weight'"),
    ({"weight": torch.ones(2, 3).to_sparse()}, "got a tensor that is sparse, empty or has a graph as 'weight'"),
    ({"weight": torch.ones(2, 3, requires_grad=True)}, "got a tensor that is sparse, empty or has a graph as 'weight'"),
    ({"weight": torch.tensor([[1, 2, 3], [4, 5, torch.nan]])}, "got NaN or infinity in 'weight', expected finite numbers"),
    ({"weight": torch.full((2, 3), -torch.inf)}, "got NaN or infinity in 'weight'"),
])
def test_a_reply_with_other_tensors_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        expect(GOOD | change, LIKE)


def test_a_missing_tensor_is_named():
    with pytest.raises(ValueError, match=r"got nothing as 'count', expected int64 of shape \(\)"):
        expect({"weight": GOOD["weight"]}, LIKE)


def test_bad_input_names_the_argument():
    _, peers = draw(2, 3)
    with pytest.raises(ValueError, match="protocol: got 'pigeons', expected one of"):
        downlink(peers, "pigeons", 0.2, 0.15)
    with pytest.raises(ValueError, match="protocol: got 'pigeons'"):
        bytes_per_step(32, 3, 256, "pigeons")
    with pytest.raises(ValueError, match="direction: got 'sideways'"):
        Ledger().send({"peers": peers}, round=1, client=1, direction="sideways")

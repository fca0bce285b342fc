import pytest
import torch

from fedmuscle_core import muscle_loss, tuple_sum


def draw(num_peers, batch_size, dtype=torch.float64):
    rng = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(num_peers, batch_size, batch_size, generator=rng, dtype=dtype)
    return logits, torch.randn(num_peers, num_peers, batch_size, batch_size, generator=rng, dtype=dtype)


@pytest.mark.parametrize("block", [1, 30, 10 ** 9])
@pytest.mark.parametrize("num_peers", [1, 2, 3, 4])
def test_walking_over_blocks_changes_nothing(monkeypatch, num_peers, block):
    logits, log_alpha = draw(num_peers, 5)
    whole = tuple_sum.exact(logits, log_alpha)
    monkeypatch.setattr(tuple_sum, "BLOCK", block)
    for got, wanted in zip(tuple_sum.exact(logits, log_alpha), whole, strict=True):
        assert torch.allclose(got, wanted, atol=1e-12)


@pytest.mark.parametrize("num_peers", [1, 2, 3, 4])
def test_marginals_are_the_derivative_and_sum_to_one(num_peers):
    logits, log_alpha = draw(num_peers, 3)
    _, marginals = tuple_sum.exact(logits, log_alpha)
    assert torch.allclose(marginals.sum(2), torch.ones(num_peers, 3, dtype=torch.float64), atol=1e-12)
    step = 1e-6
    for m, i, j in [(0, 0, 0), (num_peers - 1, 2, 1)]:
        up, down = logits.clone(), logits.clone()
        up[m, i, j] += step
        down[m, i, j] -= step
        slope = (tuple_sum.exact(up, log_alpha)[0] - tuple_sum.exact(down, log_alpha)[0])[i] / (2 * step)
        assert slope.item() == pytest.approx(marginals[m, i, j].item(), abs=1e-7)


def test_without_gradients_the_loss_is_the_same():
    anchor, peers = torch.eye(3).requires_grad_(), [torch.eye(3)] * 2
    with torch.no_grad():
        loss = muscle_loss(anchor, peers)
    assert not loss.requires_grad and loss == muscle_loss(anchor, peers)


def test_extreme_temperatures_neither_underflow_nor_overflow():
    """gamma near 100: log alpha spans more than float32 can hold, so the sum is taken in float64."""
    rng = torch.Generator().manual_seed(0)
    anchor, peers = torch.randn(6, 4, generator=rng), torch.randn(3, 6, 4, generator=rng)
    single = muscle_loss(anchor, peers, tau=0.2, tau_prev=0.0095)
    double = muscle_loss(anchor.double(), peers.double(), tau=0.2, tau_prev=0.0095)
    assert single.item() == pytest.approx(double.item(), rel=1e-5)
    sharp = muscle_loss(anchor, peers, tau=0.002, tau_prev=0.002)
    double = muscle_loss(anchor.double(), peers.double(), tau=0.002, tau_prev=0.002)
    assert sharp.item() == pytest.approx(double.item(), rel=1e-4)


def test_memory_stays_bounded(monkeypatch):
    """B = 24, M = 4, 331,776 tuples: no tensor of the evaluation is larger than the block."""
    monkeypatch.setattr(tuple_sum, "BLOCK", 50_000)
    largest = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest.append(result.numel())
            return result

    rng = torch.Generator().manual_seed(0)
    anchor, peers = torch.randn(24, 64, generator=rng), torch.randn(4, 24, 64, generator=rng)
    with Watch():
        muscle_loss(anchor.requires_grad_(), peers)
    assert 25_000 < max(largest) <= 50_000

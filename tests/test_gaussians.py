import math

import pytest
import torch

from fedmuscle_core import mi_lower_bound, muscle_loss
from fedmuscle_core.gaussians import exact_critic, excess_over_information, mutual_information, sample


def covariance(rho, n):
    return rho * torch.ones(n, n, dtype=torch.float64) + (1 - rho) * torch.eye(n, dtype=torch.float64)


@pytest.mark.parametrize("num_models", [2, 3, 4])
@pytest.mark.parametrize("rho", [0.2, 0.8])
def test_the_critic_is_the_log_density_ratio(num_models, rho):
    """logit_i(j) = log p(x_1 = i | peers = j) - log p(x_1 = i) + what depends on i alone."""
    x = sample(rho, num_models, 2, 3, torch.Generator().manual_seed(0))
    anchor, peers, tau, tau_prev = exact_critic(x, rho)

    def logit(i, tuple_):
        gamma = 1 / tau_prev - 1 / tau
        rows = [peers[m, j] for m, j in enumerate(tuple_)]
        pairs = [rows[m] @ rows[k] for m in range(len(rows)) for k in range(m + 1, len(rows))]
        return sum(anchor[i] @ row for row in rows) / tau - gamma * sum(pairs)

    def log_density(values):
        n = len(values)
        normal = torch.distributions.MultivariateNormal(torch.zeros(n, dtype=torch.float64), covariance(rho, n))
        return normal.log_prob(torch.stack(values, 1)).sum()

    first, second = (0,) * (num_models - 1), (1,) + (0,) * (num_models - 2)
    for i in (0, 1):
        expected = [log_density([x[0, i], *(x[m + 1, j] for m, j in enumerate(t))])
                    - (log_density([x[m + 1, j] for m, j in enumerate(t)])) for t in (first, second)]
        assert (logit(i, first) - logit(i, second)).item() == pytest.approx((expected[0] - expected[1]).item(), abs=1e-9)


def test_the_sample_has_the_stated_correlation():
    x = sample(0.6, 3, 50_000, 1, torch.Generator().manual_seed(0))[..., 0]
    assert torch.allclose(x.cov(), covariance(0.6, 3), atol=0.03)
    with pytest.raises(ValueError, match="rho: got 1"):
        sample(1, 3, 4, 1, torch.Generator())


def test_mutual_information_from_determinants():
    for n in (2, 3, 5):
        expected = -2 / 2 * (torch.logdet(covariance(0.4, n)) - torch.logdet(covariance(0.4, n - 1))).item()
        assert mutual_information(0.4, n, 2) == pytest.approx(expected)
    assert mutual_information(0.4, 2, 1) == pytest.approx(-0.5 * math.log(1 - 0.16))


def bound(rho, num_models, batch_size, batches, weighting="learned"):
    rng = torch.Generator().manual_seed(7)
    losses = []
    for _ in range(batches):
        anchor, peers, tau, tau_prev = exact_critic(sample(rho, num_models, batch_size, 2, rng), rho)
        losses.append(muscle_loss(anchor, peers, tau=tau, tau_prev=tau_prev, weighting=weighting, normalize=False))
    losses = torch.stack(losses)
    return mi_lower_bound(losses, batch_size, num_models - 1), 3 * losses.std().item() / batches ** 0.5


@pytest.mark.parametrize("rho", [0.4, 0.8])
def test_one_peer_the_bound_is_below_the_information_and_near_it(rho):
    assert excess_over_information(rho, 2, 2) == pytest.approx(0, abs=1e-12)
    value, error = bound(rho, 2, 128, 60)
    assert value - error < mutual_information(rho, 2, 2)
    assert value + error > 0.9 * mutual_information(rho, 2, 2)


@pytest.mark.parametrize(("rho", "num_models"), [(0.4, 3), (0.8, 3), (0.8, 4)])
def test_several_peers_the_bound_stays_below_information_plus_excess(rho, num_models):
    truth, excess = mutual_information(rho, num_models, 2), excess_over_information(rho, num_models, 2)
    value, error = bound(rho, num_models, 64, 60)
    assert value - error < truth + excess
    assert value + error > 0.9 * truth
    uniform, error = bound(rho, num_models, 64, 60, "uniform")
    assert uniform - error > truth + excess      # alpha = 1 counts what the peers share more than once

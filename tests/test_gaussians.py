import math

import pytest
import torch

from fedmuscle_core import mi_lower_bound, muscle_loss
from fedmuscle_core.world.gaussians import (
    exact_critic,
    excess_over_information,
    mutual_information,
    pair_critic,
    sample,
    sum_of_pairs,
)


def covariance(rho, n, among=None):
    among = rho if among is None else among
    matrix = among * torch.ones(n, n, dtype=torch.float64) + (1 - among) * torch.eye(n, dtype=torch.float64)
    matrix[0, 1:] = matrix[1:, 0] = rho
    return matrix


@pytest.mark.parametrize("num_models", [2, 3, 4])
@pytest.mark.parametrize(("rho", "among"), [(0.2, None), (0.8, None), (0.4, 0.0), (0.5, 0.9)])
def test_the_critic_is_the_log_density_ratio(num_models, rho, among):
    """logit_i(j) = log p(x_1 = i | peers = j) - log p(x_1 = i) + what depends on i alone."""
    x = sample(rho, num_models, 2, 3, torch.Generator().manual_seed(0), among)
    anchor, peers, tau, tau_prev = exact_critic(x, rho, among)

    def logit(i, tuple_):
        gamma = 1 / tau_prev - 1 / tau
        rows = [peers[m, j] for m, j in enumerate(tuple_)]
        pairs = [rows[m] @ rows[k] for m in range(len(rows)) for k in range(m + 1, len(rows))]
        return sum(anchor[i] @ row for row in rows) / tau - gamma * sum(pairs)

    def log_density(values, models):
        n = len(values)
        matrix = covariance(rho, num_models, among)[models][:, models]
        normal = torch.distributions.MultivariateNormal(torch.zeros(n, dtype=torch.float64), matrix)
        return normal.log_prob(torch.stack(values, 1)).sum()

    first, second = (0,) * (num_models - 1), (1,) + (0,) * (num_models - 2)
    for i in (0, 1):
        expected = [log_density([x[0, i], *(x[m + 1, j] for m, j in enumerate(t))], slice(None))
                    - log_density([x[m + 1, j] for m, j in enumerate(t)], slice(1, None)) for t in (first, second)]
        assert (logit(i, first) - logit(i, second)).item() == pytest.approx((expected[0] - expected[1]).item(), abs=1e-9)


def test_the_sample_has_the_stated_correlation():
    x = sample(0.6, 3, 50_000, 1, torch.Generator().manual_seed(0))[..., 0]
    assert torch.allclose(x.cov(), covariance(0.6, 3), atol=0.03)
    x = sample(0.5, 3, 50_000, 1, torch.Generator().manual_seed(0), among=0.1)[..., 0]
    assert torch.allclose(x.cov(), covariance(0.5, 3, 0.1), atol=0.03)
    with pytest.raises(ValueError, match="rho: got 1"):
        sample(1, 3, 4, 1, torch.Generator())
    with pytest.raises(ValueError, match="among: got 1"):
        sample(0.5, 3, 4, 1, torch.Generator(), among=1)
    with pytest.raises(ValueError, match="rho: got 0.8, impossible with 2 peers that correlate by 0"):
        mutual_information(0.8, 3, 1, among=0)


def test_mutual_information_from_determinants():
    for n in (2, 3, 5):
        expected = -2 / 2 * (torch.logdet(covariance(0.4, n)) - torch.logdet(covariance(0.4, n - 1))).item()
        assert mutual_information(0.4, n, 2) == pytest.approx(expected)
    assert mutual_information(0.4, 2, 1) == pytest.approx(-0.5 * math.log(1 - 0.16))
    for among in (0.0, 0.7):
        whole, prev = covariance(0.4, 4, among), covariance(0.4, 4, among)[1:, 1:]
        assert mutual_information(0.4, 4, 2, among) == pytest.approx((torch.logdet(prev) - torch.logdet(whole)).item())
    assert sum_of_pairs(0.4, 4, 2) == pytest.approx(-3 * math.log(1 - 0.16))


def test_independent_peers_have_no_excess_and_know_more_together_redundant_ones_less():
    assert excess_over_information(0.5, 4, 2, among=0) == pytest.approx(0, abs=1e-12)
    assert excess_over_information(0.5, 4, 2, among=0.8) > 0.01
    assert mutual_information(0.5, 4, 2, among=0) > sum_of_pairs(0.5, 4, 2) > mutual_information(0.5, 4, 2, among=0.8)


def test_the_pair_critic_is_each_pairs_log_density_ratio():
    x = sample(0.5, 3, 4, 2, torch.Generator().manual_seed(0), among=0.2)
    anchor, peers, tau = pair_critic(x, 0.5)
    for m in (0, 1):
        slope = torch.distributions.Normal(0.5 * x[m + 1], (1 - 0.25) ** 0.5)
        exact = torch.stack([slope.log_prob(row).sum(1) for row in x[0]])     # (anchors, peer's samples)
        logits = anchor @ peers[m].T / tau
        assert torch.allclose(logits - logits[:, :1], exact - exact[:, :1])


def test_with_independent_peers_the_bound_comes_near_the_information_and_alpha_1_falls_short():
    rng, learned, uniform = torch.Generator().manual_seed(1), [], []
    for _ in range(40):
        x = sample(0.5, 4, 64, 2, rng, among=0)
        anchor, peers, tau, tau_prev = exact_critic(x, 0.5, 0)
        learned.append(muscle_loss(anchor, peers, tau=tau, tau_prev=tau_prev, normalize=False).item())
        anchor, peers, tau = pair_critic(x, 0.5)
        uniform.append(muscle_loss(anchor, peers, tau=tau, weighting="uniform", normalize=False).item())
    truth = mutual_information(0.5, 4, 2, among=0)
    assert mi_lower_bound(sum(learned) / 40, 64, 3) == pytest.approx(truth, rel=0.1)
    assert mi_lower_bound(sum(uniform) / 40, 64, 3) == pytest.approx(sum_of_pairs(0.5, 4, 2), rel=0.1)
    assert sum_of_pairs(0.5, 4, 2) < 0.7 * truth


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

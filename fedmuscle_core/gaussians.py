"""Equicorrelated Gaussians: representations whose mutual information, and whose best temperatures, are known exactly.

N models see x_1..x_N in R^dim; every coordinate has unit variance and correlation rho between any two models.  For this
law the log-density ratio that the Muscle loss is built on is itself of the loss's form, with

    1/tau      = -Lambda_N     = rho / ((1 - rho)(1 + (N - 1) rho))         Lambda_n: off-diagonal precision of n models
    1/tau_prev = -Lambda_{N-1} = rho / ((1 - rho)(1 + (N - 2) rho))

so tau_prev < tau, as the paper asks.
"""

import math

import torch
import torch.nn.functional as F


def sample(rho, num_models, batch_size, dim, rng):
    """(N, B, dim) float64; rng: `torch.Generator`.  Raises ValueError unless 0 < rho < 1."""
    if not 0 < rho < 1:
        raise ValueError(f"rho: got {rho}, expected a correlation between 0 and 1, both excluded")
    common = torch.randn(1, batch_size, dim, generator=rng, dtype=torch.float64)
    own = torch.randn(num_models, batch_size, dim, generator=rng, dtype=torch.float64)
    return math.sqrt(rho) * common + math.sqrt(1 - rho) * own


def mutual_information(rho, num_models, dim):
    """I(x_1; x_2..x_N) in nats: -dim/2 log(det C_N / det C_{N-1}) with C_n the equicorrelation matrix."""
    return -dim / 2 * (_log_det(rho, num_models) - _log_det(rho, num_models - 1))


def excess_over_information(rho, num_models, dim):
    """KL(p(x_1) || p'(x_1)) in nats, p' the law of x_1 when its peers are drawn independently of one another.

    The tuples of the loss mix peers' samples, so its negatives follow the product of the peers' marginals, not their
    joint law.  With the exact critic, M log B - E[L] therefore tends to I + this as B grows; it is 0 for one peer.
    """
    slope = rho / (1 + (num_models - 2) * rho)                                # regression of x_1 on each peer
    explained = (num_models - 1) * slope * rho
    variance = 1 - explained + (num_models - 1) * slope ** 2                  # of x_1 under p'
    return dim / 2 * (1 / variance - 1 + math.log(variance))


def exact_critic(x, rho):
    """(anchor, peers, tau, tau_prev) for `muscle_loss(..., normalize=False)` whose logits are log p(x_1 | peers) / p(x_1).

    x: (N, B, dim).  The squares of the density ratio ride in extra coordinates, one a peer: anchor (B, dim + M) and
    peers (M, B, dim + M); two peers never share one, so their product stays x_m . x_k.
    """
    num_models, batch_size, _ = x.shape
    num_peers = num_models - 1
    (diagonal, across), (diagonal_prev, across_prev) = _precision(rho, num_models), _precision(rho, num_peers)
    tau, tau_prev = -1 / across, -1 / across_prev if num_peers > 1 else -1 / across
    squares = -0.5 * (diagonal - diagonal_prev) * (x[1:] ** 2).sum(2) * tau   # (M, B)
    places = F.one_hot(torch.arange(num_peers)).to(x)                         # (M, M)
    anchor = torch.cat([x[0], x.new_ones(batch_size, num_peers)], 1)
    return anchor, torch.cat([x[1:], squares[:, :, None] * places[:, None]], 2), tau, tau_prev


def _log_det(rho, n):
    return (n - 1) * math.log(1 - rho) + math.log(1 + (n - 1) * rho)


def _precision(rho, n):
    """(diagonal, off-diagonal) of the inverse of the (n, n) equicorrelation matrix."""
    scale = (1 - rho) * (1 + (n - 1) * rho)
    return (1 + (n - 2) * rho) / scale, -rho / scale

"""Correlated Gaussians: representations whose mutual information, and whose best temperatures, are known exactly.

An anchor x_1 and M = N - 1 peers in R^dim; every coordinate has unit variance, correlation rho between anchor and each peer,
and `among` between any two peers (rho where it is not given): from 0, independent peers, to near 1, redundant ones.  With

    b = rho / (1 + (M - 1) among),   s = 1 - M rho b         x_1 given its peers is normal, mean b sum_m x_m, variance s

the log-density ratio that the Muscle loss is built on is itself of the loss's form, with

    1/tau = b / s,   gamma = b^2 / s,   1/tau_prev = (b + b^2) / s         so tau_prev < tau, as the paper asks.
"""

import math

import torch
import torch.nn.functional as F


def sample(rho, num_models, batch_size, dim, rng, among=None):
    """(N, B, dim) float64, the anchor first; rng: `torch.Generator`.  Raises ValueError for impossible correlations."""
    slope, variance = _conditional(rho, num_models, among)
    among = rho if among is None else among
    common = torch.randn(1, batch_size, dim, generator=rng, dtype=torch.float64)
    own = torch.randn(num_models, batch_size, dim, generator=rng, dtype=torch.float64)
    peers = math.sqrt(among) * common + math.sqrt(1 - among) * own[1:]
    return torch.cat([slope * peers.sum(0, keepdim=True) + math.sqrt(variance) * own[:1], peers])


def mutual_information(rho, num_models, dim, among=None):
    """I(x_1; x_2..x_N) = -dim/2 log s, in nats."""
    return -dim / 2 * math.log(_conditional(rho, num_models, among)[1])


def sum_of_pairs(rho, num_models, dim):
    """sum_m I(x_1; x_m) in nats: what the pairwise losses can show at best; it does not see how alike the peers are."""
    return (num_models - 1) * mutual_information(rho, 2, dim)


def excess_over_information(rho, num_models, dim, among=None):
    """KL(p(x_1) || p'(x_1)) in nats, p' the law of x_1 when its peers are drawn independently of one another.

    The tuples of the loss mix peers' samples, so its negatives follow the product of the peers' marginals, not their
    joint law.  With the exact critic, M log B - E[L] therefore tends to I + this as B grows; it is 0 for one peer and for
    independent ones.
    """
    slope, variance = _conditional(rho, num_models, among)
    spread = variance + (num_models - 1) * slope ** 2                         # variance of x_1 under p'
    return dim / 2 * (1 / spread - 1 + math.log(spread))


def exact_critic(x, rho, among=None):
    """(anchor, peers, tau, tau_prev) for `muscle_loss(..., normalize=False)` whose logits are log p(x_1 | peers) / p(x_1).

    x: (N, B, dim).  The squares of the density ratio ride in extra coordinates, one a peer: anchor (B, dim + M) and
    peers (M, B, dim + M); two peers never share one, so their product stays x_m . x_k.
    """
    slope, variance = _conditional(rho, len(x), among)
    tau, tau_prev = variance / slope, variance / (slope + slope ** 2)
    return *_with_squares(x, -slope / 2), tau, tau_prev


def pair_critic(x, rho):
    """(anchor, peers, tau) for `muscle_loss(..., weighting="uniform", normalize=False)` whose logits are, peer by peer, the
    exact log p(x_1 | x_m) / p(x_1)."""
    return *_with_squares(x, -rho / 2), (1 - rho ** 2) / rho


def _with_squares(x, weight):
    """Anchor and peers such that anchor . peer_m = x_1 . x_m + weight |x_m|^2, products of two peers unchanged."""
    num_peers, batch_size = len(x) - 1, x.shape[1]
    places = F.one_hot(torch.arange(num_peers)).to(x)                         # (M, M)
    squares = weight * (x[1:] ** 2).sum(2)                                    # (M, B)
    return (torch.cat([x[0], x.new_ones(batch_size, num_peers)], 1),
            torch.cat([x[1:], squares[:, :, None] * places[:, None]], 2))


def _conditional(rho, num_models, among):
    """(b, s): slope on each peer, and variance, of x_1 given its peers."""
    if not 0 < rho < 1:
        raise ValueError(f"rho: got {rho}, expected a correlation between 0 and 1, both excluded")
    among = rho if among is None else among
    if not 0 <= among < 1:
        raise ValueError(f"among: got {among}, expected a correlation from 0 to below 1")
    slope = rho / (1 + (num_models - 2) * among)
    variance = 1 - (num_models - 1) * rho * slope
    if variance <= 0:
        raise ValueError(f"rho: got {rho}, impossible with {num_models - 1} peers that correlate by {among}")
    return slope, variance

"""A federation that can be solved: linear models, quadratic losses, gradient descent; what FedMuscle's two phases do to it.

Client n has one number w_n for each direction of the public data, which is all that its representation is there.

    local loss        h/2 (w_n - a_n)^2,   E steps of rate eta_l:   w_n - a_n  is multiplied by  rho_l = (1 - eta_l h)^E
    contrastive loss  c/2 sum over its M peers (w_n - w_m)^2, peers constant, all clients at once, T steps of eta_c

The mean of the w_n stays, with all others as peers exactly, with fewer in expectation, and every difference between clients is
multiplied by  rho_c = (1 - eta_c c M N / (N - 1))^T.  So a round maps the gap of two clients

    delta  ->  rho_l rho_c delta + (1 - rho_l) (a_1 - a_2),
    which comes to rest at  delta* = (a_1 - a_2) (1 - rho_l) / (1 - rho_l rho_c)  if and only if  |rho_l rho_c| < 1,

where the contrastive phase takes (1 - rho_c) delta* away that the local phase gives back: a tug of war that ends only as one of
the rates goes to 0.  Where M < N - 1 peers are drawn for each step, all this holds for means over draws; a step multiplies
the mean squared distance to the mean by more, see `squared_spread`, and rounds keep it bounded where rho_l^2 times that to
the power of T is below 1.  Ours; we found none in the papers.

`turning_federation` plays the real one, `Federation` and FedMuscle, with networks of one number, by which the formulas can be
held against it.
"""

import math

import numpy as np
import torch
from torch import nn

from ..checks import number, positive_int
from ..client import Client, Training
from ..federation import Federation
from ..losses import muscle_loss
from ..methods import FedMuscle
from ..tasks import classification


def contraction(rate, curvature, steps):
    """(1 - rate curvature)^steps, by which gradient descent multiplies the distance to where a quadratic is least."""
    return (1 - rate * curvature) ** positive_int("steps", steps, least=0)


def spread(num_clients, num_peers):
    """M N / (N - 1): by how much the difference of two of N clients is steeper than the distance to one constant peer."""
    if not 1 <= num_peers < num_clients:
        raise ValueError(f"num_peers: got {num_peers}, expected 1 to {num_clients - 1} with {num_clients} clients")
    return num_peers * num_clients / (num_clients - 1)


def variation(num_clients, num_peers):
    """M (N - 1 - M) / (N - 1): what drawing M of N - 1 peers adds; 0 where all are."""
    spread(num_clients, num_peers)
    return num_peers * (num_clients - 1 - num_peers) / (num_clients - 1)


def squared_spread(rate, curvature, num_clients=2, num_peers=1):
    """By what a contrastive step multiplies the mean squared distance of the clients to their mean, on average over the draws
    of peers: (1 - eta_c c a)^2 + (eta_c c)^2 b, with a = M N / (N - 1) and b = M (N - 1 - M) / (N - 1)."""
    step = rate * curvature
    return (1 - step * spread(num_clients, num_peers)) ** 2 + step ** 2 * variation(num_clients, num_peers)


def largest_rate(curvature, num_clients=2, num_peers=1):
    """The contrastive rate beyond which the contrastive phase drives clients apart, in the mean square over the draws of peers:
    2 a / (c (a^2 + b)), at which `squared_spread` is 1; 2 / (c N) where all others are peers."""
    a, b = spread(num_clients, num_peers), variation(num_clients, num_peers)
    return 2 * a / (number("curvature", curvature, above=0) * (a ** 2 + b))


def resting_gap(gap, rho_local, rho_contrast):
    """delta* of two clients whose own optima are `gap` apart; ValueError where there is none."""
    if not abs(rho_local * rho_contrast) < 1:
        raise ValueError(f"rho_local, rho_contrast: got {rho_local:g}, {rho_contrast:g}, expected a product below 1 in size")
    return gap * (1 - rho_local) / (1 - rho_local * rho_contrast)


def play(optima, rounds, *, local_rate, contrastive_rate, local_steps, contrastive_steps, h=1.0, c=1.0, num_peers=None, seed=0):
    """Step by step: (rounds, 2, N) of the w_n after each contrastive and each local phase, beginning at the optima.

    optima: the a_n of N clients.  contrastive_rate: a number or one a round.  num_peers: drawn anew for every step, all if
    None.
    """
    optima = np.asarray(optima, dtype=float)
    count, rng = len(optima), np.random.default_rng(seed)
    spread(count, count - 1 if num_peers is None else num_peers)
    rates, w, found = np.broadcast_to(contrastive_rate, rounds), optima.copy(), []
    for rate in rates:
        for _ in range(contrastive_steps):
            pull = np.empty(count)
            for client in range(count):
                others = np.delete(np.arange(count), client)
                peers = others if num_peers is None else rng.choice(others, num_peers, replace=False)
                pull[client] = c * (w[client] - w[peers]).sum()
            w = w - rate * pull
        found.append([w, w])
        for _ in range(local_steps):
            w = w - local_rate * h * (w - optima)
        found[-1][1] = w
    return np.array(found)


CIRCLE = 8                                            # public samples, evenly on the unit circle
TAUS = {"tau": 0.5, "tau_prev": 0.375}


class Turning(nn.Module):
    """A linear network of one number w: (B, 2) -> (B, 2), rows turned by the angle w."""

    def __init__(self, angle):
        super().__init__()
        self.angle = nn.Parameter(torch.tensor([float(angle)]))

    def forward(self, rows):
        return turned(rows, self.angle)


def turned(rows, angle):
    x, y = rows.unbind(1)
    return torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y], 1)


def on_circle(*angles):
    """(n, 2) float64 points of the unit circle."""
    return torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles], dtype=torch.float64)


def circle():
    return on_circle(*(2 * math.pi * place / CIRCLE for place in range(CIRCLE)))


def turning_curvatures(num_peers=1):
    """(h, c) of `turning_federation`: the second derivative of the local loss in w at its least, and that of the Muscle loss
    where all clients agree, per peer."""
    angle, points = torch.zeros(1, dtype=torch.float64, requires_grad=True), circle()
    losses = (classification(2).loss(turned(on_circle(-math.pi / 4), angle), torch.tensor([0])),
              muscle_loss(turned(points, angle), [points] * num_peers, **TAUS, normalize=False) / num_peers)
    slopes = [torch.autograd.grad(loss, angle, create_graph=True)[0] for loss in losses]
    return tuple(torch.autograd.grad(slope, angle)[0].item() for slope in slopes)


def turning_federation(optima, rounds, *, local_rate, contrastive_rate, local_steps, contrastive_steps):
    """(rounds, N) the w_n at the ends of the rounds, beginning at the optima, of a `Federation` of `Turning` clients that plays
    FedMuscle, all others as peers, by gradient descent instead of AdamW.

    Public data: CIRCLE points, all of them a batch; the loss depends on differences of the w_n alone.  Private: one point,
    which turned by a_n is best told to be of its class.  Both losses are quadratic where the w_n differ little.
    """
    points, label = circle().float(), torch.tensor([0])
    clients = [Client(name, Turning(angle), nn.Identity(), classification(2), public=points,
                      train=(on_circle(-math.pi / 4 - angle).float(), label)) for name, angle in enumerate(optima, 1)]
    method = FedMuscle(num_peers=len(clients) - 1, batch_size=CIRCLE, contrastive_steps=contrastive_steps,
                       contrastive_lr=contrastive_rate, **TAUS)
    found, path = Federation(clients, method, training=Training(
        local_epochs=local_steps, local_lr=local_rate, local_batch_size=1, min_local_steps=1)), []
    for client in clients:
        for name, rate in (("local_optimizer", local_rate), ("contrastive_optimizer", contrastive_rate)):
            (flat,) = getattr(client, name).param_groups[0]["params"]
            setattr(client, name, torch.optim.SGD([flat], lr=rate))
    found.fit(rounds, progress=False, after_round=lambda found: path.append(
        [client.network.representation.angle.item() for client in found.clients]))
    return np.array(path)

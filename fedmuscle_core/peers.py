"""Which M peers serve a client: drawn at random, the most similar, those of its task first, those that helped so far, or those
of a kind that is given.

All send the same representations.  "random" draws anew for every batch, "held" once a round; "similar" compares what the
clients upload anyway; "task" needs to know the clients' tasks; "bandit" one number a client and round, its local loss, and
keeps its peers for the round, so "held" is what it has to beat: it learns who teaches well, not whom.  "shifted" is for
experiments: clients are of as many kinds as there are `shifts`, in turn by their names, and one of kind k is served by those of
kind k + shifts[k], counted in a circle.
"""

import math

import numpy as np
import torch

from .alignment import linear_cka
from .seeds import generator

PEER_CHOICES = ("random", "held", "similar", "task", "bandit", "shifted")

MANY = 64                                             # clients from which on peers are drawn without a list of all


def choose_peers(clients, num_peers, rng):
    """For each client, `num_peers` of the others at random: {client: sorted list of peers}.

    clients: their names, in any order; rng: `torch.Generator`.  Raises ValueError unless 1 <= num_peers < len(clients).
    """
    clients = sorted(clients)
    if not 1 <= num_peers < len(clients):
        raise ValueError(f"num_peers: got {num_peers}, expected 1 to {len(clients) - 1} with {len(clients)} clients")
    chosen, count = {}, len(clients) - 1
    for place, client in enumerate(clients):
        picks = torch.randperm(count, generator=rng)[:num_peers].tolist() if count < MANY else _distinct(num_peers, count, rng)
        chosen[client] = sorted(clients[pick + (pick >= place)] for pick in picks)
    return chosen


def _distinct(number, count, rng):
    """So many different ones of 0, .., count - 1, in a time that does not grow with `count`."""
    found = {}
    while len(found) < number:
        found |= dict.fromkeys(torch.randint(count, (number - len(found),), generator=rng).tolist())
    return list(found)


def choose(how, num_peers, uploads, rng, *, seed, round, tasks, gains, shifts=()):
    """{client: sorted list of its peers} as `how`, one of PEER_CHOICES, says, chosen among the clients in `uploads`.

    uploads: {client: unit-length representations (B, d) of the batch}.  tasks: {client: name}, of all clients.  gains: as kept
    by `credit`.
    As many as `num_peers`, or all others where they are fewer.
    """
    clients = sorted(uploads)
    num_peers = min(num_peers, len(clients) - 1)
    if how == "random":
        return choose_peers(clients, num_peers, rng)
    if how in ("held", "bandit"):
        rng = generator(seed, "bandit", round)                                # one choice for all batches of a round
    if how == "held":
        return choose_peers(clients, num_peers, rng)
    if how == "bandit":
        return _highest_bounds(gains, clients, num_peers, rng, round)
    rank = {"similar": lambda: _similarity(uploads), "task": lambda: _same_task(tasks, clients),
            "shifted": lambda: _shifted(sorted(tasks), shifts)}[how]()
    return {client: _best(client, clients, num_peers, rng, lambda other, client=client: rank[client, other])
            for client in clients}


def _best(client, clients, num_peers, rng, worth):
    """The `num_peers` others of highest `worth(other)`, ties at random."""
    others = _shuffled([other for other in clients if other != client], rng)
    return sorted(sorted(others, key=worth, reverse=True)[:num_peers])


def _shuffled(names, rng):
    return [names[place] for place in torch.randperm(len(names), generator=rng)]


def _similarity(uploads):
    """Centred kernel alignment of every two clients' representations of the batch."""
    return {(one, other): linear_cka(uploads[min(one, other)], uploads[max(one, other)])
            for one in uploads for other in uploads if one != other}


def _same_task(tasks, clients):
    return {(one, other): tasks[one] == tasks[other] for one in clients for other in clients}


def _shifted(clients, shifts):
    kinds = {client: place % len(shifts) for place, client in enumerate(clients)}
    wanted = {client: (kind + shifts[kind]) % len(shifts) for client, kind in kinds.items()}
    return {(one, other): kinds[other] == wanted[one] for one in clients for other in clients}


def _highest_bounds(gains, clients, num_peers, rng, round):
    """The peers of highest bound  theta_m + sigma sqrt(2 log round / times_m), see `credit`, client after client in an order at
    random; `times` counts those that were served before in this round, too, or all would try the same peer at once (Desautels
    et al., 2014)."""
    theta, sigma = gains.get("theta", {}), gains.get("sigma", 1.0)
    times, chosen = {peer: gains.get("times", {}).get(peer, 1.0) for peer in clients}, {}
    for client in _shuffled(clients, rng):
        chosen[client] = _best(client, clients, num_peers, rng, lambda peer: theta.get(peer, 0.0) + sigma * math.sqrt(
            2 * math.log(round) / times[peer]))
        for peer in chosen[client]:
            times[peer] += 1
    return chosen


def credit(gains, used, before, after):
    """Add to `gains` what a round with the peers `used`, {client: peers}, was worth, and make anew what it says of every peer.

    before, after: {client: local loss} of the round before and of this one.  With y the relative fall, 1 - after / before, of
    client n in round r,

        y_nr = a_n + b_r + sum over its peers m of theta_m + noise of variance sigma^2,

    over all rounds so far: clients learn at speeds a_n of their own and fall faster in early rounds, which is no peer's merit.
    a and b are free; theta has a ridge of 1: a peer is taken to matter as much as the noise.  With X the 0 and 1 of who had
    whom, X~ and y~ what a and b leave of X and y by least squares,

        theta = A^-1 X~' y~,  A = X~' X~ + 1,  times_m = 1 / A^-1_mm,
        sigma^2 = y~' (y~ - X~ theta) / (number of falls - rank of a and b).

    gains: falls, a list of (round, client, peers, y); theta, times {peer: number}; sigma.  As long as a and b explain all there
    is no theta.
    """
    falls = gains.setdefault("falls", [])
    now = falls[-1][0] + 1 if falls else 0
    falls += [[now, client, list(peers), 1 - after[client] / before[client]] for client, peers in used.items()]
    clients, peers = sorted({fall[1] for fall in falls}), sorted({peer for fall in falls for peer in fall[2]})
    free, both = np.zeros((len(falls), len(clients) + now + 1)), np.zeros((len(falls), len(peers) + 1))
    for row, (round, client, several, fall) in enumerate(falls):
        free[row, [clients.index(client), len(clients) + round]] = 1
        both[row, [*map(peers.index, several)]], both[row, -1] = 1, fall
    fitted, _, rank, _ = np.linalg.lstsq(free, both, rcond=None)
    left = both - free @ fitted
    x, y = left[:, :-1], left[:, -1]
    if rank == len(falls):
        return
    inverse = np.linalg.inv(x.T @ x + np.eye(len(peers)))
    theta = inverse @ x.T @ y
    for name, values in (("theta", theta), ("times", 1 / inverse.diagonal())):
        gains[name] = dict(zip(peers, values.tolist(), strict=True))
    gains["sigma"] = math.sqrt(max(0.0, y @ (y - x @ theta)) / (len(falls) - rank))

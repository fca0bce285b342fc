"""Which M peers serve a client: drawn at random, the most similar, those of its task first, those that helped so far, or those
of a kind that is given.

All send the same representations.  "random" draws anew for every batch, "held" once a round; "similar" compares what the
clients upload anyway; "task" needs to know the clients' tasks; "bandit" one number a client and round, its local loss, and
keeps its peers for the round, so "held" is what it has to beat.  "shifted" is for experiments: clients are of as many kinds as
there are `shifts`, in turn by their names, and one of kind k is served by those of kind k + shifts[k], counted in a circle.
"""

import math
from statistics import fmean

import torch

from .alignment import linear_cka
from .seeds import generator

PEER_CHOICES = ("random", "held", "similar", "task", "bandit", "shifted")


def choose_peers(clients, num_peers, rng):
    """For each client, `num_peers` of the others at random: {client: sorted list of peers}.

    clients: their names, in any order; rng: `torch.Generator`.  Raises ValueError unless 1 <= num_peers < len(clients).
    """
    clients = sorted(clients)
    if not 1 <= num_peers < len(clients):
        raise ValueError(f"num_peers: got {num_peers}, expected 1 to {len(clients) - 1} with {len(clients)} clients")
    chosen = {}
    for client in clients:
        others = [other for other in clients if other != client]
        picks = torch.randperm(len(others), generator=rng)[:num_peers]
        chosen[client] = sorted(others[pick] for pick in picks)
    return chosen


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
    rank = {"similar": lambda: _similarity(uploads), "task": lambda: _same_task(tasks, clients),
            "bandit": lambda: _upper_bounds(gains, clients, round), "shifted": lambda: _shifted(sorted(tasks), shifts)}[how]()
    chosen = {}
    for client in clients:
        others = [other for other in clients if other != client]
        others = [others[place] for place in torch.randperm(len(others), generator=rng)]       # ties at random
        chosen[client] = sorted(sorted(others, key=lambda other: rank[client, other], reverse=True)[:num_peers])
    return chosen


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


def _upper_bounds(gains, clients, round):
    """UCB1 of every peer for every client: mean gain + sqrt(2 log round / times credited).

    A peer that a client has not had yet counts as credited once, with its mean gain to the others, or many clients would never
    try everybody (our choice); one that nobody has had comes first.
    """
    to_others = {}
    for (_, peer), found in gains.items():
        to_others.setdefault(peer, []).extend(found)

    def bound(client, peer):
        found = gains.get((client, peer)) or ([fmean(to_others[peer])] if peer in to_others else [])
        return fmean(found) + math.sqrt(2 * math.log(round) / len(found)) if found else math.inf
    return {(one, other): bound(one, other) for one in clients for other in clients}


def credit(gains, used, before, after):
    """Note in `gains`, {(client, peer): list}, what a round with the peers `used`, {client: peers}, was worth to each client.

    before, after: {client: local loss} of the round before and of this one.  A client's gain is its relative fall,
    1 - after / before, standardised over the clients of the round, as losses fall faster in early rounds.
    """
    falls = {client: 1 - after[client] / before[client] for client in used}
    mean = sum(falls.values()) / len(falls)
    spread = math.sqrt(sum((fall - mean) ** 2 for fall in falls.values()) / len(falls)) or 1.0
    for client, peers in used.items():
        for peer in peers:
            gains.setdefault((client, peer), []).append((falls[client] - mean) / spread)

"""FedMuscle: align representations of public batches with the Muscle loss, then train locally.

Pairwise is the paper's ablation: the same with alpha = 1.
"""

import torch

from ..client import embed, step
from ..exchange import loss_from_downlink
from ..seeds import generator
from ..server import choose_peers, serve
from . import local


def play_round(federation, round, weighting="learned"):
    """Contrastive phase, then local phase: a round ends locally, so that the heads follow the representations."""
    losses = contrastive_phase(federation, round, weighting)
    return {"contrastive_loss": losses, **local.play_round(federation, round)}


def play_pairwise_round(federation, round):
    """The same round with alpha = 1."""
    return play_round(federation, round, weighting="uniform")


def contrastive_phase(federation, round, weighting):
    """T epochs over the public set.  Every batch: all clients embed it once and upload; the server draws each one's M
    peers and serves them; each client steps on the graph it already has.  Returns {client index: mean loss}."""
    settings, ledger, clients = federation.settings, federation.ledger, federation.clients
    rng = generator(settings.seed, "contrastive", round)
    sums, steps = dict.fromkeys((client.index for client in clients), 0.0), 0
    for _ in range(settings.contrastive_epochs):
        for rows in full_batches(len(federation.public), settings.batch_size, rng):
            peers_of = choose_peers(sums, settings.num_peers, rng)
            batch = federation.public.index_select(0, rows)
            graphs, uploads = {}, {}
            for client in clients:
                graphs[client.index] = embed(client, batch, round, steps)
                uploads[client.index] = ledger.send(graphs[client.index].detach(), round=round, client=client.index,
                                                    direction="up")
            for client in clients:
                payload = ledger.send(serve(uploads, peers_of, client.index, settings, weighting), round=round,
                                      client=client.index, direction="down")
                loss = loss_from_downlink(graphs.pop(client.index), payload, settings.protocol, settings.tau,
                                          settings.tau_prev, weighting)
                sums[client.index] += step(client.contrastive_optimizer, loss)
            steps += 1
    return {index: total / steps for index, total in sums.items()}


def full_batches(size, batch_size, rng):
    """Shuffled row indices in batches of exactly `batch_size`; the incomplete rest of an epoch is left out."""
    order = torch.randperm(size, generator=rng)
    return order[:size - size % batch_size].split(batch_size)

"""The contrastive phase that the methods which align representations between clients share."""

import torch

from ..client import embed, public_batch, step
from ..seeds import generator
from ..server import choose_peers


def contrastive_phase(federation, round, serve, loss_of):
    """T epochs over the public set.  Every batch: all clients embed it once and upload; the server draws each one's M
    peers and serves them; each client steps on the graph it already has.  Returns {client index: mean loss}.

    serve(peers, members): payload, a tuple of tensors, from the peers' unit-length representations (M, B, d).
    loss_of(anchor, payload, members): scalar, from the client's own (B, d) and what it was served.
    members: the client and its M peers, as `Client`s.
    """
    settings, ledger, clients = federation.settings, federation.ledger, federation.clients
    by_index = {client.index: client for client in clients}
    rng = generator(settings.seed, "contrastive", round)
    sums, steps = dict.fromkeys(by_index, 0.0), 0
    for _ in range(settings.contrastive_epochs):
        for rows in full_batches(settings.public_size, settings.batch_size, rng):
            peers_of = choose_peers(by_index, settings.num_peers, rng)
            graphs, uploads = {}, {}
            for client in clients:
                batch = public_batch(client, rows, settings.augment, round, steps)
                graphs[client.index] = embed(client, batch, round, steps)
                uploads[client.index] = ledger.send(graphs[client.index].detach(), round=round, client=client.index,
                                                    direction="up")
            for client in clients:
                chosen = peers_of[client.index]
                members = [client, *map(by_index.get, chosen)]
                payload = ledger.send(serve(torch.stack([uploads[peer] for peer in chosen]), members), round=round,
                                      client=client.index, direction="down")
                loss = loss_of(graphs.pop(client.index), payload, members)
                sums[client.index] += step(client.contrastive_optimizer, loss)
            steps += 1
    return {index: total / steps for index, total in sums.items()}


def full_batches(size, batch_size, rng):
    """Shuffled row indices in batches of exactly `batch_size`; the incomplete rest of an epoch is left out."""
    order = torch.randperm(size, generator=rng)
    return order[:size - size % batch_size].split(batch_size)

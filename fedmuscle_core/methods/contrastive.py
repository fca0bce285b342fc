"""The contrastive phase that the methods which align representations between clients share."""

import torch
import torch.nn.functional as F

from ..client import embed, public_batch, step
from ..experiments.setups import SETUPS
from ..networks.client_network import in_batches
from ..peers import choose
from ..placement import at_work
from ..seeds import generator


def contrastive_phase(federation, round, serve, loss_of):
    """One round's batches of the public set, for the clients that take part.  Returns {client index: mean loss}.

    Every batch: the clients embed it once and upload; the server draws each one's M peers (fewer where fewer are there) and
    serves them; each client steps on the graph it already has, or, with `micro_batch_size` or `offload`, on one that it makes
    again part by part, see `step_again`.  With `refresh` "round" the clients upload the whole public set
    once, before the first batch, and the server serves from its memory: see `_by_round`.
    serve(peers, members): payload, a tuple of tensors, from the peers' unit-length representations (M, B, d).
    loss_of(anchor, payload, members, number): scalar, from the client's own (B, d) and what it was served with batch `number`.
    members: indices of the client and its M peers.
    """
    settings = federation.settings
    batches, rng = public_batches(settings, round)
    present = taking_part(settings, round)
    twice = settings.micro_batch_size is not None or settings.offload
    phase = _by_round if settings.refresh == "round" else _by_batch_twice if twice else _by_batch
    sums = phase(federation, round, present, batches, rng, serve, loss_of)
    return {index: total / len(batches) for index, total in sums.items()}


def public_batches(settings, round):
    """(the rows of every public batch of a round, the generator to go on with); the same for every method and client.

    `contrastive_epochs` shuffled passes over the public set, or as many as `contrastive_steps` batches take.
    """
    rng, batches = generator(settings.seed, "contrastive", round), []
    steps = settings.contrastive_steps or settings.contrastive_epochs * (settings.public_size // settings.batch_size)
    while len(batches) < steps:
        batches += full_batches(settings.public_size, settings.batch_size, rng)
    return batches[:steps], rng


def full_batches(size, batch_size, rng):
    """Shuffled row indices in batches of exactly `batch_size`; the incomplete rest of an epoch is left out."""
    order = torch.randperm(size, generator=rng)
    return order[:size - size % batch_size].split(batch_size)


def taking_part(settings, round):
    """Indices of the clients that do not miss this round's exchange; each misses a share `absence` of the rounds."""
    clients = range(1, len(SETUPS[settings.setup]) + 1)
    return [index for index in clients if not settings.absence or
            torch.rand(1, generator=generator(settings.seed, "absence", round, index)).item() >= settings.absence]


def _by_batch(federation, round, present, batches, rng, serve, loss_of):
    settings, ledger = federation.settings, federation.ledger
    if len(present) < 2:
        return {}
    clients = {client.index: client for client in federation.clients if client.index in present}
    sums = dict.fromkeys(clients, 0.0)
    for number, rows in enumerate(batches):
        graphs, uploads = {}, {}
        for index, client in clients.items():
            graphs[index] = embed(client, public_batch(client, rows, settings.augment, round, number), round, number)
            uploads[index] = ledger.send(graphs[index].detach(), round=round, client=index, direction="up")
        for index, members, payload in served(federation, round, uploads, rng, serve):
            client = clients[index]
            sums[index] += step(client.contrastive_optimizer, loss_of(graphs.pop(index), payload, members, number))
    return sums


def served(federation, round, uploads, rng, serve):
    """(client index, members, payload) of every client that uploaded, one after the other, its peers drawn anew."""
    peers_of = choose(federation.settings, uploads, rng, federation.gains, round)
    for index in uploads:
        members = [index, *peers_of[index]]
        peers = torch.stack([uploads[peer] for peer in members[1:]])
        yield index, members, federation.ledger.send(serve(peers, members), round=round, client=index, direction="down")


def _by_batch_twice(federation, round, present, batches, rng, serve, loss_of):
    """As `_by_batch`, with no graph kept while other clients are at work."""
    settings, ledger = federation.settings, federation.ledger
    if len(present) < 2:
        return {}
    clients = {client.index: client for client in federation.clients if client.index in present}
    sums = dict.fromkeys(clients, 0.0)
    for number, rows in enumerate(batches):
        uploads = {}
        for index, client in clients.items():
            with at_work(client), torch.no_grad():
                parts = [embed(client, part, round, number, place) for place, part in enumerate(
                    micro_batches(client, rows, settings, round, number))]
                uploads[index] = ledger.send(torch.cat(parts), round=round, client=index, direction="up")
        for index, members, payload in served(federation, round, uploads, rng, serve):
            client = clients[index]
            with at_work(client):
                anchor = uploads[index].clone().requires_grad_()
                loss = loss_of(anchor, payload, members, number)
                loss.backward()
                step_again(client, micro_batches(client, rows, settings, round, number), anchor.grad, round, number)
                sums[index] += loss.item()
    return sums


def micro_batches(client, rows, settings, round, number):
    """The public batch of a step in parts of `micro_batch_size` samples, as the client reads it."""
    batch = public_batch(client, rows, settings.augment, round, number)
    return batch.split(settings.micro_batch_size or len(batch))


def step_again(client, parts, gradient, round, number):
    """One contrastive step from the loss's gradient with respect to a batch's representations (B, d).

    The chain rule lets every part go through the network by itself: the gradient of <z_part(w), gradient_part> with respect
    to w, summed over parts, is that of the loss (GradCache, Gao et al. 2021).  Dropout repeats, as its stream is named.
    """
    for place, (part, wanted) in enumerate(zip(parts, gradient.split([len(part) for part in parts]), strict=True)):
        (embed(client, part, round, number, place) * wanted).sum().backward()
    client.contrastive_optimizer.step()
    client.contrastive_optimizer.param_groups[0]["params"][0].grad.zero_()


def _by_round(federation, round, present, batches, rng, serve, loss_of):
    """The clients upload first and step later, one after the other: no two models are needed at the same time.

    The server remembers what every client uploaded last, so one that is absent still serves as a peer.
    """
    settings, ledger, memory = federation.settings, federation.ledger, federation.memory
    for client in federation.clients:
        if client.index in present:
            client.model.eval()
            with at_work(client):                                             # (public_size, d)
                upload = F.normalize(in_batches(client.model.representation, client.public, device=client.device), dim=1)
            memory[client.index] = ledger.send(upload, round=round, client=client.index, direction="up")
    if len(memory) < 2:
        return {}
    chosen = [choose(settings, {index: rows_of[rows] for index, rows_of in memory.items()}, rng, federation.gains, round)
              for rows in batches]
    sums = {}
    for client in federation.clients:
        if client.index in present:
            sums[client.index] = 0.0
            with at_work(client):
                for number, (rows, peers_of) in enumerate(zip(batches, chosen, strict=True)):
                    members = [client.index, *peers_of[client.index]]
                    peers = torch.stack([memory[peer][rows] for peer in members[1:]])
                    payload = ledger.send(serve(peers, members), round=round, client=client.index, direction="down")
                    payload = tuple(part.to(client.device) for part in payload)
                    anchor = embed(client, public_batch(client, rows, False), round, number)
                    sums[client.index] += step(client.contrastive_optimizer, loss_of(anchor, payload, members, number))
    return sums

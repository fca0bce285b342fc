"""SimCLR: every client contrasts two augmentations of the public batches by itself; nothing is exchanged."""

import torch

from ..client import embed, public_batch, step
from ..losses import nt_xent
from ..seeds import generator
from . import local
from .contrastive import full_batches


def play_round(federation, round):
    """T epochs over the public set, then local phase; with T = 1 the very batches that the aligning methods get."""
    settings = federation.settings
    losses = {client.index: simclr_phase(client, settings, round) for client in federation.clients}
    return {"contrastive_loss": losses, **local.play_round(federation, round)}


def simclr_phase(client, settings, round):
    """Steps of NT-Xent on two views of each public batch; returns the mean loss."""
    rng, losses = generator(settings.seed, "contrastive", round), []
    for _ in range(settings.contrastive_epochs):
        for rows in full_batches(settings.public_size, settings.batch_size, rng):
            views = [public_batch(client, rows, True, "simclr", client.index, round, len(losses), view) for view in (0, 1)]
            first, second = embed(client, torch.cat(views), round, len(losses)).chunk(2)
            losses.append(step(client.contrastive_optimizer, nt_xent(first, second, tau=settings.tau)))
    return sum(losses) / len(losses)

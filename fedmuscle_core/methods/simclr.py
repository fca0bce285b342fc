"""SimCLR: every client contrasts two augmentations of the public batches by itself; nothing is exchanged."""

import torch

from ..client import embed, public_batch, step
from ..losses import nt_xent
from ..placement import at_work
from . import local
from .contrastive import public_batches


def play_round(federation, round):
    """The very public batches that the aligning methods get, then local phase."""
    settings = federation.settings
    losses = {client.index: simclr_phase(client, settings, round) for client in federation.clients}
    return {"contrastive_loss": losses, **local.play_round(federation, round)}


def simclr_phase(client, settings, round):
    """Steps of NT-Xent on two views of each public batch; returns the mean loss."""
    losses = []
    with at_work(client):
        for rows in public_batches(settings, round)[0]:
            views = [public_batch(client, rows, True, "simclr", client.index, round, len(losses), view) for view in (0, 1)]
            first, second = embed(client, torch.cat(views), round, len(losses)).chunk(2)
            losses.append(step(client.contrastive_optimizer, nt_xent(first, second, tau=settings.tau)))
    return sum(losses) / len(losses)

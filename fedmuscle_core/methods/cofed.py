"""CoFED: clients that share a label space vote on the labels of the public data, and train on them beside their own.

A client votes for its first class where its probability is more than `vote_margin` above that of the second; for each
label of a multi-label task by itself, for or against.  A label counts where more than `vote_share` of the clients of that
label space voted for it.  From the second round on: the votes need trained heads.
"""

import torch
import torch.nn.functional as F

from ..client import local_phase
from ..networks.client_network import in_batches
from ..placement import at_work
from ..seeds import generator
from ..server import count_votes
from . import local


def play_round(federation, round):
    """Votes up, pseudo-labels down, then a local phase on private and pseudo-labelled samples together."""
    if round == 1:
        return local.play_round(federation, round)
    settings, ledger, votes, losses = federation.settings, federation.ledger, {}, {}
    for client in federation.clients:
        cast = ledger.send(client_votes(client, settings.vote_margin), round=round, client=client.index, direction="up")
        votes.setdefault(client.task.name, []).append(cast)
    labels = {name: count_votes(cast, settings.vote_share) for name, cast in votes.items()}
    for client in federation.clients:
        mine = ledger.send(labels[client.task.name], round=round, client=client.index, direction="down")
        losses[client.index] = local_phase(client, settings, round, pseudo_labelled(client, mine, round))
    return {"local_loss": losses}


def client_votes(client, margin):
    """int16 votes on the client's public data: (n,) classes, (n, H, W) for dense tasks, (n, labels) of 0 and 1 for
    multi-label tasks; -1 where the two most probable answers are not more than `margin` apart."""
    def votes(inputs):
        logits = client.model(inputs)
        if client.task.multilabel:
            logits = torch.stack([torch.zeros_like(logits), logits], 1)        # no and yes: their softmax is the sigmoid
        first_two, answers = logits.softmax(1).topk(2, dim=1)
        return torch.where(first_two[:, 0] - first_two[:, 1] > margin, answers[:, 0], -1).short()

    client.model.eval()
    with at_work(client):
        return in_batches(votes, client.public, device=client.device)


def pseudo_labelled(client, labels, round):
    """The `extend` of `client.local_phase` that spreads the pseudo-labelled samples over its steps, each once a round:
    the loss becomes the mean over private and pseudo-labelled samples of the step."""
    rows = (labels.flatten(1) if labels.ndim > 1 else labels[:, None]).ge(0).any(1).nonzero()[:, 0]
    order = generator(client.seed, "client", client.index, "pseudo", round)
    rows = rows[torch.randperm(len(rows), generator=order)]

    def extend(loss, step):
        part, samples = rows.tensor_split(step.total)[step.number], len(step.wanted)
        if len(part) == 0:
            return loss
        pseudo = pseudo_loss(client, client.public[part].to(client.device), labels[part].long().to(client.device))
        return (samples * loss + len(part) * pseudo) / (samples + len(part))
    return extend


def pseudo_loss(client, inputs, labels):
    """The task's loss over the labels that are there (not -1)."""
    logits, known = client.model(inputs), labels >= 0
    if client.task.multilabel:
        return F.binary_cross_entropy_with_logits(logits[known], labels[known].float())
    return F.cross_entropy(logits, labels, ignore_index=-1)

"""CoFED: clients that share a label space vote on the labels of the public data, and train on them beside their own.

A client votes for its first class where its probability is more than `vote_margin` above that of the second; for each
label of a multi-label task by itself, for or against.  A label counts where more than `vote_share` of the clients of that
label space voted for it.  From the second round on: the votes need trained heads.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..aggregation import count_votes
from ..checks import number, positive_int
from ..client import local_phase
from ..exchange import Stage, expect
from ..method import Method, by_metric
from ..network import in_batches
from ..placement import at_work
from ..seeds import generator

MOST_CLASSES = torch.iinfo(torch.int16).max


@dataclass(frozen=True)
class CoFED(Method):
    """vote_margin, vote_share: see the head of this module."""

    name, label, colour = "cofed", "CoFED", "#7c2d12"
    exchanges, uses_public = "votes up, pseudo-labels down", True
    needs = "public data; several clients of one label space (alone, one teaches itself); a server that counts"
    grid = {"vote_margin": (0.1, 0.3, 0.6, 0.9), "vote_share": (0.3, 0.6, 0.9)}

    vote_margin: float = 0.3
    vote_share: float = 0.3

    def __post_init__(self):
        number("vote_margin", self.vote_margin, least=0, below=1)
        number("vote_share", self.vote_share, least=0, below=1)

    def check_card(self, card):
        for size in card["vote_shape"] or ():
            positive_int("vote_shape", size)
        if card["vote_classes"] not in (2, card["num_outputs"]) or not 1 <= card["vote_classes"] <= MOST_CLASSES:
            raise ValueError(f"vote_classes: got {card['vote_classes']} with {card['num_outputs']} outputs, expected 2 or as "
                             f"many, at most {MOST_CLASSES}: votes are of 16 bits")

    def check_cards(self, cards):
        first = {}
        for client in sorted(cards):
            task, votes = cards[client]["task"], (cards[client]["vote_shape"], cards[client]["vote_classes"])
            if first.setdefault(task, votes) != votes:
                raise ValueError(f"client {client}: got votes of shape and classes {votes} on a public sample, expected "
                                 f"{first[task]} as others of {task!r} have")

    def opening(self, server, round):
        """Votes, from the second round on."""
        return Stage("vote", server.present(round), lambda client: {},
                     lambda client, reply: self.check_votes(reply, server.cards[client])) if round > 1 else None

    def play(self, server, round):
        """Votes up, pseudo-labels down, then a local phase on private and pseudo-labelled samples together."""
        labels = {}
        if round > 1:
            cast = yield self.opening(server, round)
            tasks = server.known("task")
            for task in sorted({tasks[client] for client in cast}):
                counted = count_votes([cast[client]["votes"] for client in cast if tasks[client] == task], self.vote_share)
                labels |= {client: counted for client in cast if tasks[client] == task}
        return by_metric((yield self.local_phases(server, round, lambda client: (
            {"labels": labels[client]} if client in labels else {}))))

    def check_votes(self, reply, card):
        """ValueError where a reply is not int16 votes on the public samples, from -1 to below the number of answers."""
        shape = card["public_size"], *card["vote_shape"]
        expect(reply, {"votes": torch.empty(shape, dtype=torch.int16, device="meta")})
        low, high = int(reply["votes"].min()), int(reply["votes"].max())
        if low < -1 or high >= card["vote_classes"]:
            raise ValueError(f"got votes from {low} to {high}, expected -1 to {card['vote_classes'] - 1}")

    # Client functions.

    def register(self, client, message):
        """vote_shape: of its votes on one public sample; vote_classes: what it chooses among.  ValueError without."""
        wanted = client.data["train"].take(torch.tensor([0]))[1]
        if wanted.is_floating_point() and not client.task.multilabel:
            raise ValueError(f"client {client.name}: task: got targets of {wanted.dtype}, expected classes or labels, on which "
                             f"{self.label} votes")
        shape = list(self.votes(client, client.public.first(1)).shape[1:]) if client.public else None
        classes = 2 if client.task.multilabel else client.task.num_outputs
        return super().register(client, message) | {"vote_shape": shape, "vote_classes": classes}

    def vote(self, client, message):
        """The client's votes on its public data."""
        return {"votes": self.votes(client, client.public)}

    def votes(self, client, samples):
        """int16 votes on n `Samples`: (n,) classes, (n, H, W) for dense tasks, (n, labels) of 0 and 1 for
        multi-label tasks; -1 where the two most probable answers are not more than `vote_margin` apart."""
        def votes(inputs):
            logits = client.network(inputs)
            if client.task.multilabel:
                logits = torch.stack([torch.zeros_like(logits), logits], 1)    # no and yes: their softmax is the sigmoid
            first_two, answers = logits.softmax(1).topk(2, dim=1)
            return torch.where(first_two[:, 0] - first_two[:, 1] > self.vote_margin, answers[:, 0], -1).short()

        client.network.eval()
        with at_work(client):
            return in_batches(votes, samples, device=client.device)

    def local(self, client, message):
        round = message["round"]
        return {"local_loss": local_phase(client, round, pseudo_labelled(client, message["labels"], round)
                                          if "labels" in message else None)}

    def forwards(self, work):
        return (2 + work.back) * work.public_size

    def turns(self, work):
        return 3

    def samples_at_once(self, work):
        return work.local_batch + math.ceil(work.public_size / work.local_steps)


def pseudo_labelled(client, labels, round):
    """The `extend` of `client.local_phase` that spreads the pseudo-labelled samples over its steps, each once a round:
    the loss becomes the mean over private and pseudo-labelled samples of the step."""
    rows = (labels.flatten(1) if labels.ndim > 1 else labels[:, None]).ge(0).any(1).nonzero()[:, 0]
    order = generator(client.seed, "client", client.name, "pseudo", round)
    rows = rows[torch.randperm(len(rows), generator=order)]

    def extend(loss, step):
        part, samples = rows.tensor_split(step.total)[step.number], len(step.wanted)
        if len(part) == 0:
            return loss
        inputs = client.public.take(part)[0].to(client.device)
        pseudo = pseudo_loss(client, inputs, labels[part].long().to(client.device))
        return (samples * loss + len(part) * pseudo) / (samples + len(part))
    return extend


def pseudo_loss(client, inputs, labels):
    """The task's loss over the labels that are there (not -1)."""
    logits, known = client.network(inputs), labels >= 0
    if client.task.multilabel:
        return F.binary_cross_entropy_with_logits(logits[known], labels[known].float())
    return F.cross_entropy(logits, labels, ignore_index=-1)

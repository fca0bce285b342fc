"""SimCLR: every client contrasts two augmentations of the public batches by itself; nothing is exchanged."""

import math
from dataclasses import dataclass

import torch

from ..checks import one_of
from ..client import embed, local_phase, or_nan, public_batch, step
from ..exchange import Stage, expect
from ..losses import nt_xent
from ..method import by_metric
from ..placement import at_work
from .contrastive import Contrastive

BUDGETS = ("steps", "samples")


@dataclass(frozen=True)
class SimCLR(Contrastive):
    """The very public batches that the aligning methods get, then local phase.  budget: "steps", as many steps as these make,
    so twice their samples; "samples": the first half of them, so as many samples.  Further: see `contrastive.Contrastive`."""

    name, label, colour = "simclr", "SimCLR", "#059669"
    changes_public = True

    budget: str = "steps"

    def __post_init__(self):
        super().__post_init__()
        one_of("budget", self.budget, BUDGETS)

    def num_batches(self, public_size):
        whole = super().num_batches(public_size)
        return whole if self.budget == "steps" else math.ceil(whole / 2)

    def play(self, server, round):
        return by_metric((yield Stage("learn", server.clients, lambda client: {"round": round, "rounds": server.rounds},
                                      lambda client, reply: expect(reply, {"contrastive_loss": float, "local_loss": float}),
                                      ends=True)))

    def learn(self, client, message):
        self.set_rate(client, message["round"], message["rounds"])
        return {"contrastive_loss": self.contrast(client, message["round"]),
                "local_loss": local_phase(client, message["round"])}

    def contrast(self, client, round):
        """Steps of NT-Xent on two views of each public batch; returns the mean loss."""
        losses = []
        with at_work(client):
            for rows in self.rows(client, round):
                views = [public_batch(client, rows, True, "simclr", client.name, round, len(losses), view, half=view)
                         for view in (0, 1)]
                both = embed(client, torch.cat(views), round, len(losses))
                loss = or_nan(lambda both: nt_xent(*both.chunk(2), tau=self.tau), both)
                losses.append(step(client.contrastive_optimizer, loss))
        return sum(losses) / len(losses)

    def forwards(self, work):
        return 2 * (1 + work.back) * self.num_batches(work.public_size) * self.batch_size

    def turns(self, work):
        return 3

    def samples_at_once(self, work):
        return max(2 * self.batch_size, work.local_batch)


@dataclass(frozen=True)
class SimCLRSamples(SimCLR):
    """SimCLR that embeds as many samples as the aligning methods, in half as many steps."""

    name, label, colour = "simclr_samples", "SimCLR, equal samples", "#050605"

    budget: str = "samples"

"""A method that the package does not know, with hyperparameters, a grid and costs: every client draws its mean public
representation to that of all."""

from dataclasses import dataclass

import torch

from fedmuscle_core.checks import number, positive_int
from fedmuscle_core.client import local_phase, represent
from fedmuscle_core.exchange import Stage, expect
from fedmuscle_core.method import Method, by_metric


@dataclass(frozen=True)
class DrawnTogether(Method):
    """strength of the term, which is of the first `count` public samples."""

    name, label, exchanges, uses_public = "drawn_together", "Drawn together", "d numbers up, d numbers down", True
    grid = {"strength": (0.1, 1.0), "count": (2, 3)}

    strength: float = 0.3
    count: int = 4

    def __post_init__(self):
        number("strength", self.strength, least=0)
        positive_int("count", self.count)

    def play(self, server, round):
        sent = yield Stage("centre", server.present(round), lambda client: {},
                           lambda client, reply: expect(reply, {"centre": torch.empty(server.cards[client]["dim"])}))
        middle = torch.stack([reply["centre"] for reply in sent.values()]).mean(0) if sent else None
        return by_metric((yield self.local_phases(server, round, lambda client: {"middle": middle} if client in sent else {})))

    def centre(self, client, message):
        return {"centre": represent(client, client.public.first(self.count)).mean(0)}

    def local(self, client, message):
        if "middle" not in message:                                           # absent from this round
            return super().local(client, message)
        public, middle = (part.to(client.device) for part in (client.public.first(self.count).inputs, message["middle"]))

        def nearer(loss, step):
            return loss + self.strength * (client.network.representation(public).mean(0) - middle).square().mean()
        return {"local_loss": local_phase(client, message["round"], nearer)}

    def forwards(self, work):
        return self.count * (1 + (1 + work.back) * work.local_steps)

    def bytes_per_round(self, work):
        return None if work.absence else 2 * 4 * work.dim

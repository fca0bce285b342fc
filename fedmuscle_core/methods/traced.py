"""FedMuscle that measures its two phases while it runs: how far each moves the representations, and how the gradients of both
losses are long and lie to each other.  A control: what it measures leaves the clients as numbers, which FedMuscle's do not.

Of the first PROBES public samples z, unit-length representations when a round begins, between its phases, at its end:

    drift_contrast = mean_i |z_i^between - z_i^begin|^2,   drift_local = mean_i |z_i^end - z_i^between|^2,
    drift_round = mean_i |z_i^end - z_i^begin|^2
    drift_cosine = mean_i cos(z_i^between - z_i^begin, z_i^end - z_i^between), -1 where the second phase undoes the first

At the end of the round, with respect to the representation model's parameters: gradient_local of the task loss on the first
PROBES private samples, gradient_contrast of the Muscle loss on the last public batch with the peers served for it, Euclidean
lengths; gradient_cosine of both.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..client import represent
from ..placement import at_work
from .fedmuscle import FedMuscle

PROBES = 64
NUMBERS = ("drift_contrast", "drift_local", "drift_round", "drift_cosine", "gradient_contrast", "gradient_local",
           "gradient_cosine")


@dataclass(frozen=True)
class TracedFedMuscle(FedMuscle):
    """Hyperparameters: see `fedmuscle.FedMuscle`."""

    name, label, colour, group = "fedmuscle_traced", "FedMuscle, traced", "#1e3a8a", "control"
    sometimes = NUMBERS
    tells = "gradients of private samples are measured"

    def contrast(self, client, message):
        if 0 in message["batches"]:
            client.kept["begin"] = probes(client)
        where = message["round"], message["batches"][-1]
        client.kept["served"] = message["payloads"][-1], message["kinds"][-1], where
        return super().contrast(client, message)

    def local(self, client, message):
        begin, served = client.kept.pop("begin", None), client.kept.pop("served", None)
        if begin is None:                                                     # who was absent has no peers
            return super().local(client, message)
        between = probes(client)
        reply, end = super().local(client, message), probes(client)
        measured = {name: (one - other).square().sum(1).mean().item() for name, one, other in (
            ("drift_contrast", between, begin), ("drift_local", end, between), ("drift_round", end, begin))}
        measured["drift_cosine"] = F.cosine_similarity(between - begin, end - between).mean().item()
        return reply | measured | self.gradients(client, *served)

    def gradients(self, client, payload, kinds, where):
        """Lengths and cosine of the two gradients."""
        parameters = [parameter for parameter in client.network.representation.parameters() if parameter.requires_grad]
        client.network.eval()
        with at_work(client):
            anchor = F.normalize(client.network.representation(self.public_batch(client, where)), dim=1)
            inputs, wanted = (part.to(client.device) for part in client.data["train"].take(
                torch.arange(min(PROBES, client.data["train"].size))))
            payload = tuple(part.to(client.device) for part in payload)
            losses = {"contrast": self.loss(client, anchor, payload, kinds, where),
                      "local": client.task.loss(client.network(inputs), wanted)}
            parts = {name: torch.autograd.grad(loss, parameters, materialize_grads=True) for name, loss in losses.items()}
            vectors = {name: torch.cat([part.flatten() for part in several]) for name, several in parts.items()}
        found = {f"gradient_{name}": vector.norm().item() for name, vector in vectors.items()}
        return found | {"gradient_cosine": F.cosine_similarity(*vectors.values(), dim=0).item()}


def probes(client):
    """(PROBES, d) unit-length representations of the first public samples."""
    return F.normalize(represent(client, client.public.first(PROBES)).float(), dim=1)

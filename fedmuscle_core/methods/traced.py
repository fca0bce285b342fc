"""FedMuscle that measures its two phases while it runs: how far each moves the representations, and how the gradients of both
losses are long and lie to each other.  A control: what it measures leaves the clients as numbers, which FedMuscle's do not.

Of the first PROBES public samples z, unit-length representations when a round begins, between its phases, at its end:

    drift_contrast = mean_i |z_i^between - z_i^begin|^2,   drift_local = mean_i |z_i^end - z_i^between|^2,
    drift_round = mean_i |z_i^end - z_i^begin|^2
    drift_cosine = mean_i cos(z_i^between - z_i^begin, z_i^end - z_i^between), -1 where the second phase undoes the first

At the end of the round, with respect to the representation model's parameters: gradient_local of the task loss on the first
PROBES private samples, gradient_contrast of the Muscle loss on the first PROBES public ones, against what the peers of the last
batch make of them then, Euclidean lengths; gradient_cosine of both.  What travels for it is not counted.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..client import represent
from ..exchange import Stage, expect
from ..method import by_metric
from ..placement import at_work
from .contrastive import by_name
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

    def play(self, server, round):
        """A round of FedMuscle; then the clients that took part tell what they make of the public probes, and measure."""
        losses, peers, (told,) = yield from self.contrast_phase(server, round, [self.local_phases(server, round)])
        self.settle(server, peers, told)
        size, kinds = min(PROBES, server.public_size), self.kinds(server)
        sent = by_name((yield Stage("probe", list(peers), lambda client: {}, lambda client, reply: self.check_upload(
            reply, size, server.cards[client]["dim"]), uncounted=("representations",))), "representations")
        there = {client: [peer for peer in peers[client] if peer in sent] for client in sent}

        def message_of(client):
            own = [kinds[one] for one in (client, *there[client])]
            return {"payload": self.serve(torch.stack([sent[peer] for peer in there[client]]), own), "kinds": own}

        measured = yield Stage("measure", [client for client in there if there[client]], message_of,
                               lambda client, reply: expect(reply, dict.fromkeys(NUMBERS[4:], float)), uncounted=("payload",))
        return {"contrastive_loss": losses, **by_metric(told), **by_metric(measured)}

    def contrast(self, client, message):
        if 0 in message["batches"]:
            client.kept["begin"] = probes(client)
        return super().contrast(client, message)

    def local(self, client, message):
        begin = client.kept.pop("begin", None)
        if begin is None:                                                     # who was absent has no peers
            return super().local(client, message)
        between = probes(client)
        reply, end = super().local(client, message), probes(client)
        measured = {name: (one - other).square().sum(1).mean().item() for name, one, other in (
            ("drift_contrast", between, begin), ("drift_local", end, between), ("drift_round", end, begin))}
        return reply | measured | {"drift_cosine": F.cosine_similarity(between - begin, end - between).mean().item()}

    def probe(self, client, message):
        return {"representations": probes(client)}

    def measure(self, client, message):
        """Lengths and cosine of the two gradients."""
        parameters = [parameter for parameter in client.network.representation.parameters() if parameter.requires_grad]
        client.network.eval()
        with at_work(client):
            (public, _), private = (samples.take(torch.arange(min(PROBES, samples.size)))
                                    for samples in (client.public, client.data["train"]))
            anchor = F.normalize(client.network.representation(public.to(client.device)), dim=1)
            inputs, wanted = (part.to(client.device) for part in private)
            payload = tuple(part.to(client.device) for part in message["payload"])
            losses = {"contrast": self.loss(client, anchor, payload, message["kinds"], ("probes",)),
                      "local": client.task.loss(client.network(inputs), wanted)}
            parts = {name: torch.autograd.grad(loss, parameters, materialize_grads=True) for name, loss in losses.items()}
            vectors = {name: torch.cat([part.flatten() for part in several]) for name, several in parts.items()}
        found = {f"gradient_{name}": vector.norm().item() for name, vector in vectors.items()}
        return found | {"gradient_cosine": F.cosine_similarity(*vectors.values(), dim=0).item()}


def probes(client):
    """(PROBES, d) unit-length representations of the first public samples."""
    return F.normalize(represent(client, client.public.first(PROBES)).float(), dim=1)

"""Centralised multi-task training: all private data in one place, one encoder, one decoder a task.  A ceiling, not federated.

Every step takes one batch of each task and sums their losses.  A round makes as many steps as `local_epochs` passes over the
largest task take, and at least `min_local_steps`; smaller tasks are gone through again (our choice).  On the dense tasks of
`mfed_dense` that is 66 steps a round on four batches each, where clients make 10 to 50 on one.
"""

import copy
import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch

from ..exchange import Stage
from ..method import Method
from ..seeds import generator, seeded
from .sharing import PARTS, RATES, check_architectures, copied, flattened, of_part, shapes_of


@dataclass
class Centre:
    """What the centre trains: networks {name of a task: network} with one encoder, their `tasks`, data {name: (inputs,
    targets)}, their optimiser, the `Training` of the clients."""

    networks: dict = field(default_factory=dict)
    tasks: dict = field(default_factory=dict)
    data: dict = field(default_factory=dict)
    optimizer: torch.optim.Optimizer | None = None
    training: object = None

    def state(self):
        return {"networks": {task: network.state_dict() for task, network in self.networks.items()}, "data": self.data,
                "optimizer": self.optimizer.state_dict()}

    def load(self, state):
        for task, network in self.networks.items():
            network.load_state_dict(state["networks"][task])
        self.data = {task: tuple(several) for task, several in state["data"].items()}
        self.optimizer.load_state_dict(state["optimizer"])


@dataclass(frozen=True)
class Centralised(Method):
    """No hyperparameters.  Needs all clients in one process: networks do not travel, and what is handed over is not checked."""

    name, label, colour = "centralised", "Centralised", "#000000"
    group, ceiling, stays = "sharing", True, "whole networks go to the server"
    exchanges, needs = "private data up, the model down", "all private data in one place"
    grid: ClassVar[dict] = {"local_lr": RATES, "local_batch_size": (8, 16, 32)}

    def check_cards(self, cards):
        check_architectures(cards, self.label)

    def memory(self):
        return Centre()

    def first(self, server):
        """Copies of the networks of each task's first client, one encoder, that of the first client; their optimiser."""
        tasks, centre = server.known("task"), server.memory
        owners = {}
        for client in server.clients:
            owners.setdefault(tasks[client], client)
        handed = yield Stage("lend", list(owners.values()), lambda client: {}, uncounted=("network",))
        centre.networks = {task: handed[client]["network"] for task, client in owners.items()}
        centre.tasks = {task: handed[client]["task"] for task, client in owners.items()}
        centre.training = handed[server.clients[0]]["training"]
        rates = {task: centre.training.local_lr * handed[client]["lr_scale"] for task, client in owners.items()}
        scales = [handed[client]["lr_scale"] for client in owners.values()]
        encoder = next(iter(centre.networks.values())).encoder()
        groups = [{"params": list(encoder.parameters()), "lr": centre.training.local_lr * sum(scales) / len(scales)}]
        for task, network in centre.networks.items():
            network.share_encoder(encoder)
            groups.append({"params": list(network.decoder().parameters()), "lr": rates[task]})
        centre.optimizer = torch.optim.AdamW(groups)

    def play(self, server, round):
        """One round; then every client holds the central encoder and its task's decoder.  Private data travel in the first."""
        tasks, centre = server.known("task"), server.memory
        if round == 1:
            sent = yield Stage("send_data", server.clients, lambda client: {})
            for task in centre.networks:
                several = [(reply["inputs"], reply["targets"]) for client, reply in sent.items() if tasks[client] == task]
                centre.data[task] = tuple(map(torch.cat, zip(*several, strict=True)))
        with seeded(server.seed, "centralised dropout", round):
            losses = train(centre, server.seed, round)
        states = {task: flattened({part: copied(getattr(network, part)()) for part in PARTS})
                  for task, network in centre.networks.items()}
        yield Stage("take", server.clients, lambda client: states[tasks[client]], ends=True)
        return {"local_loss": {client: losses[tasks[client]] for client in server.clients}}

    # Client functions.

    def register(self, client, message):
        return super().register(client, message) | {"shapes": shapes_of(client.network)}

    def lend(self, client, message):
        """A copy of the network, and how it is trained."""
        return {"network": copy.deepcopy(client.network), "task": client.task, "lr_scale": client.lr_scale,
                "training": client.training}

    def send_data(self, client, message):
        """All private data."""
        inputs, targets = client.data["train"].take(torch.arange(client.data["train"].size))
        return {"inputs": inputs, "targets": targets}

    def take(self, client, message):
        """The central encoder and the task's decoder."""
        for part in PARTS:
            getattr(client.network, part)().load_state_dict(of_part(message, part))
        return {}


def train(centre, seed, round):
    """One round at the centre; returns the mean loss of each task."""
    size = centre.training.local_batch_size
    largest = max(len(wanted) for _, wanted in centre.data.values())
    steps = max(centre.training.min_local_steps, centre.training.local_epochs * math.ceil(largest / size))
    losses = dict.fromkeys(centre.networks, 0.0)
    batches = {task: endless_batches(len(wanted), size, generator(seed, "centralised", round, task))
               for task, (_, wanted) in centre.data.items()}
    for network in centre.networks.values():
        network.train()
    for _ in range(steps):
        centre.optimizer.zero_grad()
        for task, network in centre.networks.items():
            rows, (inputs, wanted) = next(batches[task]), centre.data[task]
            device = next(network.parameters()).device
            loss = centre.tasks[task].loss(network(inputs[rows].to(device)), wanted[rows].to(device))
            loss.backward()
            losses[task] += loss.item() / steps
        centre.optimizer.step()
    return losses


def endless_batches(size, batch_size, rng):
    """Rows of shuffled passes over `size` samples, without end."""
    while True:
        yield from torch.randperm(size, generator=rng).split(batch_size)

"""Centralised multi-task training: all private data in one place, one encoder, one decoder a task.  A ceiling, not federated.

Every step takes one batch of each task and sums their losses.  A round makes as many steps as `local_epochs` passes over the
largest task take, and at least `min_local_steps`; smaller tasks are gone through again (our choice).  On the dense tasks of
`mfed_dense` that is 66 steps a round on four batches each, where clients make 10 to 50 on one.
"""

import copy
import math

import torch

from ..seeds import generator, seeded
from ..world.tasks import task_named
from . import sharing


def play_round(federation, round):
    """One round; then every client holds the central encoder and its task's decoder.  Private data travel in the first."""
    settings, central = federation.settings, federation.memory
    if round == 1:
        central.update(collect(federation))
    with seeded(settings.seed, "centralised dropout", round):
        losses = train(central, settings, round)
    for client in federation.clients:
        model = central["models"][client.task.name]
        for part in sharing.PARTS:
            state = getattr(model, part)().state_dict()
            federation.ledger.send(list(state.values()), round=round, client=client.index, direction="down")
            getattr(client.model, part)().load_state_dict(state)
    return {"local_loss": {client.index: losses[client.task.name] for client in federation.clients}}


def collect(federation):
    """What the centre trains: models {task: model} with one encoder, data {task: (inputs, targets)}, their optimiser.

    The first weights are those of the first client of each task, the encoder that of client 1.
    """
    models, parts, settings = {}, {}, federation.settings
    for client in sorted(federation.clients, key=lambda client: client.index):
        mine = federation.ledger.send(client.data["train"], round=1, client=client.index, direction="up")
        parts.setdefault(client.task.name, []).append(mine)
        if client.task.name not in models:
            models[client.task.name] = copy.deepcopy(client.model)
    encoder = next(iter(models.values())).encoder()
    scales = {task: task_named(task).lr_scale for task in models}
    groups = [{"params": list(encoder.parameters()), "lr": settings.local_lr * sum(scales.values()) / len(scales)}]
    for task, model in models.items():
        model.representation.backbone = encoder
        groups.append({"params": list(model.decoder().parameters()), "lr": settings.local_lr * scales[task]})
    data = {task: tuple(map(torch.cat, zip(*several, strict=True))) for task, several in parts.items()}
    return {"models": models, "data": data, "optimizer": torch.optim.AdamW(groups)}


def train(central, settings, round):
    """One round at the centre; returns the mean loss of each task."""
    size = settings.local_batch_size
    largest = max(len(wanted) for _, wanted in central["data"].values())
    steps = max(settings.min_local_steps, settings.local_epochs * math.ceil(largest / size))
    losses = dict.fromkeys(central["models"], 0.0)
    batches = {task: endless_batches(len(wanted), size, generator(settings.seed, "centralised", round, task))
               for task, (_, wanted) in central["data"].items()}
    for model in central["models"].values():
        model.train()
    for _ in range(steps):
        central["optimizer"].zero_grad()
        for task, model in central["models"].items():
            rows, (inputs, wanted) = next(batches[task]), central["data"][task]
            device = next(model.parameters()).device
            loss = task_named(task).loss(model(inputs[rows].to(device)), wanted[rows].to(device))
            loss.backward()
            losses[task] += loss.item() / steps
        central["optimizer"].step()
    return losses


def endless_batches(size, batch_size, rng):
    """Rows of shuffled passes over `size` samples, without end."""
    while True:
        yield from torch.randperm(size, generator=rng).split(batch_size)

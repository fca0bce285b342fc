"""One client: its private data, its network, its local and its contrastive phase."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .models import ClientModel, in_batches, load_backbone
from .scenes import digit_scenes
from .seeds import generator, seeded
from .tasks import TASKS, Task, targets


@dataclass
class Client:
    """`data`: {split: (images, targets)}; two optimisers, one for the whole model, one for the representation model."""

    index: int
    task: Task
    seed: int
    model: ClientModel
    data: dict
    local_optimizer: torch.optim.Optimizer
    contrastive_optimizer: torch.optim.Optimizer


def make_client(index, spec, settings):
    """Client `index` of a `ClientSpec`: private scenes and initial weights come from its own random streams.

    The private set belongs to (seed, client); validation and test scenes are the same for all seeds and clients of a task.
    """
    task = TASKS[spec.task]
    scenes = {"train": digit_scenes("train", task.layout, spec.train_size, settings.seed, "client", index),
              "validation": digit_scenes("validation", task.layout, settings.validation_size, 0)}
    if settings.test_size:
        scenes["test"] = digit_scenes("test", task.layout, settings.test_size, 0)
    data = {split: (these.images, targets(task.name, these)) for split, these in scenes.items()}
    with seeded(settings.seed, "client", index, "weights"):
        model = ClientModel(load_backbone(spec.backbone), settings.dim, task.num_outputs)
    return Client(index, task, settings.seed, model, data,
                  torch.optim.AdamW(model.parameters(), lr=settings.local_lr, fused=True),
                  torch.optim.AdamW(model.representation.parameters(), lr=settings.contrastive_lr, fused=True))


def embed(client, images):
    """Unit-length representations (B, dim) of public images, with their graph."""
    if not client.model.training:
        client.model.train()
    return F.normalize(client.model.representation(images), dim=1)


def step(optimizer, loss):
    """One gradient step; returns the loss as a number."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def local_phase(client, settings, round):
    """Passes of the task loss over the private set, the whole model learning; returns the mean loss.

    `local_epochs` passes, or as many whole ones as give `min_local_steps` steps: a client with 40 scenes would else make
    three steps a round, and its head could not follow the representation (our choice; Local gets the same).
    """
    images, wanted = client.data["train"]
    batch_size = settings.local_batch_size
    epochs = max(settings.local_epochs, math.ceil(settings.min_local_steps / math.ceil(len(images) / batch_size)))
    order = generator(client.seed, "client", client.index, "local", round)
    losses = []
    client.model.train()
    with seeded(client.seed, "client", client.index, "local dropout", round):
        for _ in range(epochs):
            for rows in torch.randperm(len(images), generator=order).split(batch_size):
                losses.append(step(client.local_optimizer, client.task.loss(client.model(images[rows]), wanted[rows])))
    return sum(losses) / len(losses)


def evaluate(client, split):
    """Score of the client's task on its "validation" or "test" scenes, in percent."""
    images, wanted = client.data[split]
    client.model.eval()
    return client.task.score(in_batches(client.model, images), wanted)

"""One client: its private data, its network, its local and its contrastive phase."""

import contextlib
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
    has_dropout: bool


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
    local, contrastive = flat_optimizers(model, settings.local_lr, settings.contrastive_lr)
    config = model.representation.backbone.config.to_dict()
    has_dropout = any(value for name, value in config.items() if "drop" in name)
    return Client(index, task, settings.seed, model, data, local, contrastive, has_dropout)


def flat_optimizers(model, local_lr, contrastive_lr):
    """AdamW of the whole model and AdamW of its representation model, each over one flat tensor.

    Small networks have many small tensors, and an optimiser's work per tensor would cost a tenth of every step.  All parameters
    and gradients become views of two flat tensors, those of the representation model first; the updates are the same.
    """
    parameters = [*model.representation.parameters(), *model.head.parameters()]
    flat = torch.cat([parameter.detach().flatten() for parameter in parameters])
    grad, end = torch.zeros_like(flat), 0
    for parameter in parameters:
        start, end = end, end + parameter.numel()
        parameter.data, parameter.grad = flat[start:end].view_as(parameter), grad[start:end].view_as(parameter)
    optimizers = []
    for size, lr in ((end, local_lr), (sum(p.numel() for p in model.representation.parameters()), contrastive_lr)):
        view = torch.nn.Parameter(flat[:size])
        view.grad = grad[:size]
        optimizers.append(torch.optim.AdamW([view], lr=lr, fused=True))
    return optimizers


def embed(client, images, *stream):
    """Unit-length representations (B, dim) of public images, with their graph; `stream` names the dropout's randomness."""
    if not client.model.training:
        client.model.train()
    with dropout_from(client, "embed", *stream):
        return F.normalize(client.model.representation(images), dim=1)


def dropout_from(client, *stream):
    """Context in which the client's dropout draws from its own stream, so that the order of clients does not matter."""
    return seeded(client.seed, "client", client.index, *stream) if client.has_dropout else contextlib.nullcontext()


def step(optimizer, loss):
    """One gradient step, which leaves the gradients at zero for the next one; returns the loss as a number."""
    loss.backward()
    optimizer.step()
    optimizer.param_groups[0]["params"][0].grad.zero_()    # the flat gradient, in place: the parameters hold views of it
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
    with dropout_from(client, "local dropout", round):
        for _ in range(epochs):
            for rows in torch.randperm(len(images), generator=order).split(batch_size):
                loss = client.task.loss(client.model(images.index_select(0, rows)), wanted[rows])
                losses.append(step(client.local_optimizer, loss))
    return sum(losses) / len(losses)


def evaluate(client, split):
    """Score of the client's task on its "validation" or "test" scenes, in percent."""
    images, wanted = client.data[split]
    client.model.eval()
    return client.task.score(in_batches(client.model, images), wanted)

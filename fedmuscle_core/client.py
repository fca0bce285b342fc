"""One client: its private data, its network, its local and its contrastive phase."""

import contextlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .augment import augment
from .models import ClientModel, DenseClientModel, in_batches, load_backbone
from .pairs import Pairs, scene_captions
from .partition import first_digits, like, split_by_class
from .scenes import digit_scenes
from .seeds import generator, seeded
from .setups import MFED_SETUPS, SETUPS
from .tasks import TASKS, Task, targets
from .text import load_tokenizer, token_ids


@dataclass
class Client:
    """`data`: {split: (inputs, targets)}; `public`: the public data as this client reads them, images or token ids.

    Two optimisers, one for the whole model, one for the representation model.
    """

    index: int
    task: Task
    seed: int
    model: ClientModel
    data: dict
    public: torch.Tensor
    local_optimizer: torch.optim.Optimizer
    contrastive_optimizer: torch.optim.Optimizer
    has_dropout: bool


def make_client(index, spec, settings, public):
    """Client `index` of a `ClientSpec`: private scenes and initial weights come from its own random streams; in the setups of
    M-Fed, where all methods have one architecture, the initial weights come from its task's.

    public: `Pairs`, the public images and, where text clients take part, their captions.
    The private set belongs to (seed, client); validation and test scenes are the same for all seeds and clients of a task.
    """
    task = TASKS[spec.task]
    stream = ("task", spec.task) if settings.setup in MFED_SETUPS else ("client", index)
    with seeded(settings.seed, *stream, "weights"):
        model = make_model(task, spec.backbone, settings.dim)
    local, contrastive = flat_optimizers(model, settings.local_lr * task.lr_scale, settings.contrastive_lr)
    config = model.representation.backbone.config.to_dict()
    has_dropout = any(value for name, value in config.items() if "drop" in name)
    data = private_sets(index, spec, settings)
    return Client(index, task, settings.seed, model, data, read(task, spec.backbone, public), local, contrastive, has_dropout)


def make_model(task, backbone, dim):
    """The network of one client: pretrained backbone, fresh projection and head."""
    if task.dense:
        return DenseClientModel(load_backbone(backbone), dim, task.num_outputs, task.fine)
    return ClientModel(load_backbone(backbone), dim, task.num_outputs, text=task.modality == "text")


def private_sets(index, spec, settings):
    """{split: (inputs, targets)} of client `index`: train, validation and, where the settings have any, test scenes.

    With `settings.dirichlet` the clients of a task split one pool of train scenes, see `partition`; the validation and test
    scenes of each are those of the task, as many as can be had in the class proportions of its own.
    """
    task = TASKS[spec.task]
    drawn = {"validation": ("validation", settings.validation_size, 0), "test": ("test", settings.test_size, 0)}
    drawn = {split: pool for split, pool in drawn.items() if pool[1]}
    if settings.dirichlet is None:
        drawn["train"] = ("train", spec.train_size, settings.seed, "client", index)
        return {split: private_data(task, spec.backbone, *pool) for split, pool in drawn.items()}
    together = [other for other, twin in enumerate(SETUPS[settings.setup], 1) if twin.task == spec.task]
    sizes = [SETUPS[settings.setup][other - 1].train_size for other in together]
    drawn["train"] = ("train", sum(sizes), settings.seed, "pool", spec.task)
    digits = {split: first_digits(digit_scenes(split, task.layout, *pool[1:])) for split, pool in drawn.items()}
    rows, shares = split_by_class(digits["train"], sizes, settings.dirichlet, settings.seed, "partition", spec.task)
    place = together.index(index)
    chosen = {split: rows[place] if split == "train" else like(digits[split], shares[:, place]) for split in drawn}
    whole = {split: private_data(task, spec.backbone, *pool) for split, pool in drawn.items()}
    return {split: (inputs[chosen[split]], wanted[chosen[split]]) for split, (inputs, wanted) in whole.items()}


def private_data(task, backbone, split, size, seed, *stream):
    """(inputs, targets) of `size` labelled scenes of one split, inputs as the client's backbone reads them."""
    scenes = digit_scenes(split, task.layout, size, seed, *stream)
    texts = scene_captions(split, task.layout, size, seed, *stream) if task.modality == "text" else None
    return read(task, backbone, Pairs(scenes.images, texts)), targets(task.name, scenes)


def read(task, backbone, pairs):
    """What a client sees of image-caption `Pairs`: the images (n, 3, 32, 32), or the captions' token ids (n, L)."""
    return token_ids(load_tokenizer(backbone), pairs.captions) if task.modality == "text" else pairs.images


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


def public_batch(client, rows, augmented, *stream):
    """Rows of the public data as the client reads them; `augmented`: through a random view of the stream (the same view
    for all clients of a modality, unless the stream names the client)."""
    batch = client.public.index_select(0, rows)
    return augment(batch, generator(client.seed, "augment", *stream)) if augmented else batch


def embed(client, images, *stream):
    """Unit-length representations (B, dim) of public inputs, with their graph; `stream` names the dropout's randomness."""
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


class LocalStep(NamedTuple):
    """Step `number` of the `total` ones of a local phase: the encoder's features of its batch, and the targets."""

    number: int
    total: int
    features: object
    wanted: torch.Tensor


def local_phase(client, settings, round, extend=None):
    """Passes of the task loss over the private set, the whole model learning; returns the mean loss.

    `local_epochs` passes, or as many whole ones as give `min_local_steps` steps: a client with 40 scenes would else make
    three steps a round, and its head could not follow the representation (our choice; Local gets the same).
    extend: function (loss, `LocalStep`) -> loss, for methods whose local objective has a further term.
    """
    images, wanted = client.data["train"]
    batch_size = settings.local_batch_size
    epochs = max(settings.local_epochs, math.ceil(settings.min_local_steps / math.ceil(len(images) / batch_size)))
    order = generator(client.seed, "client", client.index, "local", round)
    losses, num_steps = [], epochs * math.ceil(len(images) / batch_size)
    client.model.train()
    with dropout_from(client, "local dropout", round):
        for _ in range(epochs):
            for rows in torch.randperm(len(images), generator=order).split(batch_size):
                inputs = images.index_select(0, rows)
                if extend is None:
                    loss = client.task.loss(client.model(inputs), wanted[rows])
                else:
                    features = client.model.encode(inputs)
                    loss = client.task.loss(client.model.decode(features), wanted[rows])
                    loss = extend(loss, LocalStep(len(losses), num_steps, features, wanted[rows]))
                losses.append(step(client.local_optimizer, loss))
    return sum(losses) / len(losses)


def evaluate(client, split):
    """Score of the client's task on its "validation" or "test" scenes, in percent; nan where it answers NaN or infinity."""
    images, wanted = client.data[split]
    client.model.eval()
    logits = in_batches(client.model, images)
    return client.task.score(logits, wanted) if torch.isfinite(logits).all() else float("nan")

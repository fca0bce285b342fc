"""One client: its private data, its network, its local and its contrastive phase."""

import contextlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .augment import augment
from .experiments.client_data import private_sets, read
from .experiments.setups import MFED_SETUPS
from .networks.adaptation import adapt
from .networks.backbones import load_backbone, pixels_of
from .networks.client_network import ClientModel, DenseClientModel, in_batches
from .placement import at_work, flat_optimizers, move
from .seeds import generator, seeded
from .world.real.photos import VOID
from .world.tasks import Task, task_named


@dataclass
class Client:
    """`data`: {split: (inputs, targets)}; `public`: the public data as this client reads them, images or token ids.

    Two optimisers, one for the whole model, one for the representation model.  device: where the network is; works_on: where it
    computes; swapped: it waits in host memory between its turns, see `placement.at_work`.
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
    device: torch.device = torch.device("cpu")
    works_on: torch.device = torch.device("cpu")
    swapped: bool = False


def make_client(index, spec, settings, public, device="cpu"):
    """Client `index` of a `ClientSpec`: private scenes and initial weights come from its own random streams; in the setups of
    M-Fed, where all methods have one architecture, the initial weights come from its task's.

    public: `Pairs`, the public images and, where text clients take part, their captions.
    The private set belongs to (seed, client); validation and test scenes are the same for all seeds and clients of a task,
    unless `settings.dirichlet` deals them out as well.
    """
    task = task_named(spec.task)
    stream = ("task", spec.task) if settings.setup in MFED_SETUPS else ("client", index)
    with seeded(settings.seed, *stream, "weights"):
        model = make_model(task, spec.backbone, settings)
    local, contrastive = flat_optimizers(model, settings.local_lr * task.lr_scale, settings.contrastive_lr)
    config = model.representation.backbone.config.to_dict()
    has_dropout = any(value for name, value in config.items() if "drop" in name)
    data = private_sets(index, spec, settings)
    seen = None if public is None else read(task, spec.backbone, public)
    client = Client(index, task, settings.seed, model, data, seen, local, contrastive, has_dropout,
                    works_on=torch.device(device), swapped=settings.offload)
    if client.works_on != client.device and not client.swapped:
        move(client, client.works_on)
    if settings.adaptation == "frozen" and not (task.dense or settings.augment or settings.method == "simclr"):
        keep_features(client)
    return client


def make_model(task, backbone, settings):
    """The network of one client: pretrained backbone, adapted, with fresh projection and head."""
    return assembled(task, load_backbone(backbone), backbone, settings)


def assembled(task, network, name, settings):
    """The network around the backbone `network`, which is called `name`."""
    adapt(network, settings.adaptation, settings.lora_rank)
    scale = pixels_of(name, settings.image_size, settings.precision)
    if task.dense:
        return DenseClientModel(network, settings.dim, task.num_outputs, task.fine, scale)
    return ClientModel(network, settings.dim, task.num_outputs, text=task.modality == "text", scale=scale)


def keep_features(client):
    """Replace a client's inputs by the pooled features of its frozen backbone, computed once: (n, F)."""
    representation = client.model.representation
    client.model.eval()
    with at_work(client):
        def pooled(inputs):
            return in_batches(lambda part: representation.pool(representation.features(part)), inputs, device=client.device)

        client.data = {split: (pooled(inputs), wanted) for split, (inputs, wanted) in client.data.items()}
        client.public = None if client.public is None else pooled(client.public)


def public_batch(client, rows, augmented, *stream):
    """Rows of the public data as the client reads them; `augmented`: through a random view of the stream (the same view
    for all clients of a modality, unless the stream names the client)."""
    batch = client.public.index_select(0, rows)
    if augmented:
        batch = batch.float() / 255 if batch.dtype == torch.uint8 else batch
        batch = augment(batch, generator(client.seed, "augment", *stream))
    return batch.to(client.device)


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
    with at_work(client), dropout_from(client, "local dropout", round):
        for _ in range(epochs):
            for rows in torch.randperm(len(images), generator=order).split(batch_size):
                inputs, answers = images.index_select(0, rows).to(client.device), wanted[rows].to(client.device)
                if extend is not None:
                    features = client.model.encode(inputs)
                    loss = client.task.loss(client.model.decode(features), answers)
                    loss = extend(loss, LocalStep(len(losses), num_steps, features, answers))
                else:
                    loss = accumulated(client, inputs, answers, settings.micro_batch_size)
                losses.append(step(client.local_optimizer, loss))
    return sum(losses) / len(losses)


def accumulated(client, inputs, wanted, size):
    """The task loss of a batch, `size` samples at a time: all parts but the last have added their gradients already when it
    returns.  With `size` None, or a batch that is no larger, the ordinary loss.

    The loss is a mean over answers, those of pixels without a class left out: each part counts by how many it has.
    """
    if size is None or len(inputs) <= size:
        return client.task.loss(client.model(inputs), wanted)
    answers = [(part, own, (own != VOID).sum().item() if client.task.dense else own.numel())
               for part, own in zip(inputs.split(size), wanted.split(size), strict=True)]
    answers = [each for each in answers if each[2]] or answers[-1:]
    total, done = sum(count for *_, count in answers) or 1, 0.0
    for part, own, count in answers[:-1]:
        loss = client.task.loss(client.model(part), own) * (count / total)
        loss.backward()
        done = done + loss.detach()
    part, own, count = answers[-1]
    return done + client.task.loss(client.model(part), own) * (count / total)


def evaluate(client, split):
    """Score of the client's task on its "validation" or "test" scenes, in percent; nan where it answers NaN or infinity."""
    images, wanted = client.data[split]
    finite, as_classes = [], client.task.dense and client.task.source       # logits of photos' pixels would fill the memory

    def answers(part):
        logits = client.model(part)
        finite.append(torch.isfinite(logits).all().item())
        return logits.argmax(1).to(torch.uint8) if as_classes else logits

    client.model.eval()
    with at_work(client):
        found = in_batches(answers, images, device=client.device)
    return client.task.score(found, wanted) if all(finite) else float("nan")

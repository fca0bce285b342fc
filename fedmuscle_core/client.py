"""One client: its private data, its network, what it does in a local and in a contrastive phase."""

import contextlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from . import augment as augmentation
from .checks import boolean, number, positive_int
from .data import samples, unlabelled
from .network import Network, in_batches
from .placement import at_work, flat_optimizers, move
from .seeds import generator, seeded
from .tasks import Task

HELD_OUT = 256          # public samples that tell how alike representations are


@dataclass(frozen=True)
class Training:
    """The local phase, the same for every client: AdamW of rate `local_lr` on batches of `local_batch_size`, `local_epochs`
    passes [E], or as many whole ones as give `min_local_steps` steps: a client with 40 samples would else make three steps a
    round, and its head could not follow the representation (our choice; Local gets the same).

    keep_best: a client with validation samples is tested with the parameters it had at its best score on them, the first of
    equal ones, not with those it ends with; how alike representations are is measured with the latter."""

    local_epochs: int = 1
    local_lr: float = 1e-3
    local_batch_size: int = 16
    min_local_steps: int = 10
    keep_best: bool = False

    def __post_init__(self):
        boolean("keep_best", self.keep_best)
        for name in ("local_epochs", "local_batch_size", "min_local_steps"):
            positive_int(name, getattr(self, name))
        number("local_lr", self.local_lr, above=0)


class Client:
    """A participant with a network, a task and private data; `name` tells it from the others, a word or a number.

    encoder: module, inputs -> representations (B, d), the same d for all clients; head: module, representations -> outputs of
    `task` (see `tasks`); or encoder: a `Network`, head: None.  The modules are trained in place.
    train, validation, test: (inputs, targets) as tensors, a Dataset of such pairs or a DataLoader; the last two optional.
    public: the public data as this client reads them, a tensor or Dataset of inputs, sample i the same for all clients.
    held_out: likewise, to measure alignment on; the first 256 public samples if None.
    lr_scale: factor of the local learning rate.  view: function (batch, torch.Generator) -> another view of a public batch;
    views: function (rows, torch.Generator) -> another view of these public samples, in its place.
    micro_batch_size: samples that go through the network at a time, None for whole batches.  works_on: the device it computes
    on, that of its parameters if None; offload: the network waits in host memory between the client's turns.
    Raises ValueError, before any training, naming the client and what does not fit.
    """

    def __init__(self, name, encoder, head, task, *, train, validation=None, test=None, public=None, held_out=None,
                 lr_scale=1.0, view=augmentation.augment, views=None, micro_batch_size=None, works_on=None, offload=False):
        self.name, who = name, f"client {name}"
        if isinstance(name, bool) or not isinstance(name, (int, str)) or isinstance(name, int) and name < 0:
            raise ValueError(f"name: got {name!r}, expected a word or a number from 0")
        if head is None and not isinstance(encoder, Network):
            raise ValueError(f"{who}: got no head, expected one, or a `Network` as encoder")
        if not isinstance(task, Task):
            raise ValueError(f"{who}: task: got {task!r}, expected a task such as classification(10)")
        for what, given in (("view", view), ("views", view if views is None else views)):
            if not callable(given):
                raise ValueError(f"{who}: {what}: got {given!r}, expected a function")
        self.network = encoder if head is None else Network(encoder, head)
        self.task, self.lr_scale = task, number(f"{who}: lr_scale", lr_scale, above=0)
        self.view, self.views = view, views
        self.micro_batch_size, self.offload = micro_batch_size, boolean(f"{who}: offload", offload)
        if micro_batch_size is not None:
            positive_int(f"{who}: micro_batch_size", micro_batch_size)
        given = {"train": train, "validation": validation, "test": test}
        self.data = {split: samples(f"{who}: {split}", data) for split, data in given.items() if data is not None}
        if "train" not in self.data:
            raise ValueError(f"{who}: got no train samples, expected some")
        self.public = None if public is None else unlabelled(f"{who}: public", public)
        self.held_out = self.public and self.public.first(HELD_OUT) if held_out is None else unlabelled(
            f"{who}: held_out", held_out)
        self.device = _device_of(who, self.network)
        self.works_on = self.device if works_on is None else _device_named(f"{who}: works_on", works_on)
        for split, data in self.data.items():
            task.check(f"{who}: {split}", data.all_targets())
        self.dim = _check_network(who, self)
        self.learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.seed = self.training = self.local_optimizer = self.contrastive_optimizer = self.best = None
        self.kept = {}

    @property
    def label_space(self):
        """Name of the task; the client's own where the task has none."""
        return self.task.name or str(self.name)

    def join(self, seed, training, contrastive_lr=None):
        """Take part in a federation: its seed and training, and fresh optimisers.  Returns the client."""
        self.seed, self.training, self.kept, self.best = seed, training, {}, None
        for parameter in self.learning:                                       # a method may have frozen some
            parameter.requires_grad_(True)
        if contrastive_lr is not None and not any(p.requires_grad for p in self.network.representation.parameters()):
            raise ValueError(f"client {self.name}: got an encoder without parameters that learn, expected some: the method "
                             "trains the representation")
        check_batches(self)
        self.local_optimizer, self.contrastive_optimizer = flat_optimizers(
            self.network, training.local_lr * self.lr_scale, contrastive_lr or training.local_lr)
        if self.works_on != self.device and not self.offload:
            move(self, self.works_on)
        return self


def public_batch(client, rows, augmented, *stream):
    """Rows of the public data as the client reads them; `augmented`: through a random view of the stream (the same view
    for all clients of a modality, unless the stream names the client)."""
    rng = generator(client.seed, "augment", *stream) if augmented else None
    if augmented and client.views is not None:
        return client.views(rows, rng).to(client.device)
    batch = client.public.take(rows)[0]
    if augmented:
        batch = client.view(batch.float() / 255 if batch.dtype == torch.uint8 else batch, rng)
    return batch.to(client.device)


def check_view(client):
    """ValueError where the client's `view` does not take its public samples."""
    try:
        public_batch(client, torch.tensor([0]), True, "check")
    except ValueError as error:
        raise ValueError(f"client {client.name}: {error}") from error


def embed(client, inputs, *stream):
    """Unit-length representations (B, d) of public inputs, with their graph; `stream` names the dropout's randomness."""
    if not client.network.training:
        client.network.train()
    with own_randomness(client, "embed", *stream):
        return F.normalize(client.network.representation(inputs), dim=1)


def or_nan(loss_of, features):
    """`loss_of(features)`; nan where the features have NaN or infinity, which losses refuse: a client whose training diverges
    tells so by its losses."""
    return loss_of(features) if torch.isfinite(features).all() else math.nan * features.sum()


def own_randomness(client, *stream):
    """Context in which the client's network draws from a stream of its own, so that the order of clients does not matter."""
    return seeded(client.seed, "client", client.name, *stream) if client.network.draws else contextlib.nullcontext()


def represent(client, inputs):
    """Representations (n, d) of `Samples` as the client's network gives them when it is used, in host memory."""
    client.network.eval()
    with at_work(client):
        return in_batches(client.network.representation, inputs, device=client.device)


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


def local_steps(training, size):
    """(passes, steps) of a local phase over `size` samples."""
    batches = math.ceil(size / training.local_batch_size)
    passes = max(training.local_epochs, math.ceil(training.min_local_steps / batches))
    return passes, passes * batches


def check_batches(client):
    """ValueError where the local phase has a batch, or part of one, of a single sample, and the network has a batch
    normalisation that refuses it."""
    network, micro = client.network, client.micro_batch_size
    size, most = client.data["train"].size, client.training.local_batch_size
    sizes = {min(size, most), size % most}
    if 1 not in (sizes if micro is None else {part for each in sizes for part in (min(each, micro), each % micro)}):
        return
    was_training, buffers = network.training, {name: value.clone() for name, value in network.named_buffers()}
    network.train()
    try:
        if any(isinstance(layer, _BatchNorm) and layer.training for layer in network.modules()):
            with seeded(0, "check"), torch.no_grad():
                network(client.data["train"].take(torch.tensor([0]))[0].to(client.device))
    except ValueError as error:
        raise ValueError(f"client {client.name}: train: got {size} samples with local_batch_size {most} and micro_batch_size "
                         f"{micro}, so that one goes through the network by itself, expected at least two: its batch "
                         "normalisation has no variance of one") from error
    finally:
        put_back(client, buffers)
        network.train(was_training)


def local_phase(client, round, extend=None):
    """Passes of the task loss over the private set, the whole network learning, see `Training`; returns the mean loss, nan
    where a parameter ends as NaN or infinity.

    extend: function (loss, `LocalStep`) -> loss, for methods whose local objective has a further term.
    """
    data, task, losses = client.data["train"], client.task, []
    order = generator(client.seed, "client", client.name, "local", round)
    passes, total = local_steps(client.training, data.size)
    client.network.train()
    with at_work(client), own_randomness(client, "local dropout", round):
        for _ in range(passes):
            for rows in torch.randperm(data.size, generator=order).split(client.training.local_batch_size):
                inputs, wanted = (part.to(client.device) for part in data.take(rows))
                if extend is not None:
                    features = client.network.encode(inputs)
                    loss = task.loss(client.network.decode(features), wanted)
                    loss = extend(loss, LocalStep(len(losses), total, features, wanted))
                else:
                    loss = accumulated(client, inputs, wanted, client.micro_batch_size)
                losses.append(step(client.local_optimizer, loss))
        (flat,) = client.local_optimizer.param_groups[0]["params"]
        return sum(losses) / len(losses) if torch.isfinite(flat).all() else math.nan


def accumulated(client, inputs, wanted, size):
    """The task loss of a batch, `size` samples at a time: all parts but the last have added their gradients already when it
    returns.  With `size` None, or a batch that is no larger, the ordinary loss.

    The loss is a mean over answers, those of pixels without a class left out: each part counts by how many it has.
    """
    network, task = client.network, client.task
    if size is None or len(inputs) <= size:
        return task.loss(network(inputs), wanted)
    answers = [(part, own, task.num_answers(own)) for part, own in zip(inputs.split(size), wanted.split(size), strict=True)]
    answers = [each for each in answers if each[2]] or answers[-1:]
    total, done = sum(count for *_, count in answers) or 1, 0.0
    for part, own, count in answers[:-1]:
        loss = task.loss(network(part), own) * (count / total)
        loss.backward()
        done = done + loss.detach()
    part, own, count = answers[-1]
    return done + task.loss(network(part), own) * (count / total)


def evaluate(client, split):
    """Score of the client's task on its "validation" or "test" samples, in percent; nan where it answers NaN or infinity."""
    data, keep, kept, targets = client.data[split], client.task.keep or (lambda outputs: outputs), [], []
    client.network.eval()
    with at_work(client), torch.no_grad():
        for rows in torch.arange(data.size).split(256):
            inputs, wanted = data.take(rows)
            outputs = client.network(inputs.to(client.device))
            if not torch.isfinite(outputs).all():
                return float("nan")
            kept.append(keep(outputs).cpu())
            targets.append(wanted)
    return client.task.score(torch.cat(kept), torch.cat(targets))


def score(client, split):
    """`evaluate`, of the test samples `at_best`; with `Training.keep_best` a validation score that is the best so far keeps the
    parameters it was reached with."""
    if split == "test":
        with at_best(client):
            return evaluate(client, split)
    found = evaluate(client, split)
    better = not math.isnan(found) and (client.best is None or found > client.best["score"])
    if split == "validation" and client.training.keep_best and better:
        client.best = {"score": found, "network": {name: value.clone() for name, value in what_learns(client).items()}}
    return found


@contextlib.contextmanager
def at_best(client):
    """Context in which the client has the parameters of its best validation score, where it keeps them."""
    if client.best is None:
        yield client
        return
    now = {name: value.clone() for name, value in what_learns(client).items()}
    put_back(client, client.best["network"])
    try:
        yield client
    finally:
        put_back(client, now)


def what_learns(client):
    """{name: tensor} in host memory of all that training changes in a client's network: parameters that learn, buffers."""
    network = client.network
    learning = {name: value.detach().cpu() for name, value in network.named_parameters() if value.requires_grad}
    return learning | {name: value.cpu() for name, value in network.named_buffers()}


@torch.no_grad()
def put_back(client, values):
    """Give a client's network `what_learns` of an earlier moment."""
    own = dict(client.network.named_parameters()) | dict(client.network.named_buffers())
    for name, value in values.items():
        own[name].copy_(value)


def _device_named(who, name):
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, TypeError) as error:                # torch without CUDA asserts
        raise ValueError(f"{who}: got {name!r}, expected a device that is here: {str(error).splitlines()[0]}") from error


def _device_of(who, network):
    """The one device of a network's parameters; ValueError where they have several, or several types, or none learns."""
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if not learning:
        raise ValueError(f"{who}: got a network without parameters that learn, expected some")
    kinds = {(str(parameter.device), str(parameter.dtype)) for parameter in learning}
    if len(kinds) > 1:
        raise ValueError(f"{who}: got parameters on or of {sorted(kinds)}, expected one device and one type")
    return learning[0].device


@torch.no_grad()
def _check_network(who, client):
    """Width d of the representations, from one sample of each split, of the public and of the held-out data; ValueError where
    they, or the outputs and the loss of a split, are not what the task needs.  Network and randomness stay as they were."""
    network, was_training, widths = client.network, client.network.training, {}
    network.eval()
    try:
        with seeded(0, "check"):
            for name, data in (client.data | {"public": client.public, "held_out": client.held_out}).items():
                if data is not None:
                    inputs, *wanted = data.take(torch.tensor([0]))
                    widths[name] = _check_representation(who, network, inputs, name, client.device)
                    if name in client.data:
                        _check_answer(who, client, inputs.to(client.device), *wanted, name)
        if len(set(widths.values())) > 1:
            raise ValueError(f"{who}: encoder: got representations of width {widths}, expected one width")
        trained = {id(p) for part in (network.representation, network.head) for p in part.parameters()}
        if any(p.requires_grad and id(p) not in trained for p in network.parameters()):
            raise ValueError(f"{who}: got parameters outside representation and head, expected all that learn inside them")
        return widths["train"]
    finally:
        network.train(was_training)


def _check_representation(who, network, inputs, name, device):
    """Width of the representation of one sample's `inputs`; ValueError where it is none."""
    if not isinstance(inputs, torch.Tensor):
        raise ValueError(f"{who}: {name}: got samples whose input is {type(inputs).__name__}, expected a tensor")
    found = _tried(f"{who}: encoder", f"one {name} sample of shape {tuple(inputs.shape)}", network.representation,
                   inputs.to(device))
    if not isinstance(found, torch.Tensor) or found.ndim != 2 or len(found) != 1:
        raise ValueError(f"{who}: encoder: got representations of {_shape(found)} for one {name} sample, expected a tensor "
                         "(1, d)")
    return found.shape[1]


def _check_answer(who, client, inputs, wanted, name):
    """ValueError where a network's outputs for one sample, or the loss of these, are not what the task needs."""
    task, sample = client.task, f"one {name} sample of shape {tuple(inputs.shape)}"
    outputs = _tried(f"{who}: head", sample, client.network, inputs)
    dims = 4 if task.dense else 2
    if not isinstance(outputs, torch.Tensor) or outputs.ndim != dims or outputs.shape[1] != task.num_outputs:
        raise ValueError(f"{who}: head: got outputs of {_shape(outputs)} for one {name} sample, expected "
                         f"(1, {task.num_outputs}{', H, W' if task.dense else ''}) for {task.metric}")
    loss = _tried(f"{who}: loss", f"outputs of {_shape(outputs)} and targets of {_shape(wanted)}, of one {name} sample",
                  task.loss, outputs, wanted.to(client.device))
    if not isinstance(loss, torch.Tensor) or loss.ndim or task.num_answers(wanted) and not torch.isfinite(loss):
        got = f"{loss:.4g}" if isinstance(loss, torch.Tensor) and not loss.ndim else _shape(loss)
        raise ValueError(f"{who}: loss: got {got} for one {name} sample, expected a finite tensor of shape ()")


def _shape(value):
    return f"shape {tuple(value.shape)}" if isinstance(value, torch.Tensor) else type(value).__name__


def _tried(who, what, function, *arguments):
    """`function` of the arguments; ValueError, saying `who` failed on `what`, where it cannot take them."""
    try:
        return function(*arguments)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ValueError(f"{who}: failed on {what}: {(str(error) or type(error).__name__).splitlines()[0]}") from error

"""From settings to a federation: the world of the setup, read by the clients' networks."""

import dataclasses

import torch

from ..client import HELD_OUT, Client, at_best
from ..federation import Federation
from ..methods.sharing import Sharing
from ..network import in_batches
from ..networks.adaptation import adapt
from ..networks.backbones import load_backbone, pixels_of
from ..networks.client_network import (
    ClientNetwork,
    DenseClientNetwork,
    DenseTailNetwork,
    RepresentationModel,
    TextRepresentationModel,
)
from ..networks.last import Tail, split
from ..networks.pair_network import PairNetwork, PairRepresentation, packed
from ..networks.text import TEXT_LENGTH, load_tokenizer, token_ids
from ..placement import at_work
from ..seeds import seeded
from ..tasks import recalls
from ..world.real.sources import source_named
from ..world.scenes import SIZE
from ..world.tasks import task_named
from ..world.worlds import world_of
from .parked import ParkedClients
from .trunks import KeptTrunk


def world_for(settings):
    """The `World` of a run; ValueError where clients and public data do not fit."""
    setup, public = settings.setup, settings.method.uses_public
    return world_of(setup.tasks, setup.sizes, seed=settings.seed, public_domain=settings.public_domain if public else None,
                    public_size=settings.public_size if public else None, validation_size=settings.validation_size,
                    test_size=settings.test_size, dirichlet=settings.dirichlet,
                    default_domain=setup.settings.get("public_domain"))


def check(settings):
    """The settings, or a ValueError, before any work, where they do not fit one another."""
    world_for(settings).check()
    public_size = settings.public_size if settings.method.uses_public else None
    settings.method.check(len(settings.setup.clients), public_size, settings.dim)
    compute = settings.compute
    shares = settings.method.group == "sharing" or isinstance(settings.method, Sharing)
    if shares and (compute.offload or compute.adaptation not in ("full", "last")):
        raise ValueError(f"offload, adaptation: got {compute.offload}, {compute.adaptation!r}, expected False and 'full' or "
                         f"'last' with {settings.method.label}, which exchanges all that learns")
    return settings


def build(settings, parked=None, device="cpu"):
    """The federation of `settings` before its first round.

    parked: a folder for the clients' states, so that one network at a time is in memory; the results are the same.  Raises
    ValueError where the method needs all networks at once: aligning ones do unless `refresh` is "round".
    device: where networks compute.
    """
    method, world = check(settings).method, world_for(settings)
    if parked is not None and getattr(method, "refresh", None) == "batch":
        raise ValueError(f"parked: got a folder with {method.name} and refresh 'batch', which needs the networks of all "
                         "clients at every batch; expected refresh 'round'")
    public, held_out = world.public(), world.held_out(HELD_OUT)
    options = {"seed": settings.seed, "training": settings.training, "absence": settings.absence,
               "bad_uploads": settings.bad_uploads}
    indices = range(1, len(settings.setup.clients) + 1)

    def make(index):
        return make_client(index, settings, world, public, held_out, device)

    if parked is None:
        return Federation([make(index) for index in indices], method, **options)
    federation = Federation(ParkedClients(lambda index: federation.join(make(index)), len(indices), parked), method, **options)
    return federation


def make_client(index, settings, world, public, held_out, device="cpu"):
    """Client `index` of a setup: private samples and initial weights come from its own random streams; where clients of a task
    have one start, the initial weights come from its task's.

    public, held_out: `Pairs`; the client reads images or captions.
    """
    spec, compute = settings.setup.clients[index - 1], settings.compute
    task = task_named(spec.task)
    stream = ("task", spec.task) if settings.setup.one_start else ("client", index)
    if task.modality == "both":
        return make_pair_client(index, settings, world, public, held_out, device)
    with seeded(settings.seed, *stream, "weights"):
        backbone, trunk = load_backbone(spec.backbone), None
        if compute.adaptation == "last":
            trunk, backbone = split(backbone, compute.last_stages)
        network = make_network(task, backbone, spec.backbone, settings)
    data = {part: (read(task, spec.backbone, task.modality, pairs), wanted)
            for part, (pairs, wanted) in world.private(index).items()}
    shared = {name: None if pairs is None else read(task, spec.backbone, task.modality, pairs)
              for name, pairs in (("public", public), ("held_out", held_out))}
    if trunk is not None:
        kept = KeptTrunk(trunk, spec.backbone, compute, device)
        if shared["public"] is not None and settings.method.changes_public:
            shared["views"] = kept.views(shared["public"], compute.views)
        data = {part: (kept.private(inputs), wanted) for part, (inputs, wanted) in data.items()}
        shared |= {name: keep(shared[name]) for name, keep in (("public", kept.public), ("held_out", kept.private))
                   if shared[name] is not None}
    client = Client(index, network, None, task, **data, **shared, lr_scale=task.lr_scale, works_on=device,
                    micro_batch_size=compute.micro_batch_size, offload=compute.offload)
    if compute.adaptation == "frozen" and not (task.dense or settings.method.changes_public):
        keep_features(client)
    return client


def make_pair_client(index, settings, world, public, held_out, device="cpu"):
    """As `make_client`, of a client that reads images with texts, by a backbone for each."""
    spec, compute = settings.setup.clients[index - 1], settings.compute
    task = dataclasses.replace(task_named(spec.task), num_outputs=2 * settings.dim)
    if len(spec.backbones) != 2:
        raise ValueError(f"client {index}: got backbone {spec.backbone!r}, expected two, for images and texts, as in "
                         "'resnet_small+bert_small'")
    models, trunks = [], []
    with seeded(settings.seed, "client", index, "weights"):
        for name, make in zip(spec.backbones, (RepresentationModel, TextRepresentationModel), strict=True):
            backbone = load_backbone(name)
            if compute.adaptation == "last":
                trunk, backbone = split(backbone, compute.last_stages)
                trunks.append(KeptTrunk(trunk, name, compute, device))
            adapt(backbone, compute.adaptation, compute.lora_rank)
            models.append(make(backbone, settings.dim, pixels_of(name, compute.image_size, compute.precision)))

    def read_both(pairs):
        both = [read(task, *reader, pairs) for reader in zip(spec.backbones, ("image", "text"), strict=True)]
        return [kept.private(part) for kept, part in zip(trunks, both, strict=True)] if trunks else both

    data = {part: (read_both(pairs), wanted) for part, (pairs, wanted) in world.private(index).items()}
    (images, texts), _ = data["train"]
    network = PairNetwork(PairRepresentation(*models, images.shape[1:], texts.shape[1:]))
    return Client(index, network, None, task, **{part: (packed(*inputs), wanted) for part, (inputs, wanted) in data.items()},
                  **{name: None if pairs is None else packed(*read_both(pairs)) for name, pairs in (
                      ("public", public), ("held_out", held_out))},
                  lr_scale=task.lr_scale, works_on=device, micro_batch_size=compute.micro_batch_size, offload=compute.offload,
                  view=no_view)


def no_view(batch, rng):
    """ValueError: nobody has said what another view of a pair is."""
    raise ValueError("augment: got views of pairs of images and texts, expected a method that changes no public samples")


def make_network(task, backbone, name, settings):
    """The network around a backbone, which is called `name`: adapted, with fresh projection and head."""
    adapt(backbone, settings.compute.adaptation, settings.compute.lora_rank)
    scale = pixels_of(name, settings.compute.image_size, settings.compute.precision)
    if task.dense and isinstance(backbone, Tail):
        return DenseTailNetwork(backbone, settings.dim, task.num_outputs, task_side(task), scale)
    if task.dense:
        return DenseClientNetwork(backbone, settings.dim, task.num_outputs, task.fine, scale)
    return ClientNetwork(backbone, settings.dim, task.num_outputs, text=task.modality == "text", scale=scale)


def task_side(task):
    """Side of the masks of a dense task."""
    return source_named(task.source).size if task.source else SIZE


def read(task, backbone, modality, pairs):
    """What a client sees of `Pairs`: "image", the images (n, 3, H, W), or "text", the captions' token ids (n, L); real texts
    are cut off after TEXT_LENGTH tokens."""
    if modality == "image":
        return pairs.images
    limits = {"max_length": TEXT_LENGTH, "cut": True} if task.source else {}
    return token_ids(load_tokenizer(backbone), pairs.captions, **limits)


def keep_features(client):
    """Replace a client's inputs by the pooled features of its frozen backbone, computed once: (n, F)."""
    representation = client.network.representation
    client.network.eval()
    with at_work(client):
        def pooled(samples):
            return samples.with_inputs(in_batches(lambda part: representation.pool(representation.features(part)), samples,
                                                  device=client.device))

        client.data = {split: pooled(samples) for split, samples in client.data.items()}
        client.public = None if client.public is None else pooled(client.public)


def predicted_masks(federation, count=6):
    """{client: predicted classes of its first `count` test scenes} of every client with dense scenes: a text of one hexadecimal
    digit a pixel for each scene, row by row; {} where there are no test scenes, and with photos."""
    found = {}
    for client in federation.clients:
        if client.task.dense and not client.task.source and "test" in client.data:
            client.network.eval()
            with at_best(client):
                classes = in_batches(client.network, client.data["test"].inputs[:count]).argmax(1)
            found[client.name] = ["".join(f"{value:x}" for value in mask.flatten().tolist()) for mask in classes]
    return found


def recalls_in_test(federation):
    """{client: `tasks.recalls` of its test pairs} of the clients that read pairs, with the parameters they are tested with."""
    found = {}
    for client in federation.clients:
        if client.task.modality == "both" and "test" in client.data:
            client.network.eval()
            with at_best(client), at_work(client):
                found[client.name] = recalls(in_batches(client.network, client.data["test"], device=client.device))
    return found


def mask_from_text(text):
    """(side, side) classes from a text of `predicted_masks`; ValueError where it is not square or not hexadecimal."""
    side = round(len(text) ** 0.5)
    if side * side != len(text):
        raise ValueError(f"text: got {len(text)} digits, expected a square number")
    return torch.tensor([int(digit, 16) for digit in text]).view(side, side)

"""The round loop: build the clients of a setup, play the rounds of a method, keep the history."""

import math
from dataclasses import dataclass, field

import pandas as pd
import torch
from tqdm.auto import tqdm

from .alignment import alignment_matrices
from .checks import one_of
from .client import Client, evaluate, make_client
from .exchange import Ledger
from .experiments.client_data import read
from .experiments.parked import ParkedClients
from .experiments.settings import Settings
from .experiments.setups import SETUP_SETTINGS, SETUPS
from .methods import METHODS, SHARING
from .networks.client_network import in_batches
from .placement import at_work
from .world.pairs import CAPTIONED, Pairs, held_out_data, public_data
from .world.real.splits import held_out_rows, is_real, photos_and_texts, public_needs, run_rows
from .world.scenes import PUBLIC_DOMAINS, digit_scenes
from .world.tasks import task_named

COLUMNS = ["method", "client", "task", "metric", "split", "round", "seed", "value", "bytes"]
ALIGNMENT_SCENES = 256
MASKS = 6
EXACT_LIMIT = 2 ** 33      # multiply-adds of one exact loss: a few seconds
TUPLES_LIMIT = 2 ** 29     # numbers in one payload: two GiB


@dataclass
class Federation:
    """The clients, each with its private and the public data, the ledger of one run, and what the server remembers.

    memory: {client: last upload of the whole public set}, with `refresh` "round"; what the server sent last, see
    `methods.sharing`; or what the centre trains, see `methods.centralised`.  gains, losses: of the peers and of the
    round before, with `peer_choice` "bandit", see `peers.credit`.
    """

    settings: Settings
    clients: list[Client] | ParkedClients
    ledger: Ledger
    memory: dict = field(default_factory=dict)
    gains: dict = field(default_factory=dict)
    losses: dict = field(default_factory=dict)


def check(settings):
    """Raise ValueError, before any work, where setup or method do not exist, or settings do not fit them."""
    reads = METHODS[one_of("method", settings.method, METHODS)].reads
    if "tau_prev" in reads and settings.tau_prev > settings.tau:
        raise ValueError(f"tau_prev: got {settings.tau_prev}, expected at most tau = {settings.tau}")
    if "batch_size" in reads and settings.public_size < settings.batch_size:
        raise ValueError(f"public_size: got {settings.public_size}, expected at least batch_size = {settings.batch_size}")
    if settings.num_samples and settings.protocol == "tuples":
        raise ValueError(f"num_samples: got {settings.num_samples}, expected 0 with protocol 'tuples', which sends every tuple")
    if settings.peer_choice == "bandit" and (settings.method == "gramian" or settings.absence):
        raise ValueError("peer_choice: got 'bandit', expected 'random', 'held', 'similar' or 'task' with gramian, whose "
                         "clients do not report their losses, and where clients are absent")
    if settings.refresh == "round" and settings.augment:
        raise ValueError("augment: got True, expected False with refresh 'round', whose uploads serve every batch")
    specs = SETUPS[one_of("setup", settings.setup, SETUPS)]
    num_clients = len(specs)
    for index, spec in enumerate(specs, 1):
        try:
            task_named(spec.task)
        except ValueError as error:
            raise ValueError(f"setup: client {index} of {settings.setup}: {error}") from error
        if settings.method in SHARING and spec.backbone != specs[0].backbone:
            raise ValueError(f"method: got {settings.method!r} for {settings.setup}, whose client {index} has the encoder "
                             f"{spec.backbone!r}, expected {specs[0].backbone!r} as client 1 has: it exchanges parameters")
    real = check_real(settings, reads)
    texts = [index for index, spec in enumerate(specs, 1) if task_named(spec.task).modality == "text"]
    if texts and not real and settings.public_domain != CAPTIONED and "public_domain" in reads:
        raise ValueError(f"public_domain: got {settings.public_domain!r}, expected {CAPTIONED!r}: clients {texts} of "
                         f"{settings.setup} read captions")
    if settings.num_peers >= num_clients and "num_peers" in reads:
        raise ValueError(f"num_peers: got {settings.num_peers}, expected 1 to {num_clients - 1}: "
                         f"{settings.setup} has {num_clients} clients")
    tuples = settings.batch_size ** settings.num_peers
    if "num_samples" in reads and not settings.num_samples and settings.protocol == "matrices" and (
            tuples * settings.batch_size > EXACT_LIMIT):
        raise ValueError(f"num_samples: got 0 with {settings.num_peers} peers and batches of {settings.batch_size}, expected a "
                         "number of tuples to draw, such as 512: the exact sum takes B^(M+1) multiply-adds")
    if "protocol" in reads and settings.protocol == "tuples" and tuples * settings.dim > TUPLES_LIMIT:
        raise ValueError(f"protocol: got 'tuples' with {settings.num_peers} peers and batches of {settings.batch_size}, "
                         "expected 'matrices': the payload is B^M (d + 1) numbers")
    return settings


def check_real(settings, reads):
    """Whether the clients have real data; ValueError where settings do not fit that."""
    real = is_real(settings.setup)
    default_domain(settings.setup)
    if "public_domain" in reads and (settings.public_domain not in PUBLIC_DOMAINS) != real:
        raise ValueError(f"public_domain: got {settings.public_domain!r}, expected "
                         f"{'the name of a real source' if real else f'one of {PUBLIC_DOMAINS}'}: {settings.setup} has clients "
                         f"with {'real data' if real else 'scenes'}")
    if settings.method in SHARING and (settings.offload or settings.adaptation != "full"):
        raise ValueError(f"offload, adaptation: got {settings.offload}, {settings.adaptation!r}, expected False and 'full' "
                         f"with {settings.method}, which exchanges whole networks")
    return real


def build(settings, parked=None, device="cpu"):
    """The federation of `settings` before its first round.

    parked: a folder for the clients' states, so that one network at a time is in memory; the results are the same.  Raises
    ValueError where the method needs all networks at once: aligning ones do unless `refresh` is "round".
    device: where networks compute.
    """
    specs = SETUPS[check(settings).setup]
    if parked is not None and "refresh" in METHODS[settings.method].reads and settings.refresh == "batch":
        raise ValueError(f"parked: got a folder with {settings.method} and refresh 'batch', which needs the networks of all "
                         "clients at every batch; expected refresh 'round'")
    if parked is not None and settings.method == "centralised":
        raise ValueError("parked: got a folder with centralised, expected None: it has one network only")
    public = public_samples(settings, "public_domain" in METHODS[settings.method].reads)

    def make(index):
        return make_client(index, specs[index - 1], settings, public, device)

    clients = [make(index) for index in range(1, len(specs) + 1)] if parked is None else ParkedClients(make, len(specs), parked)
    return Federation(settings, clients, Ledger())


def public_samples(settings, is_read):
    """The public `Pairs` of a run; None for a method that does not read them, where clients have real data."""
    if is_real(settings.setup):
        return real_pairs(settings.setup, settings.public_domain, run_rows(settings, public=True)[0]) if is_read else None
    domain = settings.public_domain if is_read else default_domain(settings.setup)
    return public_data(domain, settings.public_size, settings.seed)


def real_pairs(setup, domain, rows):
    """`Pairs` of rows of a real source, with what the clients of `setup` read of them."""
    return Pairs(*photos_and_texts(domain, rows, public_needs(setup)))


def default_domain(setup):
    """A public domain that every client of a setup can read."""
    if is_real(setup):
        if "public_domain" not in SETUP_SETTINGS.get(setup, {}):
            raise ValueError(f"setup: got {setup!r}, whose clients have real data, without a public source; expected one in "
                             "setups.SETUP_SETTINGS: it also tells how alike representations are")
        return SETUP_SETTINGS[setup]["public_domain"]
    specs = SETUPS[setup]
    texts = any(task_named(spec.task).modality == "text" for spec in specs)
    return CAPTIONED if texts else Settings().public_domain


def train(federation, progress=True, state=None):
    """Play all rounds.  Returns (history, alignment).

    state: a `resume.State` that is kept after each round and that the run goes on from; None: none is kept.

    history: one row per (client, metric, split, round), columns `COLUMNS`; scores in percent, on validation scenes every
    round (0 = before training) and on test scenes after the last; as "train", what the method returns, losses in nats; bytes:
    up and down of that client and round.
    alignment: {"before": ..., "after": ...}, see `alignment_matrices`, on 256 held-out scenes.
    """
    settings = federation.settings
    done, rows, before = state.load(federation) if state else (0, [], None)
    play_round = METHODS[settings.method].play_round

    def note(client, metric, split, round, value):
        sent = federation.ledger.total(round, client.index)
        rows.append((settings.method, client.index, client.task.name, metric, split, round, settings.seed, value, sent))

    if not done:
        before = alignment_matrices(representations(federation))
        for client in federation.clients:
            note(client, client.task.metric, "validation", 0, evaluate(client, "validation"))
    bar = tqdm(range(done + 1, settings.rounds + 1), f"{settings.method} seed {settings.seed}", initial=done,
               total=settings.rounds, disable=not progress)
    for round in bar:
        losses = play_round(federation, round)
        for client in federation.clients:
            for metric, values in losses.items():
                if client.index in values:                                    # an absent client has no contrastive loss
                    note(client, metric, "train", round, values[client.index])
            note(client, client.task.metric, "validation", round, evaluate(client, "validation"))
        if state:
            state.save(federation, round, rows, before)
    for client in federation.clients if settings.test_size else ():
        note(client, client.task.metric, "test", settings.rounds, evaluate(client, "test"))
    history = pd.DataFrame(rows, columns=COLUMNS).sort_values(["round", "client"], kind="stable", ignore_index=True)
    return history, {"before": before, "after": alignment_matrices(representations(federation))}


def representations(federation):
    """Every client's representations, by client index, of 256 held-out samples that nobody trains on: list of (256, dim).

    Single-digit scenes of test handwriting; where text clients take part, image-caption pairs of test handwriting.  With real
    data, what the setup's public source holds out, at most as many.
    """
    setup = federation.settings.setup
    specs, domain = SETUPS[setup], default_domain(setup)
    if is_real(setup):
        held_out = real_pairs(setup, domain, held_out_rows(setup, domain, ALIGNMENT_SCENES))
    elif domain == CAPTIONED:
        held_out = held_out_data(ALIGNMENT_SCENES)
    else:
        held_out = Pairs(digit_scenes("test", "single", ALIGNMENT_SCENES, 0, "alignment").images, None)
    found = {}
    for client in federation.clients:
        client.model.eval()
        inputs = read(client.task, specs[client.index - 1].backbone, held_out)
        with at_work(client):
            found[client.index] = in_batches(client.model.representation, inputs, device=client.device)
    return [found[index] for index in sorted(found)]


def predicted_masks(federation, count=MASKS):
    """{client index: predicted classes of its first `count` test scenes} of every client with a dense task: a text of one
    hexadecimal digit a pixel for each scene, row by row; {} where the settings have no test scenes, and with real data."""
    found = {}
    if is_real(federation.settings.setup):
        return found
    for client in federation.clients:
        if client.task.dense and "test" in client.data:
            client.model.eval()
            classes = in_batches(client.model, client.data["test"][0][:count]).argmax(1)
            found[client.index] = ["".join(f"{value:x}" for value in mask.flatten().tolist()) for mask in classes]
    return found


def mask_from_text(text):
    """(side, side) classes from a text of `predicted_masks`; ValueError where it is not square or not hexadecimal."""
    side = math.isqrt(len(text))
    if side * side != len(text):
        raise ValueError(f"text: got {len(text)} digits, expected a square number")
    return torch.tensor([int(digit, 16) for digit in text]).view(side, side)

"""The round loop: build the clients of a setup, play the rounds of a method, keep the history."""

from dataclasses import dataclass

import pandas as pd
import torch
from tqdm.auto import tqdm

from .alignment import alignment_matrices
from .checks import one_of
from .client import Client, evaluate, make_client
from .exchange import Ledger
from .methods import METHODS
from .models import in_batches
from .scenes import digit_scenes, public_scenes
from .settings import Settings
from .setups import SETUPS

COLUMNS = ["method", "client", "task", "metric", "split", "round", "seed", "value", "bytes"]
ALIGNMENT_SCENES = 256


@dataclass
class Federation:
    """The clients, the public images (public_size, 3, 32, 32) and the ledger of one run."""

    settings: Settings
    clients: list[Client]
    public: torch.Tensor
    ledger: Ledger


def check(settings):
    """Raise ValueError, before any work, where the setup or method does not exist or M does not fit the setup."""
    one_of("method", settings.method, METHODS)
    num_clients = len(SETUPS[one_of("setup", settings.setup, SETUPS)])
    if settings.num_peers >= num_clients and "num_peers" in METHODS[settings.method].reads:
        raise ValueError(f"num_peers: got {settings.num_peers}, expected 1 to {num_clients - 1}: "
                         f"{settings.setup} has {num_clients} clients")
    return settings


def build(settings):
    """The federation of `settings` before its first round."""
    specs = SETUPS[check(settings).setup]
    clients = [make_client(index, spec, settings) for index, spec in enumerate(specs, 1)]
    return Federation(settings, clients, public_scenes(settings.public_domain, settings.public_size, settings.seed), Ledger())


def train(federation, progress=True):
    """Play all rounds.  Returns (history, alignment).

    history: one row per (client, metric, split, round), columns `COLUMNS`; scores in percent, on validation scenes every
    round (0 = before training) and on test scenes after the last; losses in nats; bytes: up and down of that client and round.
    alignment: {"before": ..., "after": ...}, see `alignment_matrices`, on 256 held-out scenes.
    """
    settings, rows = federation.settings, []
    play_round = METHODS[settings.method].play_round

    def note(client, metric, split, round, value):
        sent = federation.ledger.total(round, client.index)
        rows.append((settings.method, client.index, client.task.name, metric, split, round, settings.seed, value, sent))

    before = alignment_matrices(representations(federation))
    for client in federation.clients:
        note(client, client.task.metric, "validation", 0, evaluate(client, "validation"))
    bar = tqdm(range(1, settings.rounds + 1), f"{settings.method} seed {settings.seed}", disable=not progress)
    for round in bar:
        losses = play_round(federation, round)
        for client in federation.clients:
            for metric, values in losses.items():
                note(client, metric, "train", round, values[client.index])
            note(client, client.task.metric, "validation", round, evaluate(client, "validation"))
    for client in federation.clients if settings.test_size else ():
        note(client, client.task.metric, "test", settings.rounds, evaluate(client, "test"))
    history = pd.DataFrame(rows, columns=COLUMNS).sort_values(["round", "client"], kind="stable", ignore_index=True)
    return history, {"before": before, "after": alignment_matrices(representations(federation))}


def representations(federation):
    """Every client's representations, by client index, of 256 single-digit scenes of test handwriting: list of (256, dim)."""
    images = digit_scenes("test", "single", ALIGNMENT_SCENES, 0, "alignment").images
    ordered = sorted(federation.clients, key=lambda client: client.index)
    for client in ordered:
        client.model.eval()
    return [in_batches(client.model.representation, images) for client in ordered]

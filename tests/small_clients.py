"""Federations of four clients with networks of a few numbers, on random images: every method plays a round in milliseconds."""

import torch
from rounds import begin, play
from torch import nn

from fedmuscle_core import Client, Federation, Training, classification, multilabel
from fedmuscle_core.experiments.parked import ParkedClients
from fedmuscle_core.experiments.runs import one_thread
from fedmuscle_core.methods import METHODS
from fedmuscle_core.seeds import generator, seeded

# Both tasks have heads of one shape: only names tell them apart.
TASKS = {"birds": classification(3, "birds"), "scenes": multilabel(3, "scenes")}
CLIENTS = {1: ("birds", 24), 2: ("birds", 10), 3: ("scenes", 16), 4: ("scenes", 12)}
SMALL = {"batch_size": 8, "num_peers": 2, "contrastive_lr": 1e-2, "vote_margin": 0.02, "vote_share": 0.4}
TRAINING = Training(local_lr=1e-2, local_batch_size=8, min_local_steps=3)
# All methods but those with a model of the server's own, which test_creamfl has, and what they have beside their defaults that
# changes who sends what.
VARIANTS = [*((name, {}) for name, kind in METHODS.items() if kind.group != "server"),
            ("fedmuscle", {"refresh": "round"}), ("fedmuscle", {"peer_choice": "bandit"}),
            ("fedmuscle", {"protocol": "tuples"}), ("fedmuscle", {"num_samples": 16}),
            ("fedmuscle", {"peer_choice": "similar", "augment": True}), ("pairwise", {"tau_cross": 0.4, "distant": "task"}),
            ("mfed", {"share": "encoder"}), ("mfed", {"share": "decoder"}), ("mfed", {"decoder_term": "distance"}),
            ("fedprox", {"mu": 1.0, "measure_gradients": False})]
# Masked uploads: what one client spoils, another cannot be told from.
MASKED = [(name, {"masked": True, "measure_gradients": False})
          for name in ("fedavg", "encoder_only", "mfed", "mfed_per_architecture", "muscle_mfed")]


def method(name, **changes):
    """A method with the values of SMALL that it has, and `changes`."""
    fields = METHODS[name].__dataclass_fields__
    return METHODS[name](**{field: value for field, value in SMALL.items() if field in fields} | changes)


class Centred(nn.Module):
    """Takes a running mean off; with a counter, as batch normalisation has one."""

    def __init__(self, width):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("batches", torch.tensor(0))

    def forward(self, values):
        if self.training:
            self.mean.lerp_(values.detach().mean(0), 0.1)
            self.batches += 1
        return values - self.mean


def network(plain=False):
    """With dropout and buffers, so that every kind of state is there; plain: without them."""
    between = [] if plain else [Centred(12), nn.Dropout(0.2)]
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 12), *between, nn.Tanh(), nn.Linear(12, 6))


def images(count, *names):
    return torch.rand(count, 3, 8, 8, generator=generator(0, "small", *names))


def make_client(name, plain=False, **changes):
    """Client 1, 2, 3 or 4; two have each task, with unequal numbers of samples.  changes: of the arguments of `Client`."""
    task, size = CLIENTS[name]
    splits = {}
    for split, count in (("train", size), ("validation", 12), ("test", 10)):
        inputs = images(count, name, split)
        classes = (3 * inputs[:, 0].mean((1, 2))).long()
        splits[split] = (inputs, classes if task == "birds" else (inputs.mean((2, 3)) > 0.5).float())
    with seeded(0, "small", name):
        encoder, head = network(plain), nn.Linear(6, TASKS[task].num_outputs)
    usual = {"encoder": encoder, "head": head, "task": TASKS[task], "public": images(20, "public"),
             "held_out": images(16, "held out"), **splits}
    return Client(name, **usual | changes)


def federation(method, clients=None, parked=None, plain=False, **options):
    """Of the four clients, or of others; parked: a folder to let them wait in."""
    options = {"training": TRAINING, **options}
    if parked is None:
        return Federation([make_client(name, plain) for name in CLIENTS] if clients is None else clients, method, **options)
    found = Federation(ParkedClients(lambda name: found.join(make_client(name)), len(CLIENTS), parked), method, **options)
    return found


def fit(found, rounds=3, **options):
    """The history of a federation, on one thread."""
    with one_thread():
        return found.fit(rounds, progress=False, **options)


def played(name, rounds=1, before_round=None, options=None, **changes):
    """(plain federation of the method called `name`, what each round returned).

    before_round: function (federation, round); options: of the federation; changes: of the method."""
    found, measured = begin(federation(method(name, **changes), plain=True, **options or {}), 3), []
    for round in range(1, rounds + 1):
        if before_round:
            before_round(found, round)
        measured.append(play(found, round))
    return found, measured

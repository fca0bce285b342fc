"""Runs of tenths of a second for the fault campaign: the whole way of a run, from settings over states to stored lines, with
clients of a few numbers in place of those of setups.  A script that imports this and calls `use` has them, too, and so
have its worker processes.
"""

import dataclasses
import os
import time

import small_clients
from found_runs import find_run
from torch import nn

from fedmuscle_core import Client
from fedmuscle_core.experiments import choices, resume, runs, tuning
from fedmuscle_core.experiments.parked import ParkedClients
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.setups import Setup
from fedmuscle_core.federation import Federation
from fedmuscle_core.methods import METHODS
from fedmuscle_core.seeds import seeded
from fedmuscle_core.world.tasks import task_named

SMALL = Setup("small", (("ic10", "vit_small", 24), ("ic10", "vit_small", 10), ("ic100", "vit_small", 16),
                        ("ic100", "vit_small", 12)))
SEED = 20         # of the moments and places of all faults


def settings(name, seed=0, rounds=3, **changes):
    """Of a small run by the method called `name`; changes: of the method."""
    return Settings(SMALL, small_clients.method(name, **changes), seed=seed, rounds=rounds, dim=6, public_size=20,
                    validation_size=12, test_size=10, training=small_clients.TRAINING)


TUNED = dataclasses.replace(SMALL, name="small_tuned", tunes=("fedhenn",), settings={
    "rounds": 2, "dim": 6, "public_size": 20, "batch_size": 8, "validation_size": 12, "min_local_steps": 60})
WANTED = [settings("fedmuscle", refresh="round", peer_choice="bandit"), settings("mfed"), settings("cofed", seed=1)]


def build(settings, parked=None, device="cpu"):
    """Stands where `experiments.build.build` does: the clients of SMALL with networks of a few numbers, on random images."""
    options = {name: getattr(settings, name) for name in ("seed", "training", "absence", "bad_uploads")}
    names = range(1, len(settings.setup.clients) + 1)
    clients = ParkedClients(lambda name: found.join(make_client(name, settings)), len(names), parked) if parked else [
        make_client(name, settings) for name in names]
    found = Federation(clients, settings.method, **options)
    return found


def make_client(name, settings):
    spec, splits = settings.setup.clients[name - 1], {}
    sizes = {"train": spec.train_size, "validation": settings.validation_size, "test": settings.test_size}
    for split, size in sizes.items():
        if size:
            inputs = small_clients.images(size, name, split)
            splits[split] = inputs, (3 * inputs[:, 0].mean((1, 2))).long()
    with seeded(settings.seed, "small", name):
        network = small_clients.network(), nn.Linear(settings.dim, task_named(spec.task).num_outputs)
    return Client(name, *network, task_named(spec.task), public=small_clients.images(settings.public_size, "public"), **splits)


def use(change=setattr, told=lambda text: None, slow=0.0, every=0.0):
    """Let runs be small ones that keep their state after every round, or once in `every` seconds.

    change: function (object, name, value), such as pytest's `monkeypatch.setattr`; told: called with "<run> begins",
    "<run> <round>" after each round and "<run> stored"; slow: seconds that each message takes.
    """
    play, append, exchange, run_of = Federation.play_round, runs.append_run, Federation.exchange, {}

    def build_known(one, parked=None, device="cpu"):
        federation = build(one, parked, device)
        told(f"{one.run()} begins")
        run_of[id(federation.server)] = one.run()
        return federation

    def play_round(federation, round):
        found = play(federation, round)
        told(f"{run_of.get(id(federation.server))} {round}")
        return found

    def append_run(folder, record, history):
        append(folder, record, history)
        told(f"{record['run']} stored")

    def exchange_slowly(*arguments, **options):
        time.sleep(slow)
        return exchange(*arguments, **options)

    change(resume, "EVERY", every)
    change(runs.building, "build", build_known)
    change(runs.building, "predicted_masks", lambda federation: {})
    change(runs, "append_run", append_run)
    change(Federation, "play_round", play_round)
    if slow:
        change(Federation, "exchange", exchange_slowly)


def contents(folder, wanted):
    """{run: what of it must not depend on faults}; runs that are not stored are left out."""
    found = {one.run(): find_run(folder, one.setup.name, one.run()) for one in map(Settings.canonical, wanted)}
    return {run: (history.to_csv(float_format="%.17g"), record["ledger"], repr(record["alignment"]), record["settings"])
            for run, (record, history) in ((run, pair) for run, pair in found.items() if pair)}


def tune_into(folder, change=setattr):
    """Let tables and runs of tuning go below `folder`."""
    change(tuning, "FOLDER", folder / "tuning")
    change(choices, "TUNED_TABLE", folder / "tuned.csv")
    change(METHODS["local"], "grid", {"local_lr": (5e-4, 1e-3, 2e-3)})
    change(METHODS["fedhenn"], "grid", {"eta": (0.1, 1.0)})


def tune(folder, change=setattr):
    """Tune the setup TUNED below `folder`; its table as text."""
    tune_into(folder, change)
    tuning.tune(TUNED, progress=False)
    return (folder / "tuned.csv").read_text()


def stored_lines(folder):
    """The whole lines of the stored runs in a folder."""
    return [line for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().split("\n")[:-1]]


if os.environ.get("FAULTS_SMALL"):
    use(told=lambda text: print(text, flush=True), slow=float(os.environ["FAULTS_SMALL"]))

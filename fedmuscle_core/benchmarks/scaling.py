"""What grows with what: `python -m fedmuscle_core.benchmarks.scaling`.

FedMuscle with networks of a few numbers, uploads once a round, one round: clients up to a thousand, parked in files, then peers
M, batch size B, and width d, one at a time.  Time is told apart into what clients do, their files among it, and what the server
does: checks, counts, draws of peers, messages.  Each case in a process of its own, so that its peak memory is its own.
"""

import sys
import tempfile
import time
from functools import lru_cache
from multiprocessing import get_context

import torch
from sklearn.datasets import load_digits
from torch import nn

from ..analysis.scaling import USUAL
from ..client import Client, Training
from ..engines.in_process import InProcess
from ..exchange import size_of
from ..experiments.parked import ParkedClients
from ..federation import Federation
from ..methods import FedMuscle
from ..seeds import seeded
from ..tasks import classification
from . import begun, play_round
from .loss import peak_memory
from .saving import parser_of, save

VARIED = {"clients": (10, 30, 100, 300, 1000), "num_peers": (1, 5, 9), "batch_size": (8, 128), "dim": (8, 128, 256)}
PUBLIC, STEPS, EXACT_UP_TO = 512, 8, 3


def cases(most):
    """The cases, each once: the usual one with one value changed; `most` clients at most."""
    found = [USUAL | {name: value} for name, values in VARIED.items() for value in (USUAL[name], *values)]
    return [case for case in list({tuple(case.items()): case for case in found}.values()) if case["clients"] <= most]


class Timed(InProcess):
    """Adds up the `seconds` of all that clients do, that they are made, loaded and saved among it; what messages take to make
    is the server's."""

    seconds = 0.0

    def ask(self, stages):
        spent = [0.0]

        def timed(message_of):
            def made(client):
                clock = time.perf_counter()
                message = message_of(client)
                spent[0] += time.perf_counter() - clock
                return message
            return made

        clock = time.perf_counter()
        replies = super().ask([stage._replace(message_of=timed(stage.message_of)) for stage in stages])
        self.seconds += time.perf_counter() - clock - spent[0]
        return replies


@lru_cache(maxsize=1)
def digits():
    """(pixels, labels) of scikit-learn's digits."""
    return tuple(torch.tensor(values) for values in load_digits(return_X_y=True))


def client(index, dim):
    """A client with 32 of the pixels of 20 handwritten digits."""
    inputs, labels = digits()
    with seeded(0, "scaling", index):
        rows, pixels = torch.randperm(len(labels))[:20], torch.randperm(64)[:32]
        inputs = inputs[:, pixels].float() / 16
        encoder = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, dim))
        return Client(index, encoder, nn.Linear(dim, 10), classification(10), train=(inputs[rows], labels[rows]),
                      public=inputs[:PUBLIC], held_out=inputs[:2])


def one(clients, num_peers, batch_size, dim):
    """The row of one case, measured in this process."""
    torch.set_num_threads(1)
    sampling = {"num_samples": 64} if num_peers > EXACT_UP_TO else {}
    method = FedMuscle(num_peers=num_peers, batch_size=batch_size, refresh="round", **sampling,
                       contrastive_steps=min(STEPS, PUBLIC // batch_size))
    with tempfile.TemporaryDirectory() as folder:
        start = peak_memory()
        federation = Federation(ParkedClients(lambda index: federation.join(client(index, dim)), clients, folder), method,
                                training=Training(min_local_steps=2))
        begun(federation, 1)
        federation.engine = engine = Timed(federation.clients, method)
        clock = time.perf_counter()
        play_round(federation, 1)
        seconds = time.perf_counter() - clock
        kept = size_of(federation.server.memory.uploads)
    table = federation.ledger.table().groupby("direction")["bytes"].sum() / clients
    return {"clients": clients, "num_peers": num_peers, "batch_size": batch_size, "dim": dim,
            "steps": method.num_batches(PUBLIC), "seconds": round(seconds, 3), "client_seconds": round(engine.seconds, 3),
            "up_bytes": int(table["up"]), "down_bytes": int(table["down"]), "server_bytes": kept,
            "extra_MiB": round(peak_memory() - start, 1)}


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("--most", type=int, default=1000, help="clients at most")
    args = parser.parse_args(argv)
    rows = []
    for case in cases(args.most):
        with get_context("spawn").Pool(1) as pool:
            rows.append(row := pool.apply(one, tuple(case.values())))
        print(f"{row['clients']:5} clients, M {row['num_peers']}, B {row['batch_size']:3}, d {row['dim']:3}: "
              f"{row['seconds']:8.2f} s, {row['client_seconds']:8.2f} s of it the clients'; {row['up_bytes'] / 1024:7.0f} KiB "
              f"up, {row['down_bytes'] / 1024:7.0f} down a client; the server keeps {row['server_bytes'] / 2 ** 20:6.1f} MiB",
              flush=True)
    save(args.save, {"public_size": PUBLIC, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())

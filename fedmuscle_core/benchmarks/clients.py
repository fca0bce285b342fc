"""What a round costs with more and more clients: `python -m fedmuscle_core.benchmarks.clients`.

Clients of Setup 1, once, twice and four times, FedMuscle, one round.  Three ways: peers' representations of every batch, all
networks in memory (the paper's exchange); uploads once a round, all in memory; uploads once a round, networks parked in files.
Each case in a process of its own, so that its peak memory is its own; private data are part of it, in all cases alike.
"""

import sys
import tempfile
import time
from multiprocessing import get_context

import torch

from ..experiments.build import build
from ..experiments.settings import Settings
from ..experiments.setups import SETUPS
from . import begun, play_round
from .loss import peak_memory
from .saving import parser_of, save

SETUP_NAMES = ("embedded1", "clients12", "clients24")
WAYS = (("batch", False), ("round", False), ("round", True))                  # (refresh, parked)


def one(setup, refresh, parked, public_size):
    """The row of one case, measured in this process."""
    torch.set_num_threads(1)
    clients = len(SETUPS[setup].clients)
    fewer = {"public_size": public_size, "contrastive_steps": None} if public_size else {}
    settings = Settings.of(setup, "fedmuscle", num_peers=min(3, clients - 1), refresh=refresh, validation_size=50, test_size=0,
                           **fewer)
    with tempfile.TemporaryDirectory() as folder:
        start = peak_memory()
        federation = begun(build(settings, folder if parked else None), 1)    # parked clients are made and saved here, too
        clock = time.perf_counter()
        play_round(federation, 1)
        seconds = time.perf_counter() - clock
    sent = sum(federation.ledger.total(1, client) for client in federation.server.clients)
    return {"setup": setup, "clients": clients, "refresh": refresh, "parked": parked, "seconds": round(seconds, 2),
            "KiB_per_client": sent / clients / 1024, "extra_MiB": round(peak_memory() - start, 1)}


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("--setups", nargs="+", default=SETUP_NAMES, choices=SETUPS)
    parser.add_argument("--public-size", type=int, help="so many, each once a round, instead of those of the setups")
    args = parser.parse_args(argv)
    rows = []
    for setup in args.setups:
        for refresh, parked in WAYS:
            with get_context("spawn").Pool(1) as pool:
                rows.append(row := pool.apply(one, (setup, refresh, parked, args.public_size)))
            where = "parked" if parked else "in memory"
            print(f"{row['clients']:3} clients, uploads every {refresh}, {where:9}: {row['seconds']:7.1f} s, "
                  f"{row['KiB_per_client']:7.0f} KiB a client, {row['extra_MiB']:7.0f} MiB", flush=True)
    save(args.save, {"public_size": args.public_size or SETUPS[args.setups[0]].settings["public_size"], "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())

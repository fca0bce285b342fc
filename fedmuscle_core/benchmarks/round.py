"""What a FedMuscle round costs beyond its models: `python -m fedmuscle_core.benchmarks.round`.

Times, in one run and alternating, whole rounds (contrastive and local phase: loss, exchange, ledger, optimisers, drawing
of batches) against the bare forward and backward passes of the same models on the same numbers of images.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time

import torch

from ..federation import build
from ..methods import METHODS
from ..settings import Settings
from ..store import environment, now, write_atomically


def bare_passes(federation):
    """The forward and backward passes of one round, nothing else."""
    settings = federation.settings
    for client in federation.clients:
        client.model.train()
        images, wanted = client.data["train"]
        for rows in torch.arange(len(images)).split(settings.local_batch_size):
            client.task.loss(client.model(images[rows]), wanted[rows]).backward()
        for batch in federation.public.split(settings.batch_size):
            client.model.representation(batch).sum().backward()


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", metavar="FILE", help="also store the measurements as JSON")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    federation = build(Settings())
    play_round = METHODS["fedmuscle"].play_round
    play_round(federation, 1)
    rows = []
    for repeat in range(args.repeats):
        clock = time.perf_counter()
        play_round(federation, 2 + repeat)
        whole = time.perf_counter() - clock
        clock = time.perf_counter()
        bare_passes(federation)
        bare = time.perf_counter() - clock
        rows.append({"round_seconds": whole, "bare_seconds": bare, "ratio": whole / bare})
        print(f"round {whole:6.2f} s   forward and backward passes alone {bare:6.2f} s   ratio {whole / bare:.3f}")
    median = statistics.median(row["ratio"] for row in rows)
    print(f"median ratio {median:.3f}")
    if args.save:
        record = {"settings": dataclasses.asdict(federation.settings), "measured": now(), "versions": environment(),
                  "median_ratio": median, "rows": rows}
        write_atomically(args.save, json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

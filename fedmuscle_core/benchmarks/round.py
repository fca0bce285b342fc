"""What a FedMuscle round costs beyond its models: `python -m fedmuscle_core.benchmarks.round`.

Times, in one run and alternating, whole rounds (contrastive and local phase: loss, exchange, ledger, optimisers, drawing
of batches) against the bare forward and backward passes of the same models on the same numbers of images.
"""

import argparse
import statistics
import sys
import time

import torch

from ..federation import build
from ..methods import METHODS
from ..settings import Settings


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
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    federation = build(Settings())
    play_round = METHODS["fedmuscle"].play_round
    play_round(federation, 1)
    ratios = []
    for repeat in range(args.repeats):
        clock = time.perf_counter()
        play_round(federation, 2 + repeat)
        whole = time.perf_counter() - clock
        clock = time.perf_counter()
        bare_passes(federation)
        bare = time.perf_counter() - clock
        ratios.append(whole / bare)
        print(f"round {whole:6.2f} s   forward and backward passes alone {bare:6.2f} s   ratio {whole / bare:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

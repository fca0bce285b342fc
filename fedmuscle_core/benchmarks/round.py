"""What a FedMuscle round costs beyond its models: `python -m fedmuscle_core.benchmarks.round`.

Times whole rounds (contrastive and local phase: drawing of batches, exchange, ledger, loss, optimisers) and, inside the very
same rounds, the forward and backward passes of the clients' models, so that both meet the same machine.
"""

import argparse
import contextlib
import dataclasses
import json
import statistics
import sys
import time
from unittest import mock

import torch

from ..experiments.settings import Settings
from ..experiments.store import environment, now, write_atomically
from ..federation import build
from ..methods import METHODS


@contextlib.contextmanager
def model_clock(models):
    """Within the block, adds up the seconds that `models` spend in forward and in backward passes; yields [total].

    Of modules inside one another the outermost that is called counts.  A backward pass counts from the gradient's arrival
    at that module's output, so that no loss is in it.
    """
    total, started, arrived, backward = [0.0], [], [], torch.Tensor.backward

    def after(module, args, output):
        begun = started.pop()
        if not started:
            total[0] += time.perf_counter() - begun
            output.register_hook(lambda grad: arrived.append(time.perf_counter()))

    def timed_backward(tensor, *args, **kwargs):
        backward(tensor, *args, **kwargs)
        total[0] += time.perf_counter() - arrived.pop()

    with contextlib.ExitStack() as stack:
        for model in models:
            stack.callback(model.register_forward_pre_hook(lambda *_: started.append(time.perf_counter())).remove)
            stack.callback(model.register_forward_hook(after).remove)
        stack.enter_context(mock.patch.object(torch.Tensor, "backward", timed_backward))
        yield total


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", metavar="FILE", help="also store the measurements as JSON")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    federation = build(Settings())
    play_round = METHODS["fedmuscle"].play_round
    play_round(federation, 1)
    models = [model for client in federation.clients for model in (client.model, client.model.representation)]
    rows = []
    for repeat in range(args.repeats):
        clock = time.perf_counter()
        with model_clock(models) as passes:
            play_round(federation, 2 + repeat)
        whole = time.perf_counter() - clock
        rows.append({"round_seconds": whole, "passes_seconds": passes[0], "ratio": whole / passes[0]})
        print(f"round {whole:6.2f} s   its models' forward and backward passes {passes[0]:6.2f} s   "
              f"ratio {whole / passes[0]:.3f}")
    median = statistics.median(row["ratio"] for row in rows)
    print(f"median ratio {median:.3f}")
    if args.save:
        record = {"settings": dataclasses.asdict(federation.settings), "measured": now(), "versions": environment(),
                  "median_ratio": median, "rows": rows}
        write_atomically(args.save, json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

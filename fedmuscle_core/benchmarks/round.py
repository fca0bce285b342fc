"""What a FedMuscle round costs beyond its networks: `python -m fedmuscle_core.benchmarks.round`.

Times whole rounds (contrastive and local phase: drawing of batches, messages and their checks, ledger, loss, optimisers) and,
inside the very same rounds, the forward and backward passes of the clients' networks, so that both meet the same machine.
"""

import contextlib
import statistics
import sys
import time
from unittest import mock

import torch

from ..experiments.build import build
from ..experiments.settings import Settings
from . import begun, play_round
from .saving import parser_of, save


@contextlib.contextmanager
def pass_clock(networks):
    """Within the block, adds up the seconds that `networks` spend in forward and in backward passes; yields [total].

    Of a network and its representation model the outermost that is called counts.  A backward pass counts from the gradient's
    arrival at that module's output, so that no loss is in it.  Passes without a graph, as of checks and scores, do not count.
    """
    total, started, arrived, backward = [0.0], [], [], torch.Tensor.backward

    def after(module, args, output):
        clock = started.pop()
        if not started and output.requires_grad:
            total[0] += time.perf_counter() - clock
            output.register_hook(lambda grad: arrived.append(time.perf_counter()))

    def timed_backward(tensor, *args, **kwargs):
        backward(tensor, *args, **kwargs)
        total[0] += time.perf_counter() - arrived.pop()

    with contextlib.ExitStack() as stack:
        for module in (part for network in networks for part in (network, network.representation)):
            stack.callback(module.register_forward_pre_hook(lambda *_: started.append(time.perf_counter())).remove)
            stack.callback(module.register_forward_hook(after).remove)
        stack.enter_context(mock.patch.object(torch.Tensor, "backward", timed_backward))
        yield total


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    settings = Settings.of("embedded1", "fedmuscle", test_size=0)
    federation = begun(build(settings), 1 + args.repeats)
    play_round(federation, 1)
    rows = []
    for repeat in range(args.repeats):
        clock = time.perf_counter()
        with pass_clock([client.network for client in federation.clients]) as passes:
            play_round(federation, 2 + repeat)
        whole = time.perf_counter() - clock
        rows.append({"round_seconds": whole, "passes_seconds": passes[0], "ratio": whole / passes[0]})
        print(f"round {whole:6.2f} s   its networks' forward and backward passes {passes[0]:6.2f} s   "
              f"ratio {whole / passes[0]:.3f}")
    median = statistics.median(row["ratio"] for row in rows)
    print(f"median ratio {median:.3f}")
    save(args.save, {"settings": settings.flat(), "median_ratio": median, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What one loss costs, forward and backward, for each contrastive method: `python -m fedmuscle_core.benchmarks.method_losses`.

B = 32 samples, d = 256, M = 3 peers, float32, one thread; the losses take turns, so that all meet the same machine.
"""

import statistics
import sys
import time

import torch

from ..losses import gramian_loss, muscle_loss, nt_xent
from ..seeds import generator
from .saving import parser_of, save

TIMED = {
    "fedmuscle": lambda anchor, peers: muscle_loss(anchor, peers),
    "pairwise": lambda anchor, peers: muscle_loss(anchor, peers, weighting="uniform"),
    "gramian": lambda anchor, peers: gramian_loss(anchor, peers),
    "simclr": lambda anchor, peers: nt_xent(anchor, anchor.flip(1)),
}


def measure(repeats, batch_size=32, dim=256, num_peers=3):
    """{method: median milliseconds of a forward and a backward pass}, over `repeats` turns."""
    rng = generator(0, "benchmark losses")
    anchor = torch.randn(batch_size, dim, generator=rng, requires_grad=True)
    peers = torch.randn(num_peers, batch_size, dim, generator=rng)
    seconds = {name: [] for name in TIMED}
    for turn in range(repeats + 5):                                           # the first five warm up
        for name, loss in TIMED.items():
            begun = time.perf_counter()
            loss(anchor, peers).backward()
            if turn >= 5:
                seconds[name].append(time.perf_counter() - begun)
    return {name: round(1000 * statistics.median(values), 4) for name, values in seconds.items()}


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    found = measure(args.repeats)
    for name, milliseconds in found.items():
        print(f"{name:10} {milliseconds:8.3f} ms   {milliseconds / found['pairwise']:6.2f} times pairwise")
    save(args.save, {"milliseconds": found, "repeats": args.repeats})
    return 0


if __name__ == "__main__":
    sys.exit(main())

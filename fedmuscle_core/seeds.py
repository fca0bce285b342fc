"""One place for randomness: every stream is named, so no result depends on the order of use."""

import contextlib
import zlib
from functools import cache

import numpy as np
import torch


def stream_seed(seed, *names):
    """Seed of the stream `names` of run `seed`: a child of `SeedSequence(seed)`, reached by name instead of by order.

    `names` are strings or non-negative integers, e.g. `stream_seed(0, "client", 3, "round", 2)` -> int below 2**63.
    """
    key = tuple(zlib.crc32(name.encode()) if isinstance(name, str) else int(name) for name in names)
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0] >> 1)


def generator(seed, *names):
    """A fresh `torch.Generator` for the stream `names` of run `seed`."""
    return torch.Generator().manual_seed(stream_seed(seed, *names))


@cache
def accelerators():
    """Indices of the CUDA devices; asking for their number takes as long as a small step."""
    return range(torch.cuda.device_count())


@contextlib.contextmanager
def seeded(seed, *names):
    """Run a block whose global torch randomness (initial weights, dropout) comes from one named stream."""
    chosen, devices = stream_seed(seed, *names), accelerators()
    with torch.random.fork_rng(devices=devices) if devices else contextlib.nullcontext():
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(chosen)
        if devices:
            torch.cuda.manual_seed_all(chosen)
        try:
            yield
        finally:
            torch.set_rng_state(before)

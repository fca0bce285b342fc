"""Named streams of randomness."""

import pytest
import torch

from fedmuscle_core.seeds import generator, seeded, stream_seed


def test_streams_are_distinct_and_repeatable():
    assert stream_seed(0, "client", 1) == stream_seed(0, "client", 1)
    seeds = {stream_seed(seed, name, index) for seed in (0, 1) for name in ("client", "peers") for index in range(50)}
    assert len(seeds) == 200 and all(0 <= seed < 2 ** 63 for seed in seeds)
    assert stream_seed(0, "client", 1) != stream_seed(0, 1, "client")
    assert torch.equal(torch.rand(3, generator=generator(0, "x")), torch.rand(3, generator=generator(0, "x")))


def test_a_seeded_block_leaves_the_global_randomness_as_it_was():
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    with seeded(0, "weights"):
        first = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded(0, "weights"):
        assert torch.equal(torch.rand(2), first) and not torch.equal(first, expected)


def test_it_does_so_after_an_error_too():
    torch.manual_seed(7)
    expected = torch.rand(2)
    torch.manual_seed(7)
    with pytest.raises(KeyError), seeded(0, "weights"):
        torch.rand(2)
        raise KeyError
    assert torch.equal(torch.rand(2), expected)

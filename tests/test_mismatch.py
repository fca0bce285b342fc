import math

import pytest
import torch

from fedmuscle_core.experiments.mismatch import mmd, public_mismatch
from fedmuscle_core.experiments.runs import one_thread


def mmd_loops(x, y):
    """The definition, one pair at a time."""
    both = [*x, *y]
    squares = sorted(((a - b) ** 2).sum().item() for i, a in enumerate(both) for j, b in enumerate(both) if i != j)
    width = squares[(len(squares) - 1) // 2]                                  # torch's median: the lower of the middle two

    def mean(first, second, same):
        values = [math.exp(-((a - b) ** 2).sum().item() / width) for i, a in enumerate(first) for j, b in enumerate(second)
                  if not (same and i == j)]
        return sum(values) / len(values)
    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


@pytest.mark.parametrize(("n", "m", "shift"), [(2, 2, 0.0), (5, 3, 1.0), (6, 9, 4.0)])
def test_mmd_is_its_definition(n, m, shift):
    rng = torch.Generator().manual_seed(n)
    x = torch.randn(n, 4, generator=rng, dtype=torch.float64)
    y = torch.randn(m, 4, generator=rng, dtype=torch.float64) + shift
    assert mmd(x, y) == pytest.approx(mmd_loops(x, y), abs=1e-12)


def test_mmd_is_about_zero_for_one_law_and_grows_with_the_distance():
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 300, 4, generator=rng)
    found = [mmd(x, y + shift) for shift in (0.0, 0.5, 2.0)]
    assert abs(found[0]) < 0.01 and found[0] < found[1] < found[2] < 2


def test_mmd_needs_two_rows():
    with pytest.raises(ValueError, match="x, y: got 1 and 3 rows"):
        mmd(torch.zeros(1, 2), torch.zeros(3, 2))


def test_noise_is_farther_from_every_client_than_single_digits(tiny):
    with one_thread():
        tables = {domain: public_mismatch(tiny(public_domain=domain), samples=20).set_index("client")
                  for domain in ("single", "noise")}
    assert list(tables["single"].index) == [1, 2, 3] and set(tables["noise"]["domain"]) == {"noise"}
    assert (tables["noise"]["mmd"] > tables["single"]["mmd"]).all()
    assert (tables["noise"]["uniformity"] > tables["single"]["uniformity"]).all()      # noise looks all alike

"""Who helps whom, from made-up histories whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from fedmuscle_core.analysis.peer_kinds import kind_gains, oracle_shifts, worth_of_choosing
from fedmuscle_core.experiments.statistics import best_validation

NAMES = ("a", "b", "c")
GAIN = np.array([[0.1, 0.4, 0.2], [0.3, 0.0, -0.2], [-0.1, 0.5, 0.2]])       # of the kind of the row by that of the column


def history(log_odds):
    """Three rounds of six clients, the second the best; test scores that must not be read."""
    rows = [("fedmuscle", client, split, round, seed, 100 / (1 + np.exp(-value + 0.1 * abs(round - 1))) if split == "validation"
             else 99.0) for (seed, client), value in log_odds.items() for round in range(3) for split in ("validation", "test")]
    return pd.DataFrame(rows, columns=["method", "client", "split", "round", "seed", "value"])


ALONE = {(seed, client): 0.2 * client + 0.05 * (seed - 100) for seed in (100, 101) for client in range(1, 7)}


def served(shift):
    kinds = {client: (client - 1) % 3 for client in range(1, 7)}
    return history({key: value + GAIN[kinds[key[1]], (kinds[key[1]] + shift) % 3] for key, value in ALONE.items()})


def test_every_pair_of_kinds_is_found_and_the_oracle_takes_the_best():
    table = kind_gains({shift: served(shift) for shift in range(3)}, history(ALONE), NAMES)
    assert np.allclose(table, GAIN) and table.index.name == "client" and table.columns.name == "served by"
    assert oracle_shifts(table) == (1, 2, 2)                                  # a by b, b by a, c by b
    assert best_validation(history(ALONE))[100, 3] == pytest.approx(0.6)


def test_what_choosing_is_worth_is_judged_on_other_seeds():
    histories = {shift: served(shift) for shift in range(3)}
    wanted = (GAIN.max(1) - GAIN.mean(1)).mean()
    assert worth_of_choosing(histories, history(ALONE), NAMES) == pytest.approx([wanted] * 2)
    rng, found = np.random.default_rng(0), []
    for _ in range(60):                                                       # no kind matters: nothing is worth anything
        noisy = {shift: history({key: value + rng.normal(0, 0.1) for key, value in ALONE.items()}) for shift in range(3)}
        found += worth_of_choosing(noisy, history(ALONE), NAMES)
    assert abs(np.mean(found)) < 0.02


def test_kinds_that_were_not_tried_stay_empty():
    table = kind_gains({0: served(0)}, history(ALONE), NAMES)
    assert np.allclose(np.diag(table), np.diag(GAIN)) and table.isna().sum().sum() == 6
    assert oracle_shifts(table) == (0, 0, 0)
    with pytest.raises(ValueError, match=r"table: got no number for \['b'\]"):
        oracle_shifts(table.drop(index="b").reindex(table.index))

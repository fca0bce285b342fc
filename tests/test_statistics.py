import math

import numpy as np
import pandas as pd
import pytest

from fedmuscle_core.experiments.statistics import (
    delta,
    final_scores,
    mean_interval,
    paired_difference,
    relative_change,
    seeds_needed,
    verdict,
)


def scores(method, seed, values):
    return [{"method": method, "seed": seed, "client": client, "task": "mlc", "metric": "mAP", "split": "test",
             "round": 15, "value": value} for client, value in enumerate(values, 1)]


def test_delta_and_who_pays():
    table = pd.DataFrame(scores("local", 0, [50, 20, 40, 80]) + scores("fedmuscle", 0, [55, 30, 36, 80]))
    changes = relative_change(table)
    assert changes[changes["method"] == "fedmuscle"]["change"].tolist() == pytest.approx([10, 50, -10, 0])
    summary = delta(changes).set_index("method").loc["fedmuscle"]
    assert summary["delta"] == pytest.approx(12.5)
    assert summary["worst"] == pytest.approx(-10)
    assert summary["improved"] == pytest.approx(0.5)
    assert summary["worst_third"] == pytest.approx(-5)
    assert delta(changes).set_index("method").loc["local", "delta"] == 0


def test_a_missing_baseline_is_an_error():
    table = pd.DataFrame(scores("local", 0, [50]) + scores("fedmuscle", 1, [55]))
    with pytest.raises(ValueError, match=r"no 'local' run for seeds \[1\]"):
        relative_change(table)


def test_a_baseline_of_zero_is_an_error():
    table = pd.DataFrame(scores("local", 0, [50, 0]) + scores("fedmuscle", 0, [55, 3]))
    with pytest.raises(ValueError, match="'local' scored 0 on client 2, seed 0"):
        relative_change(table)


def test_final_scores_takes_test_rows_only():
    rows = scores("local", 0, [50, 60])
    rows[0]["split"] = "validation"
    assert final_scores(pd.DataFrame(rows))["client"].tolist() == [2]


def test_mean_interval_is_students():
    """Textbook values: t(0.975, 4) = 2.776."""
    mean, low, high = mean_interval([1, 2, 3, 4, 5])
    assert mean == 3
    assert [mean - low, high - mean] == pytest.approx([2.776 * math.sqrt(2.5 / 5)] * 2, abs=1e-3)
    assert math.isnan(mean_interval([1.0])[1])
    with pytest.raises(ValueError, match="values: got none"):
        mean_interval([])


def test_the_interval_covers_the_true_mean_95_times_in_100():
    rng = np.random.default_rng(0)
    hits = sum(low <= 2 <= high for _, low, high in (mean_interval(rng.normal(2, 3, 5)) for _ in range(4000)))
    assert 0.94 < hits / 4000 < 0.96


def test_paired_difference_uses_the_seeds_both_have():
    table = pd.DataFrame({"method": ["a"] * 3 + ["b"] * 2, "seed": [0, 1, 2, 0, 1], "delta": [5.0, 7.0, 99.0, 4.0, 6.5]})
    mean, low, high = paired_difference(table, "delta", "a", "b")
    assert mean == pytest.approx(0.75) and low < 0.75 < high


@pytest.mark.parametrize(("interval", "words"), [
    ((1, 0.5, 1.5), "higher"), ((-1, -1.5, -0.5), "lower"), ((1, -1, 3), "no difference shown"),
    ((1, float("nan"), float("nan")), "one seed: no interval")])
def test_verdict(interval, words):
    assert verdict(interval) == words


def test_seeds_needed_by_the_textbook_formula():
    """sd = 2, effect 1: (1.960 + 0.8416)^2 * 4 = 31.4."""
    assert seeds_needed([-2, 0, 2], 1.0) == 32
    assert seeds_needed([-2, 0, 2], 100.0) == 2
    assert seeds_needed([1.0], 1.0) == "?"
    with pytest.raises(ValueError, match="effect: got 0"):
        seeds_needed([1, 2], 0)

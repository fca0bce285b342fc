import time

import numpy as np
import pandas as pd
import pytest

from fedmuscle_core.analysis.comparison import (
    SCORE_LIMITS,
    balanced_gain,
    interquartile_mean,
    log_odds_change,
    paired_tables,
    probability_of_improvement,
    seed_client_table,
    stratified_bootstrap,
)
from fedmuscle_core.experiments.statistics import delta, relative_change


def scores(seed=0, **values):
    """One row per method and client: scores(local=[50, 20], fedmuscle=[55, 30])."""
    rows = [(method, seed, client, value) for method, column in values.items() for client, value in enumerate(column, 1)]
    return pd.DataFrame(rows, columns=["method", "seed", "client", "value"])


def gain(table, method="fedmuscle"):
    return balanced_gain(log_odds_change(table)).set_index("method").loc[method, "balanced_gain"]


def test_the_interquartile_mean_is_the_mean_of_the_middle_half():
    values = np.random.default_rng(0).normal(size=(4, 6))
    assert interquartile_mean(values) == pytest.approx(np.sort(values.ravel())[6:18].mean())
    assert interquartile_mean([1, 2, 3, 4, 5, 1000]) == 3.5                      # 6 / 4 rounded down: one off each end
    assert interquartile_mean(values, axis=1) == pytest.approx([np.sort(row)[1:5].mean() for row in values])


def test_the_interquartile_mean_ignores_one_outlying_client():
    table = np.random.default_rng(0).normal(size=(5, 6))
    table[:, 2] += 100
    far = table.copy()
    far[:, 2] *= 1000
    assert interquartile_mean(far) == interquartile_mean(table)
    assert far.mean() > 1000 * table.mean() / 2


@pytest.mark.parametrize("statistic", [np.mean, np.median, interquartile_mean])
def test_the_bootstrap_equals_its_literal_twin(statistic):
    """Loops that draw the seeds of every client anew; 4000 resamples of each leave about 0.02 of chance in an end."""
    table = np.random.default_rng(1).normal(size=(8, 5)) + [0, 10, -10, 3, 1]
    rng, values = np.random.default_rng(2), []
    for _ in range(4000):
        values.append(statistic(np.array([table[rng.integers(8), client] for client in range(5) for _ in range(8)])))
    value, low, high = stratified_bootstrap(table, statistic, resamples=4000)
    assert value == pytest.approx(statistic(table.ravel()))
    assert [low, high] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.08)


def test_the_bootstrap_of_the_mean_has_the_spread_within_clients_only():
    """Known answer: a resampled mean has variance sum_c var_c / (seeds * clients^2), whatever the clients' own means."""
    table = np.random.default_rng(3).normal(size=(10, 6)) + 100 * np.arange(6)
    half = 1.96 * np.sqrt(table.var(axis=0).sum() / (10 * 6 ** 2))
    value, low, high = stratified_bootstrap(table, np.mean)
    assert [low, high] == pytest.approx([value - half, value + half], abs=0.1 * half)
    _, low, high = stratified_bootstrap(table, np.mean, confidence=0.5)
    assert high - low == pytest.approx(2 * half * 0.6745 / 1.96, rel=0.1)


def test_the_bootstrap_covers_the_known_mean_about_95_times_in_100():
    """200 tables of 20 seeds x 6 clients: 0.943 expected (a resample has 19/20 of the variance), +- 0.043 is 2.6 sd."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        _, low, high = stratified_bootstrap(rng.normal(np.arange(6) * 10, 3, (20, 6)), np.mean, resamples=500)
        hits += low <= 25 <= high
    assert 0.90 <= hits / 200 <= 0.986


def test_the_bootstrap_is_reproducible_and_fast():
    table = np.random.default_rng(0).normal(size=(5, 10))
    started = time.process_time()
    assert stratified_bootstrap(table, interquartile_mean) == stratified_bootstrap(table, interquartile_mean)
    assert time.process_time() - started < 1
    assert stratified_bootstrap(table, np.mean, seed=1) != stratified_bootstrap(table, np.mean)


def test_a_constant_table_has_an_interval_of_zero_width_and_a_single_seed_has_none():
    assert stratified_bootstrap(np.full((4, 3), 7.0), interquartile_mean) == (7, 7, 7)
    value, low, high = stratified_bootstrap([[1.0, 2.0, 6.0]], np.mean)
    assert value == 3 and np.isnan(low) and np.isnan(high)


@pytest.mark.parametrize(("table", "message"), [
    ([1.0, 2.0], "table: got 1 dimension"), (np.zeros((0, 3)), "at least one seed"), (np.zeros((3, 0)), "one client"),
    ([[1.0, np.nan]], "table: got NaN")])
def test_a_bad_table_is_an_error(table, message):
    with pytest.raises(ValueError, match=message):
        stratified_bootstrap(table, np.mean)


def test_probability_of_improvement():
    low = np.random.default_rng(0).normal(size=(5, 4))
    assert probability_of_improvement(low + 1, low) == (1, 1, 1)
    assert probability_of_improvement(low, low + 1) == (0, 0, 0)
    assert probability_of_improvement(low, low) == (0.5, 0.5, 0.5)
    value, lower, upper = probability_of_improvement([[1, 0], [1, 0]], [[0, 1], [0, 1]])
    assert (value, lower, upper) == (0.5, 0.5, 0.5)                             # client 1 always wins, client 2 never
    value, lower, upper = probability_of_improvement([[1, 1], [1, 0], [1, 2]], [[0, 0], [0, 0], [0, 5]])
    assert value == pytest.approx((1 + 1.5 / 3) / 2) and 0.5 <= lower < value < upper <= 1


def test_probability_of_improvement_pairs_the_seeds():
    """Small gains under large differences between seeds: certain in pairs, 0.6 if every run met every run."""
    second = 100.0 * np.arange(5)[:, None] + np.zeros(3)
    assert probability_of_improvement(second + 1, second)[0] == 1
    with pytest.raises(ValueError, match=r"second: got shape \(4, 3\), expected \(5, 3\)"):
        probability_of_improvement(second, second[:4])
    with pytest.raises(ValueError, match="second: got NaN"):
        probability_of_improvement(second, np.full((5, 3), np.nan))


def test_the_log_odds_change_by_hand():
    changes = log_odds_change(scores(local=[50, 20, 80], fedmuscle=[75, 20, 50])).query("method == 'fedmuscle'")
    assert changes["log_odds"].tolist() == pytest.approx([np.log(3), 0, -np.log(4)])
    assert changes["value"].tolist() == [75, 20, 50] and "change" not in changes


def test_the_log_odds_change_is_finite_and_antisymmetric():
    table = scores(local=[0, 100, 0, 30], fedmuscle=[100, 0, 0.1, 40])
    there = log_odds_change(table).query("method == 'fedmuscle'")["log_odds"].to_numpy()
    back = log_odds_change(table, baseline="fedmuscle").query("method == 'local'")["log_odds"].to_numpy()
    limit = 2 * np.log(SCORE_LIMITS[1] / SCORE_LIMITS[0])
    assert there == pytest.approx([limit, -limit, 0, np.log(4 / 6) - np.log(3 / 7)])
    assert back == pytest.approx(-there)


@pytest.mark.parametrize("value", [-1, 100.1, np.nan])
def test_scores_outside_0_to_100_are_an_error(value):
    with pytest.raises(ValueError, match="'fedmuscle' scored .* on client 1, seed 0, expected 0 to 100"):
        log_odds_change(scores(local=[50], fedmuscle=[value]))


def test_log_odds_without_a_baseline_are_an_error():
    with pytest.raises(ValueError, match=r"no 'local' run for seeds \[1\]"):
        log_odds_change(pd.concat([scores(local=[50]), scores(seed=1, fedmuscle=[50])]))


@pytest.mark.parametrize(("after", "expected"), [([60, 60, 60], 1), ([60, 50, 60], 0.5), ([60, 50, 50], 0), ([40, 60, 60], 0),
                                                 ([99, 40, 50], -0.5)])
def test_the_balanced_gain_is_the_mean_of_the_worse_half_rounded_up(after, expected):
    assert gain(scores(local=[50, 50, 50], fedmuscle=after)) == pytest.approx(expected * np.log(1.5))


def test_the_balanced_gain_does_not_favour_small_baselines():
    """5 to 10 % and 90 to 95 % change the odds by the same factor; Delta says +100 % and +5.6 %."""
    small, large = scores(local=[5], fedmuscle=[10]), scores(local=[90], fedmuscle=[95])
    assert gain(small) == pytest.approx(gain(large)) == pytest.approx(np.log(19 / 9))
    assert [relative_change(table)["change"].max() for table in (small, large)] == pytest.approx([100, 50 / 9])


def test_the_log_odds_change_only_changes_sign_when_errors_are_scored():
    table = scores(local=[80, 40], fedmuscle=[90, 30])
    errors = table.assign(value=100 - table["value"])
    assert log_odds_change(errors)["log_odds"].tolist() == pytest.approx((-log_odds_change(table)["log_odds"]).tolist())
    assert relative_change(errors)["change"].tolist()[2:] == pytest.approx([-50, 100 / 6])
    assert relative_change(table)["change"].tolist()[2:] == pytest.approx([12.5, -25])


def test_doubling_one_client_and_halving_another_is_no_gain():
    table = scores(local=[10, 20], fedmuscle=[20, 10])
    assert delta(relative_change(table)).set_index("method").loc["fedmuscle", "delta"] == pytest.approx(25)
    assert log_odds_change(table)["log_odds"].mean() == pytest.approx(0)
    assert gain(table) < 0


def test_winners_cannot_buy_the_balanced_gain():
    bought, modest = (scores(local=[50] * 4, fedmuscle=[high, high, 45, 45]) for high in (99, 60))
    assert gain(bought) == gain(modest) < 0
    rng = np.random.default_rng(0)
    for clients in (1, 2, 3, 6, 7):
        local, after = rng.uniform(5, 95, (2, 200, clients))
        table = pd.concat([scores(seed=seed, local=local[seed], fedmuscle=after[seed]) for seed in range(200)])
        gains = balanced_gain(log_odds_change(table.reset_index(drop=True))).query("method == 'fedmuscle'").set_index("seed")
        share = (after > local).mean(axis=1)[gains.index[gains["balanced_gain"] > 0]]
        assert len(share) > 5 and (share > 0.5).all()


def test_noise_alone_puts_the_balanced_gain_below_zero():
    """The price its docstring names: the mean of the lower half of standard normals is about -0.7 for six clients."""
    rng, sd = np.random.default_rng(0), 0.1
    after = 100 / (1 + np.exp(-sd * rng.normal(size=(400, 6))))
    table = pd.concat([scores(seed=seed, local=[50] * 6, fedmuscle=row) for seed, row in enumerate(after)])
    gains = balanced_gain(log_odds_change(table.reset_index(drop=True))).query("method == 'fedmuscle'")["balanced_gain"]
    assert gains.mean() == pytest.approx(-0.7 * sd, abs=0.01) and len(gains) == 400


def changes(method, seeds, clients=2, start=0.0):
    rows = [(method, seed, client, start + 10 * seed + client) for seed in seeds for client in range(1, clients + 1)]
    return pd.DataFrame(rows, columns=["method", "seed", "client", "change"])


def test_tables_of_seeds_and_clients():
    both = pd.concat([changes("a", [2, 0, 1]), changes("b", [1, 2, 5], start=0.5)])
    assert seed_client_table(both, "a").to_numpy().tolist() == [[1, 2], [11, 12], [21, 22]]
    first, second = paired_tables(both, "a", "b")
    assert first.to_numpy().tolist() == [[11, 12], [21, 22]] and (second - first).eq(0.5).all(axis=None)


def test_tables_say_what_is_missing():
    table = pd.concat([changes("a", [0, 1]), changes("b", [7]), changes("c", [0], clients=3)], ignore_index=True)
    with pytest.raises(ValueError, match="'a' and 'b' have no seed in common"):
        paired_tables(table, "a", "b")
    with pytest.raises(ValueError, match="'a' and 'c' have different clients"):
        paired_tables(table, "a", "c")
    with pytest.raises(ValueError, match="method: got 'd', expected one of"):
        seed_client_table(table, "d")
    with pytest.raises(ValueError, match=r"'a' lacks a client on seeds \[1\], expected \[1, 2\]"):
        seed_client_table(table.drop(index=3), "a")
    with pytest.raises(ValueError, match="'a' has several rows for a seed and client"):
        seed_client_table(pd.concat([table, table]), "a")

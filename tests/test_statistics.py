import math

import numpy as np
import pandas as pd
import pytest

from fedmuscle_core.experiments.statistics import (
    SCORE_LIMITS,
    balanced_gain,
    bytes_sent,
    delta,
    failures,
    final_scores,
    finished,
    holm_intervals,
    interquartile_mean,
    log_odds_change,
    mean_interval,
    paired_difference,
    paired_tables,
    probability_of_improvement,
    relative_change,
    seed_client_table,
    stratified_bootstrap,
    verdict,
)


def scores(seed=0, **values):
    """One row per method and client: scores(local=[50, 20], fedmuscle=[55, 30])."""
    rows = [(method, seed, client, value) for method, column in values.items() for client, value in enumerate(column, 1)]
    return pd.DataFrame(rows, columns=["method", "seed", "client", "value"])


def test_delta_and_who_pays():
    changes = relative_change(scores(local=[50, 20, 40, 80], fedmuscle=[55, 30, 36, 80]))
    assert changes[changes["method"] == "fedmuscle"]["change"].tolist() == pytest.approx([10, 50, -10, 0])
    summary = delta(changes).set_index("method").loc["fedmuscle"]
    assert summary["delta"] == pytest.approx(12.5)
    assert summary["worst"] == pytest.approx(-10)
    assert summary["improved"] == pytest.approx(0.5)
    assert summary["worst_third"] == pytest.approx(-5)
    assert delta(changes).set_index("method").loc["local", "delta"] == 0


def test_a_missing_baseline_is_an_error():
    with pytest.raises(ValueError, match=r"no 'local' run for seeds \[1\]"):
        relative_change(pd.concat([scores(local=[50]), scores(seed=1, fedmuscle=[55])]))


def test_a_baseline_of_zero_is_an_error():
    with pytest.raises(ValueError, match="'local' scored 0 on client 2, seed 0"):
        relative_change(scores(local=[50, 0], fedmuscle=[55, 3]))


def test_final_scores_takes_test_rows_only():
    assert final_scores(scores(local=[50, 60]).assign(split=["validation", "test"]))["client"].tolist() == [2]


def test_what_a_history_is_marked_with_stays_on_its_changes():
    runs = scores(local=[50], fedmuscle=[60]).assign(split="test")
    runs.attrs["untuned"] = ["mine"]
    assert relative_change(final_scores(runs)).attrs == log_odds_change(final_scores(runs)).attrs == {"untuned": ["mine"]}


def test_bytes_are_those_of_a_round_however_many_metrics_it_has():
    runs = pd.DataFrame([("fedmuscle", 0, client, round, 100 * round + client) for client in (1, 2) for round in (0, 1, 2)
                         for _ in ("loss", "score")], columns=["method", "seed", "client", "round", "bytes"])
    runs["split"] = "train"
    runs.loc[len(runs)] = ("fedmuscle", 1, 2, 1, 0, "diverged")               # how far it came says nothing of its bytes
    assert bytes_sent(runs).to_dict() == {("fedmuscle", 0, client, round): 100 * round + client
                                          for client in (1, 2) for round in (1, 2)}


def test_mean_interval_is_students():
    """Textbook values: t(0.975, 4) = 2.776."""
    mean, low, high = mean_interval([1, 2, 3, 4, 5])
    assert mean == 3
    assert [mean - low, high - mean] == pytest.approx([2.776 * math.sqrt(2.5 / 5)] * 2, abs=1e-3)
    assert math.isnan(mean_interval([1.0])[1])
    with pytest.raises(ValueError, match="values: got none"):
        mean_interval([])


def test_paired_difference_uses_the_seeds_both_have():
    table = pd.DataFrame({"method": ["a"] * 3 + ["b"] * 2, "seed": [0, 1, 2, 0, 1], "delta": [5.0, 7.0, 99.0, 4.0, 6.5]})
    mean, low, high = paired_difference(table, "delta", "a", "b")
    assert mean == pytest.approx(0.75) and low < 0.75 < high


@pytest.mark.parametrize(("interval", "words"), [
    ((1, 0.5, 1.5), "higher"), ((-1, -1.5, -0.5), "lower"), ((1, -1, 3), "no difference shown"),
    ((1, float("nan"), float("nan")), "one seed: no interval")])
def test_verdict(interval, words):
    assert verdict(interval) == words


def test_a_verdict_on_an_effect_says_whether_one_of_its_size_could_be_there():
    assert [verdict(interval, 0.1) for interval in ((0.2, 0.1, 0.3), (0.0, -0.1, 0.1), (0.0, -0.2, 0.05))] == [
        "higher", "no difference", "too few seeds"]


def test_the_interquartile_mean_is_the_mean_of_the_middle_half():
    values = np.random.default_rng(0).normal(size=(4, 6))
    assert interquartile_mean(values) == pytest.approx(np.sort(values.ravel())[6:18].mean())
    assert interquartile_mean([1, 2, 3, 4, 5, 1000]) == 3.5                      # 6 / 4 rounded down: one off each end
    assert interquartile_mean(values, axis=1) == pytest.approx([np.sort(row)[1:5].mean() for row in values])


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


def test_the_bootstrap_is_reproducible():
    table = np.random.default_rng(0).normal(size=(5, 10))
    assert stratified_bootstrap(table, interquartile_mean) == stratified_bootstrap(table, interquartile_mean)
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


def gain(table, method="fedmuscle"):
    return balanced_gain(log_odds_change(table)).set_index("method").loc[method, "balanced_gain"]


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


def history(value=60.0, split="test"):
    """Two clients and seeds of Local and FedMuscle; `value` of client 2 on seed 1 of FedMuscle."""
    rows = [(method, client, split, 3, seed, 50.0) for method in ("local", "fedmuscle") for seed in (0, 1) for client in (1, 2)]
    table = pd.DataFrame(rows, columns=["method", "client", "split", "round", "seed", "value"])
    table.loc[7, "value"] = value
    return table


@pytest.mark.parametrize("split", ["test", "validation"])
def test_a_score_of_nan_and_a_run_that_diverged_are_named_and_refused(split):
    lost = history(np.nan, split)
    marker = pd.DataFrame([("fedmuscle", 2, "diverged", 3, 1, np.nan)], columns=lost.columns)
    gone = pd.concat([history(split=split).drop([6, 7]), marker], ignore_index=True)
    for table in (lost, gone, gone.query("seed >= 0"), gone[gone["round"] > 0]):
        assert failures(table) == {"fedmuscle": "diverged on 1 of 2 seeds: seed 1, client 2, round 3"}
        with pytest.raises(ValueError, match="history: 'fedmuscle' diverged on 1 of 2 seed.* seed 1, client 2, round 3; exp"):
            final_scores(table)
        assert set(finished(table)["method"]) == {"local"}
    assert failures(history()) == {} and len(finished(history())) == 8


def test_nan_is_never_left_out_of_a_mean():
    with pytest.raises(ValueError, match="values: got NaN in 1 of 2"):
        mean_interval([1.0, np.nan])
    with pytest.raises(ValueError, match="scores: 'fedmuscle' scored NaN on client 1, seed 0"):
        relative_change(scores(local=[50], fedmuscle=[np.nan]))
    table = pd.DataFrame({"method": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1], "delta": [1.0, np.nan, 1.0, 2.0]})
    with pytest.raises(ValueError, match="delta: got NaN of 'a'"):
        paired_difference(table, "delta", "a", "b")
    assert verdict((np.nan, np.nan, np.nan)) == "-"


def test_runs_of_two_settings_under_one_name_are_refused():
    twice = pd.concat([scores(local=[50, 60], fedmuscle=[55, 66]), scores(local=[40, 60])])
    with pytest.raises(ValueError, match="scores: got 'local' twice for client 1, seed 0, expected runs of one setting"):
        relative_change(twice)


def test_holm_steps_down_over_the_p_values_of_t_tests():
    from scipy import stats

    noise = np.random.default_rng(0).normal(size=(4, 10))
    differences = {"clear": 3 + noise[0], "small": 0.9 + noise[1], "none": 0.1 + noise[2], "lower": -2 + noise[3]}
    plain = {name: stats.ttest_1samp(values, 0).pvalue for name, values in differences.items()}
    order, so_far, adjusted, widths = sorted(plain, key=plain.get), 0.0, {}, {}
    left = 4
    for place, name in enumerate(order):
        so_far = max(so_far, min(1, (4 - place) * plain[name]))
        adjusted[name], widths[name] = so_far, stats.t.ppf(1 - 0.05 / 2 / left, 9) * stats.sem(differences[name])
        left -= so_far < 0.05
    found = holm_intervals(differences).set_index("name")
    assert list(found.index) == list(differences) and found["seeds"].eq(10).all()
    for name, values in differences.items():
        assert found.loc[name, "p"] == pytest.approx(adjusted[name])
        assert found.loc[name, "mean"] == pytest.approx(values.mean())
        assert found.loc[name, "high"] - found.loc[name, "mean"] == pytest.approx(widths[name])
        assert (found.loc[name, "p"] < 0.05) == (found.loc[name, "low"] > 0 or found.loc[name, "high"] < 0)
    assert found.loc["none", "p"] > 0.05 > found.loc["clear", "p"]


def test_holm_widens_with_the_number_of_claims_and_refuses_what_is_no_comparison():
    values = np.array([0.1, 0.3, 0.2, 0.05])
    alone, beside = holm_intervals({"a": values}), holm_intervals({"a": values, "b": values})
    assert beside["high"][0] > alone["high"][0] and alone["low"][0] == pytest.approx(mean_interval(values)[1])
    assert holm_intervals({"same": [0.0, 0.0]})["p"].tolist() == [1.0]
    for bad in ([1.0], [1.0, math.nan]):
        with pytest.raises(ValueError, match="differences: got .* of 'a', expected numbers of two seeds"):
            holm_intervals({"a": bad})


def test_holm_goes_on_with_smaller_factors_after_a_claim_that_is_not_shown():
    rows = {"a": [0.1, 0.3, -0.1, 0.2], "b": [0.11, 0.3, -0.1, 0.2]}
    from scipy import stats

    plain = {name: stats.ttest_1samp(values, 0).pvalue for name, values in rows.items()}
    found = holm_intervals(rows).set_index("name")["p"]
    least, most = sorted(plain, key=plain.get)
    assert found[least] == pytest.approx(2 * plain[least]) and found[most] == pytest.approx(max(2 * plain[least], plain[most]))

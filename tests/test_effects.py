"""Comparison of varied runs, on histories made up so that the answers are known."""

import numpy as np
import pandas as pd
import pytest

from fedmuscle_core.analysis import effects
from fedmuscle_core.experiments.runs import sweep_groups
from fedmuscle_core.federation import COLUMNS

LOCAL = {1: 50.0, 2: 20.0, 3: 80.0}


def made_up(method, scores, loss=None, sent=2048):
    """(records, history) of one run a seed; scores: {seed: {client: percent}}."""
    rows, records = [], []
    for seed, by_client in scores.items():
        for client, value in by_client.items():
            rows.append((method, client, "ic10", "accuracy", "test", 4, seed, value, sent))
            if loss is not None:
                rows += [(method, client, "ic10", "contrastive_loss", "train", round, seed, loss + client - round, sent)
                         for round in (3, 4)]
        records.append({"settings": {"seed": seed}, "wall_seconds": 10.0 + seed})
    return records, pd.DataFrame(rows, columns=COLUMNS)


def results():
    """Local twice; M = 1 changes the clients by +10, 0, -5 %; M = 3 by 5 points of Delta more on every seed, about."""
    seeds = range(3)
    one = {seed: {1: 55.0, 2: 20.0, 3: 76.0} for seed in seeds}
    three = {seed: {1: 60.0, 2: 20.0 + 0.1 * seed, 3: 80.0} for seed in seeds}
    return {(None, "local"): made_up("local", dict.fromkeys(seeds, LOCAL), sent=0),
            (1, "fedmuscle"): made_up("fedmuscle", one, loss=5.0), (3, "fedmuscle"): made_up("fedmuscle", three, loss=9.0)}


def logit(percent):
    return np.log(percent / (100 - percent))


def test_one_row_a_run_with_what_it_came_to():
    table = effects.measure(results())
    assert list(table["value"]) == [1, 1, 1, 3, 3, 3] and set(table["method"]) == {"fedmuscle"}
    first = table.iloc[1]
    assert first["log_odds"] == pytest.approx((logit(55) - logit(50) + logit(76) - logit(80)) / 3)
    assert first["delta"] == pytest.approx((10 + 0 - 5) / 3) and first["worst"] == pytest.approx(-5)
    assert first["loss"] == pytest.approx(5 + 2 - 4) and first["kib"] == 2 and first["seconds"] == 11


def test_the_local_of_the_same_value_is_the_reference_where_there_is_one():
    mixed = results() | {(3, "local"): made_up("local", dict.fromkeys(range(3), {1: 60.0, 2: 20.0, 3: 80.0}))}
    table = effects.measure(mixed).set_index(["value", "seed"])
    assert table.loc[(3, 0), "delta"] == pytest.approx(0) and table.loc[(1, 0), "delta"] == pytest.approx(5 / 3)


def test_effects_are_paired_differences():
    rows = effects.effects(effects.measure(results()), 1).set_index("label")
    assert rows.loc[1, "mean"] == 0 and np.isnan(rows.loc[1, "low"])
    expected = [(logit(60) - logit(55) + logit(20 + 0.1 * seed) - logit(20) + logit(80) - logit(76)) / 3 for seed in range(3)]
    assert rows.loc[3, "mean"] == pytest.approx(np.mean(expected)) and 0.1 < rows.loc[3, "low"] < rows.loc[3, "mean"]
    assert rows.loc[3, "own_mean"] == pytest.approx(np.mean([(20 + 0.5 * seed) / 3 for seed in range(3)]))
    assert rows.loc[3, "seeds"] == 3
    with pytest.raises(ValueError, match=r"reference: got 2, expected one of \[1, 3\]"):
        effects.effects(effects.measure(results()), 2)


def test_one_value_against_another():
    measured = effects.measure(results())
    row = effects.effects(measured, 1).set_index("label").loc[3]
    assert effects.between(measured, 3, 1) == tuple(row[["mean", "low", "high"]])
    assert [effects.between(measured, *two) for two in ((3, 7), (7, 1), (1, 1), (3, 1, "simclr"))] == [None] * 4


def test_runs_without_local_are_refused():
    with pytest.raises(ValueError, match=r"results: got no 'local' for 1, expected \(1, 'local'\) or \(None, 'local'\)"):
        effects.measure({key: found for key, found in results().items() if key[1] != "local"})


def test_table_and_sentence_say_what_was_found():
    measured = effects.measure(results())
    table = effects.effect_table(measured, 1, "M")
    assert table["M"].tolist() == [1, 3] and table["shown"].tolist() == ["-", "higher"]
    assert table["minus 1 (log-odds)"].tolist()[0] == "-"
    said = effects.answer(measured, 1, "M")
    assert said.startswith("FedMuscle's Delta is +1.7 [+1.7, +1.7] % with M 1;") and "higher with 3 +0.15" in said
    assert "lower with 1 -0.15" in effects.answer(measured, 3, "M")


def test_what_is_not_shown_is_told_from_what_too_few_seeds_could_show():
    seeds = range(3)
    runs = {(None, "local"): made_up("local", dict.fromkeys(seeds, LOCAL))}
    for value, spread in ((1, 0), (2, 0.5), (3, 8)):
        runs[value, "fedmuscle"] = made_up("fedmuscle", {seed: {**LOCAL, 1: 50.0 + spread * (seed - 1)} for seed in seeds})
    measured = effects.measure(runs)
    assert effects.effect_table(measured, 1)["shown"].tolist() == ["-", "no difference", "too few seeds"]
    assert ": no difference with 2 -0.00 [-0.02, +0.02]; too few seeds with 3 -0.00 [-" in effects.answer(measured, 1, "M")


def test_several_values_become_one_label():
    runs = {(("a", 1) if value == 1 else value, method): found for (value, method), found in results().items()}
    measured = effects.measure(runs)
    assert "a, 1" in set(measured["value"])
    assert effects.effects(measured, ("a", 1))["label"].tolist() == ["a, 1", 3]


def test_one_seed_gives_no_interval():
    one = {key: ([records[0]], history[history["seed"] == 0]) for key, (records, history) in results().items()}
    measured = effects.measure(one)
    assert effects.effect_table(measured, 1)["shown"].tolist() == ["-", "one seed: no interval"]
    assert "one seed: no interval with 3 +0.15" in effects.answer(measured, 1, "M")


def test_an_effect_of_a_setup_that_nobody_tuned_says_so():
    found = results()
    for untuned in ([], ["mine"]):
        found[3, "fedmuscle"][1].attrs["untuned"] = untuned
        measured = effects.measure(found)
        assert measured.attrs == effects.client_changes(found).attrs == {"untuned": untuned}
        assert list(effects.effect_table(measured, 1, "M"))[:2] == ["M", "Delta (%) (untuned)" if untuned else "Delta (%)"]
        assert effects.answer(measured, 1, "M").startswith("FedMuscle (untuned)'s" if untuned else "FedMuscle's Delta")


def test_swept_runs_of_a_setup_of_ones_own_are_measured_and_untuned(tiny, tmp_path):
    groups = {(None, "local"): [tiny(method="local", rounds=1)],
              (2, "fedmuscle"): [tiny(rounds=1)], ("again", "fedmuscle"): [tiny(rounds=1)]}
    found = sweep_groups(groups, tmp_path)
    measured = effects.measure(found)
    assert measured["value"].tolist() == [2, "again"] and measured["delta"].nunique() == 1 and measured["kib"].min() > 0
    changes = effects.client_changes(found)
    assert changes.groupby("value")["change"].mean()[2] == pytest.approx(measured["delta"][0]) and "score" in changes
    assert "untuned" in effects.effect_table(measured, 2).to_string()


def test_a_value_that_diverged_is_named_and_has_no_mean():
    found = results()
    records, runs = found[3, "fedmuscle"]
    lost = runs["seed"] == 2
    marker = runs[lost].head(1).assign(split="diverged", client=2, round=3, value=np.nan)
    found[3, "fedmuscle"] = records, pd.concat([runs[~lost], marker], ignore_index=True)
    measured, why = effects.measure(found), "diverged on 1 of 3 seeds: seed 2, client 2, round 3"
    assert measured[measured["value"] == 3]["delta"].isna().tolist() == [True] * 3
    table = effects.effect_table(measured, 1, "M").set_index("M")
    assert table.loc[3].tolist() == [why, "-", "-", 0] and table.loc[1, "Delta (%)"].startswith("+1.7")
    assert effects.answer(measured, 1, "M").endswith(f"over 3 seeds: with 3 it {why}.")
    with pytest.raises(ValueError, match="reference: 'fedmuscle' with 3 diverged on 1 of 3"):
        effects.effects(measured, 3)
    assert 3 not in set(effects.client_changes(found)["value"]) and 1 in set(effects.client_changes(found)["value"])
    del found[1, "fedmuscle"]
    with pytest.raises(ValueError, match="got no method beside 'local' whose runs all came to an end"):
        effects.measure(found)


def test_effects_keep_the_mark_of_what_nobody_tuned():
    measured = effects.measure(results())
    measured.attrs["untuned"] = ["mine"]
    assert effects.effects(measured, 1).attrs == {"untuned": ["mine"]}

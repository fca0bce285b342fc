"""The claims of data/PREDICTIONS.md: text and code say the same, and what comes out is computed from runs."""

import pandas as pd
import pytest

from fedmuscle_core.analysis import outcomes
from fedmuscle_core.analysis.tables import delta_interval, interval_text, log_odds_difference
from fedmuscle_core.experiments import ablations, choices, claims, plans, tuning
from fedmuscle_core.experiments.profiles import PROFILES
from fedmuscle_core.experiments.runs import stored
from fedmuscle_core.experiments.setups import SETUPS
from fedmuscle_core.experiments.statistics import mean_interval
from fedmuscle_core.federation import COLUMNS
from fedmuscle_core.paths import ROOT, results

PREDICTIONS = (ROOT / "data" / "PREDICTIONS.md").read_text()


@pytest.mark.parametrize("claim", (*claims.CLAIMS, *claims.SETUP2_CLAIMS, *claims.MFED_CLAIMS), ids=lambda one: str(one.number))
def test_the_file_says_what_is_compared_and_what_was_expected(claim):
    row = next(line for line in PREDICTIONS.splitlines() if line.startswith(f"| {claim.number} | "))
    assert claim.text in row and row.split("|")[-2].strip().startswith("yes" if claim.expected else "no")


def test_the_seeds_are_fresh_and_the_regime_is_the_one_written_down():
    assert PROFILES["mini"]["seeds"] == list(range(10, 20)) and not {100, 101, 102, 103} & set(PROFILES["mini"]["seeds"])
    values = SETUPS["embedded1"].settings
    assert (values["dim"], values["public_size"], values["contrastive_steps"], values["rounds"], values["local_epochs"]) == (
        256, 5000, 60, 8, 2) and values["keep_best"]
    assert SETUPS["embedded1"].sizes == (20, 20, 20, 200, 200, 15)


def test_the_level_of_local_that_is_written_down_is_that_of_the_tuning_runs():
    setup = SETUPS["embedded1"]
    found = pd.concat(tuning.histories(setup, "local", choices.tuned(setup, "local"), "single"))
    best = found[found["split"] == "validation"].groupby(["seed", "client", "task"])["value"].max().groupby("task").mean()
    levels = [round(best[task]) for task in ("mlc", "ic100", "ic10")]
    assert "Local, tuned, has {}, {} and {} % on validation data".format(*levels) in PREDICTIONS


def slopes_of(setup):
    """{rounds: points a round at the end, by method}, as they are and as many times as `ablations.ROUND_FACTORS` says."""
    runs = ablations.by_rounds("mini", setup=setup)
    return {count: outcomes.slopes(pd.concat([stored(runs[count, method], results("mini"))[1] for method in claims.COMPARED]))[
        "points a round"] for count in sorted({count for count, _ in runs})}


def test_curves_of_setup_1_are_flat_after_twice_as_many_rounds_and_local_s_before():
    slopes = slopes_of("embedded1")
    assert slopes[16].abs().max() < 0.2 and abs(slopes[8]["local"]) < 0.2


def test_curves_of_setup_2_are_flat_after_four_times_as_many_rounds_but_for_the_one_that_is_named():
    slopes = slopes_of("embedded2")[40]
    assert slopes.drop("pairwise").abs().max() < 0.2
    said = f"but that of alpha = 1, by {slopes['pairwise']:.1f}, half of it through one text client"
    assert said in PREDICTIONS.replace("\n", " ")


def test_curves_of_m_fed_are_flat_also_with_labels_and_unequal_clients():
    runs = {setup: plans.mfed_table("mini", setup) for setup in plans.MFED_BENCHMARKS}
    dealt = ablations.by_mfed_partition("mini")
    runs["unequal"] = ablations.flat({key: several for key, several in dealt.items() if key[0] != "IID"})
    assert {name: outcomes.slopes(stored(several, results("mini"))[1])["points a round"].abs().max() < 0.25
            for name, several in runs.items()} == dict.fromkeys(runs, True)
    slope = outcomes.slopes(stored(runs["mfed_dense"], results("mini"))[1])["points a round"]["local"]
    assert f"Local's by {slope:.1f}" in PREDICTIONS


def written_down(place):
    """[(claim, log-odds, shown)] of what came out, as the file says: 1 of Setup 1, 2 of Setup 2 and M-Fed."""
    lines = PREDICTIONS.split("## What came out")[place].split("\n# ")[0].splitlines()
    rows = [line.split(" | ") for line in lines if line[2:3].isdigit()]
    return [(int(row[0][2:]), row[3], row[4].removesuffix(" |")) for row in rows]


def test_what_came_out_is_written_down_as_it_was():
    for place, several in ((1, [claims.CLAIMS]), (2, [claims.SETUP2_CLAIMS, claims.MFED_CLAIMS])):
        found = pd.concat([outcomes.verdicts("mini", results("mini"), claims=one) for one in several])
        assert written_down(place) == [(row.claim, row._3, row.shown) for row in found.itertuples(index=False)]
    _, history = stored([one for several in claims.compared_runs("mini").values() for one in several], results("mini"))
    for method, name in (("fedmuscle", "Delta of FedMuscle is"), ("simclr", "that of SimCLR")):
        assert f"{name} {delta_interval(history, method)[0]:+.1f} %" in PREDICTIONS


def test_whose_difference_claim_8_is_is_written_down_as_it_was():
    _, history = stored(claims.claimed("mini", claims=claims.SETUP2_CLAIMS), results("mini"))
    parts = [history[history["client"].isin(several)] for several in ((9, 10), (7, 8), range(1, 7))]
    texts, segments, first = (interval_text(log_odds_difference(part, "fedmuscle", "simclr"), 2) for part in parts)
    said = f"the texts ({texts.split()[0]}) and segmentation ({segments.split()[0]}); over clients 1 to 6 it is {first}"
    assert said in PREDICTIONS.replace("\n", " ")


def test_which_tasks_m_fed_serves_is_written_down_as_it_was():
    _, history = stored(claims.claimed("mini", claims=claims.MFED_CLAIMS), results("mini"))
    said = "; ".join(f"minus {words} " + ", ".join(
        f"{interval_text(log_odds_difference(rows, 'mfed', other), 2)} ({task})"
        for task, rows in history.groupby("task", sort=False))
        for other, words in (("fedavg", "FedAvg"), ("encoder_only", "encoders only")))
    assert said in PREDICTIONS.replace("\n", " ")


def test_runs_of_a_claim_differ_in_what_it_names_alone():
    first, second = claims.CLAIMS[4].runs("mini", [10, 11])
    assert [one.replace(num_peers=1) for one in first] == second and [one.seed for one in first] == [10, 11]
    paper = [several[0].method for several in claims.CLAIMS[1].runs("mini", [10])]
    assert [method.tau for method in paper] == [0.2, 0.2] and paper[0].tau_prev == 0.15
    assert len(claims.claimed("mini", [10])) == len({*claims.claimed("mini", [10])}) >= 6


def test_what_came_out_is_paired_over_seeds_and_adjusted(monkeypatch):
    scores = {"fedmuscle": 60.0, "local": 50.0, "pairwise": 60.0, "simclr": 70.0}

    def stored(several, folder):
        rows = [(one.method.name, client, "ic10", "accuracy", "test", 8, one.seed,
                 scores[one.method.name] + one.seed % 3 - 4 * (one.method.name == "fedmuscle" and one.method.num_peers == 1), 0)
                for one in several for client in (1, 2)]
        return [], pd.DataFrame(rows, columns=COLUMNS)

    monkeypatch.setattr(outcomes, "stored", stored)
    found = outcomes.verdicts("mini", "folder").set_index("claim")
    assert found["shown"].to_dict() == {1: "yes", 2: "no", 3: "no", 4: "no: lower", 5: "yes"}
    assert found["expected"].to_dict() == {1: "yes", 2: "yes", 3: "no", 4: "no", 5: "yes"} and set(found["seeds"]) == {10}
    assert found.loc[2, "log-odds"].startswith("+0.000") and found.loc[1, "log-odds"].startswith("+0.4")


def test_the_sentence_and_the_slopes_are_computed(monkeypatch):
    table = pd.DataFrame({
        "claim": [1, 2, 3], "first - second": ["a - b", "c - d", "e - f"],
        "expected": ["yes", "yes", "no"], "shown": ["yes", "no: lower", "no"]})
    assert outcomes.sentence(table) == (
        "Shown: 1 (a - b). Not shown: 3 (e - f). Shown to be the other way round: 2 (c - d). As expected: 1, 3.")
    rows = [("local", 1, "validation", round, 10.0 + 2 * max(0, round - 4)) for round in range(9)]
    rows += [("fedmuscle", 1, "validation", round, 50.0) for round in range(9)]
    history = pd.DataFrame(rows, columns=["method", "client", "split", "round", "value"])
    assert outcomes.slopes(history)["points a round"].to_dict() == pytest.approx({"local": 2.0, "fedmuscle": 0.0})


def test_one_seed_gives_claims_without_intervals(monkeypatch):
    monkeypatch.setattr(outcomes, "log_odds_differences", lambda first, second, folder: pd.Series([0.1]))
    table = outcomes.verdicts("mini", "folder", [10])
    assert set(table["log-odds"]) == {"+0.100"} and set(table["p (Holm)"]) == {"-"} and set(table["shown"]) == {"no"}


def test_the_controls_of_alpha_are_adjusted_together(monkeypatch):
    differences = [0.1, 0.2, 0.15, 0.05, 0.12]
    monkeypatch.setattr(outcomes, "log_odds_differences", lambda first, second, folder: pd.Series(differences))
    rows = outcomes.weight_differences("mini", "folder")
    half = rows["high"] - rows["mean"]
    mean, _, high = mean_interval(differences)
    assert rows["mean"].tolist() == pytest.approx([mean] * 5) and rows["seeds"].tolist() == [5] * 5
    assert half.max() > 1.5 * (high - mean) and half.min() == pytest.approx(high - mean)
    monkeypatch.setattr(outcomes, "log_odds_differences", lambda first, second, folder: pd.Series([0.1]))
    rows = outcomes.weight_differences("quick", "folder")
    assert rows["low"].isna().all() and rows["mean"].tolist() == [0.1] * 5


def test_what_alpha_is_follows_from_its_controls():
    rows = pd.DataFrame([(f"learned - {name}", 0.1, low, 0.2) for name, low in (
        ("alpha = 1, tau = 0.2", 0.05), ("shuffled, tau = 0.2", 0.05), ("margin tuned, tau = 0.2", 0.05),
        ("alpha = 1, tau tuned", -0.05), ("shuffled, tau tuned", -0.01))], columns=["label", "mean", "low", "high"])
    said = outcomes.alpha_sentence(rows.assign(seeds=5))
    assert said.startswith("Learned alpha: more than a temperature: not shown; more than a margin, at tau = 0.2: shown; better "
                           "than the same weights at the wrong tuples (which were not tuned): not shown (")
    assert "margin tuned, tau = 0.2 +0.10 [+0.05, +0.20]" in said
    assert set(rows["label"]) == {f"learned - {name}" for name in ablations.WEIGHTS_AGAINST}

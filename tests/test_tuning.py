import dataclasses
import math

import pandas as pd
import pytest

from fedmuscle_core.exchange import Diverged
from fedmuscle_core.experiments import choices, tuning
from fedmuscle_core.experiments.choices import table_path, tried_fields, tuned
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.setups import SETUPS, setup_named
from fedmuscle_core.experiments.store import stored_runs
from fedmuscle_core.federation import Federation
from fedmuscle_core.methods import METHODS, FedMuscle, of_group

TUNED = [name for name in SETUPS if table_path(name).is_file()]


def test_both_setups_of_fedmuscle_are_tuned():
    assert {"setup1", "setup2"} <= set(TUNED)


def test_every_method_has_its_grid_and_the_same_number_of_configurations():
    assert {name: len(method.grid[0]) + len(method.grid[1]) for name, method in METHODS.items()} == dict.fromkeys(METHODS, 4)
    assert {len(method.around[1]) for method in METHODS.values()} == {2}
    assert set(tuning.tuned_methods("setup1")) == set(of_group("aligning")) - {"local"}
    assert set(tuning.tuned_methods("mfed_dense")) == set(of_group("sharing")) | {"fedmuscle"}


def test_validation_delta_compares_the_last_round_only():
    def history(method, last):
        return pd.DataFrame([(method, 0, 1, "mAP", "validation", round, value) for round, value in ((0, 1.0), (1, last))]
                            + [(method, 0, 1, "mAP", "test", 1, 99.0)],
                            columns=["method", "seed", "client", "metric", "split", "round", "value"])
    assert tuning.validation_delta(history("fedmuscle", 60.0), history("local", 50.0)) == pytest.approx(20)


@pytest.fixture(scope="module")
def tuning_runs():
    """{settings: history} of the committed tuning runs."""
    return {Settings.of(**record["settings"]).canonical(): history for record, history in stored_runs(tuning.FOLDER)}


@pytest.mark.parametrize("setup", TUNED)
def test_the_stored_table_gave_every_method_the_same_budget_and_comes_from_stored_runs(setup, tuning_runs):
    table = pd.read_csv(table_path(setup))
    expected = dict.fromkeys(["local", *tuning.tuned_methods(setup)], 3 if setup_named(setup).builds_on else 4)
    assert table.groupby("method").size().to_dict() == expected

    def histories(method, values):
        found = [tuning_runs[one.canonical()] for one in tuning.tuning_settings(setup, method, values)]
        assert not any(history["split"].eq("test").any() for history in found)
        return pd.concat(found)

    for row in table.to_dict("records"):
        values = {name: row[name] for name in tried_fields(table) if pd.notna(row[name])}
        again = tuning.validation_delta(histories(row["method"], values), histories("local", {}))
        assert again == pytest.approx(row["delta"], abs=1e-3)
        own_rate = row["method"] == "local" or "local_lr" in METHODS[row["method"]].grid[0][0]
        assert own_rate or row["local_lr"] == tuned(setup, "local")["local_lr"]


@pytest.mark.parametrize(("method", "field"), [("local", "local_lr"), ("pairwise", "contrastive_lr"),
                                               ("fedmuscle", "contrastive_lr")])
def test_the_best_learning_rates_are_inside_their_grids(method, field):
    rates = [values[field] for values in METHODS[method].grid[0]]
    assert min(rates) < tuned("setup1", method)[field] < max(rates)


@pytest.fixture
def small(tiny, tmp_path, monkeypatch):
    """The tiny setup, its tuning of one round into tmp_path."""
    monkeypatch.setattr(choices, "TUNED", tmp_path / "tuned")
    monkeypatch.setattr(tuning, "FOLDER", tmp_path / "runs")
    scale = {"rounds": 1, "num_peers": 2, "batch_size": 8, "public_size": 20, "validation_size": 30}
    return dataclasses.replace(tiny().setup, settings=scale)


@pytest.fixture
def asked(monkeypatch):
    """Every (method, values) that is scored, in order; none is computed: `asked.delta` gives each its delta."""
    class Asked(list):
        delta = staticmethod(lambda method, values: 0.0)

    asked = Asked()

    def score(setup, configurations, workers, progress):
        asked.extend(configurations)
        return [{"method": method, **values, "delta": asked.delta(method, values)} for method, values in configurations]

    monkeypatch.setattr(tuning, "score", score)
    return asked


def test_a_small_grid_is_tuned_and_stored(small, tmp_path):
    table = tuning.tune(small, ("fedmuscle",), progress=False)
    assert table["method"].tolist() == ["local"] * 4 + ["fedmuscle"] * 4
    assert table.query("method == 'local' and local_lr == 1e-3")["delta"].tolist() == [0.0]
    assert pd.read_csv(tmp_path / "tuned" / "tiny.csv")["delta"].tolist() == pytest.approx(table["delta"].tolist())
    assert table.query("method == 'fedmuscle'")["tau"].notna().sum() == 1 and set(table["seeds"]) == {"100"}
    assert choices.is_tuned(small) and tuned("tiny", "local")["local_lr"] in {2.5e-4, 5e-4, 1e-3, 2e-3}
    assert len(stored_runs(tmp_path / "runs")) == 8                           # the reference is one of the four of Local


def test_methods_whose_grid_has_the_local_rate_keep_their_own(small, asked):
    asked.delta = lambda method, values: -abs(values["local_lr"] - (5e-4 if method == "local" else 2e-3))
    tuning.tune("mfed_dense", ("mfed", "fedavg", "fedmuscle"))
    assert [values for method, values in asked if method == "mfed"] == [
        {"local_lr": 5e-4}, {"local_lr": 1e-3}, {"local_lr": 2e-3}, {"local_lr": 2e-3, "lam": 0.3}]
    assert [values["local_lr"] for method, values in asked if method == "fedavg"] == [2.5e-4, 5e-4, 1e-3, 2e-3]
    assert {values["local_lr"] for method, values in asked if method == "fedmuscle"} == {5e-4}


def test_rates_are_scaled_where_a_setup_says_so(small, asked):
    tuning.tune(dataclasses.replace(small, rate_scale={"local_lr": 0.25, "contrastive_lr": 0.1}), ("fedmuscle",))
    assert [values["local_lr"] for method, values in asked if method == "local"] == [6.25e-5, 1.25e-4, 2.5e-4, 5e-4]
    assert [values["contrastive_lr"] for method, values in asked if method == "fedmuscle"] == [3e-5, 1e-4, 3e-4, 3e-5]


def test_a_setup_that_builds_on_another_is_tuned_around_its_choice(small, asked, monkeypatch):
    chosen = {"local": {"local_lr": 1e-3}, "fedmuscle": {"local_lr": 5.0, "contrastive_lr": 3e-3, "tau": 0.4}}
    monkeypatch.setattr(tuning, "tuned", lambda setup, method: chosen[method])
    tuning.tune(dataclasses.replace(small, builds_on="setup1"), ("fedmuscle",))
    assert [values["local_lr"] for method, values in asked] == [1e-3, 5e-4, 2e-3, 1e-3, 1e-3, 1e-3]
    assert [values.get("tau_cross") for method, values in asked[3:]] == [None, 0.6, 1.0]
    assert all(values["contrastive_lr"] == 3e-3 for method, values in asked[3:])


def test_a_method_without_a_grid_is_tuned_at_its_default(small, asked, monkeypatch):
    monkeypatch.setattr(FedMuscle, "grid", ([], []))
    table = tuning.tune(small, ("fedmuscle",))
    assert [values for method, values in asked if method == "fedmuscle"] == [{"local_lr": 2.5e-4}] and len(table) == 5


def test_tuning_some_methods_keeps_the_rows_of_the_others(small, asked):
    asked.delta = lambda method, values: values["local_lr"]
    before = tuning.tune(small, ("simclr", "fedmuscle"))
    asked.delta = lambda method, values: -values["local_lr"]
    after = tuning.tune(small, ("simclr",))
    kept = [table[table["method"] == "fedmuscle"].dropna(axis=1).reset_index(drop=True) for table in (before, after)]
    pd.testing.assert_frame_equal(*kept, check_dtype=False, check_like=True)
    assert after["method"].tolist() == before["method"].tolist() and len(after) == 12
    assert tuned("tiny", "simclr")["local_lr"] == 2.5e-4 and pd.read_csv(table_path("tiny"))["delta"].notna().all()


def test_a_configuration_that_diverges_is_the_worst_and_never_chosen(small, monkeypatch, tmp_path):
    fit = Federation.fit

    def fail(federation, *arguments, **options):
        if federation.training.local_lr in (2e-3, 5e-4):
            raise Diverged("client 1: round 1: local loss is NaN (local)", 1, 1)
        return fit(federation, *arguments, **options)
    monkeypatch.setattr(Federation, "fit", fail)
    monkeypatch.setattr(FedMuscle, "grid", ([], []))
    table = tuning.tune(small, ("fedmuscle",), progress=False)
    local = table[table["method"] == "local"].set_index("local_lr")["delta"]
    assert local[2e-3] == local[5e-4] == -math.inf < local[1e-3] == 0 and len(table) == 5
    assert tuned("tiny", "local")["local_lr"] in (1e-3, 2.5e-4)
    assert choices.tuning_table("tiny").set_index(["method", "local_lr"]).loc[("local", 2e-3), "chosen"] == "diverged"


def test_a_method_of_which_all_diverges_is_named(small, asked):
    asked.delta = lambda method, values: -math.inf
    with pytest.raises(ValueError, match="tuning: 'local' diverged with all settings that were tried"):
        tuning.tune(small, ("fedmuscle",))


def test_the_command_takes_no_more_workers_than_the_machine_can_carry(monkeypatch, capsys):
    taken = []
    monkeypatch.setattr(tuning, "affordable", lambda workers: min(workers, 3))
    monkeypatch.setattr(tuning, "tune", lambda setup, methods, workers: taken.append(workers) or pd.DataFrame())
    assert tuning.main(["--workers", "1000"]) == 0 and taken == [3]
    with pytest.raises(SystemExit):
        tuning.main(["--workers", "0"])
    assert "workers: got 0" in capsys.readouterr().err

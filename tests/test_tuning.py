import pandas as pd
import pytest

from fedmuscle_core.experiments import tuning
from fedmuscle_core.experiments.profiles import PROFILES, profile_settings
from fedmuscle_core.experiments.runs import canonical
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.store import load_run
from fedmuscle_core.methods import ALIGNING, METHODS, SHARING

SETUPS = sorted(setup for setup in tuning.SEEDS if tuning.table_path(setup).is_file())


def test_both_setups_of_fedmuscle_are_tuned():
    assert {"setup1", "setup2"} <= set(SETUPS)


def test_every_method_has_its_grid_and_the_same_number_of_configurations():
    assert set(tuning.GRIDS) == set(METHODS) - {"local"}
    assert {len(first) + len(second) for first, second in tuning.GRIDS.values()} == {4} == {len(tuning.LOCAL_GRID)}
    assert set(tuning.tuned_methods("setup1")) == set(ALIGNING) - {"local"}
    assert set(tuning.tuned_methods("mfed_dense")) == set(SHARING) | {"fedmuscle"}


def test_the_best_validation_delta_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    assert tuning.tuned("setup1", "local") == {}
    pd.DataFrame([("local", 1e-3, None, None, 0.0), ("local", 2e-3, None, None, 1.5), ("fedmuscle", 2e-3, 3e-4, None, 6.5),
                  ("fedmuscle", 2e-3, 3e-3, None, 6.0), ("fedmuscle", 2e-3, 3e-4, 0.5, 7.0)],
                 columns=["method", "local_lr", "contrastive_lr", "tau", "delta"]).to_csv(tmp_path / "setup1.csv", index=False)
    assert tuning.tuned("setup1", "local") == {"local_lr": 2e-3}
    assert tuning.tuned("setup1", "fedmuscle") == {"local_lr": 2e-3, "contrastive_lr": 3e-4, "tau": 0.5}
    assert tuning.tuned("setup1", "fedmuscle", tau=0.2) == {"local_lr": 2e-3, "contrastive_lr": 3e-4}
    assert tuning.tuned("setup1", "fedmuscle", tau=0.9)["tau"] == 0.5          # never tried: the best of all
    assert profile_settings("mini", "setup1", "fedmuscle", [0], tau=0.2)[0].tau == 0.2
    with pytest.raises(ValueError, match="method: got 'pairwise', expected one that was tuned"):
        tuning.tuned("setup1", "pairwise")


def test_validation_delta_compares_the_last_round_only():
    def history(method, last):
        return pd.DataFrame([(method, 0, 1, "mAP", "validation", round, value) for round, value in ((0, 1.0), (1, last))]
                            + [(method, 0, 1, "mAP", "test", 1, 99.0)],
                            columns=["method", "seed", "client", "metric", "split", "round", "value"])
    assert tuning.validation_delta(history("fedmuscle", 60.0), history("local", 50.0)) == pytest.approx(20)


@pytest.mark.parametrize("setup", SETUPS)
def test_the_stored_table_gave_every_method_the_same_budget_and_comes_from_stored_runs(setup):
    table = pd.read_csv(tuning.table_path(setup))
    expected = dict.fromkeys(["local", *tuning.tuned_methods(setup)], 3 if setup in tuning.BUILDS_ON else 4)
    assert table.groupby("method").size().to_dict() == expected
    stored = {}
    for path in (tuning.FOLDER / setup).glob("*.json"):
        record, history = load_run(path)
        assert not history["split"].eq("test").any()
        stored[Settings(**record["settings"])] = history
    fields = [name for name in table.columns if name in Settings.__dataclass_fields__ and name != "method"]

    def histories(method, values):
        return pd.concat([stored[canonical(one)] for one in tuning.settings(setup, method, values)])

    for row in table.to_dict("records"):
        values = {name: row[name] for name in fields if pd.notna(row[name])}
        again = tuning.validation_delta(histories(row["method"], values), histories("local", {}))
        assert again == pytest.approx(row["delta"], abs=1e-3)
        own_rate = row["method"] == "local" or "local_lr" in tuning.GRIDS[row["method"]][0][0]
        assert own_rate or row["local_lr"] == tuning.tuned(setup, "local")["local_lr"]


def test_the_best_learning_rates_are_inside_their_grids():
    grids = {"local_lr": [values["local_lr"] for values in tuning.LOCAL_GRID],
             "contrastive_lr": [values["contrastive_lr"] for values in tuning.RATES]}
    for method, field in [("local", "local_lr"), ("pairwise", "contrastive_lr"), ("fedmuscle", "contrastive_lr")]:
        assert min(grids[field]) < tuning.tuned("setup1", method)[field] < max(grids[field])


def test_the_table_for_people_marks_one_row_a_method():
    for setup in SETUPS:
        table = tuning.tuning_table(setup)
        assert table[table["chosen"] == "x"]["method"].tolist() == list(dict.fromkeys(table["method"]))
        assert not table.isna().any(axis=None)


def test_choices_at_an_edge_of_what_was_tried_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    pd.DataFrame([("fedhenn", 5e-4, 0.1, 1.0), ("fedhenn", 5e-4, 1.0, 2.0), ("fedhenn", 5e-4, 10.0, 3.0),
                  ("fedmuscle", 5e-4, 0.1, 1.0), ("fedmuscle", 5e-4, 1.0, 2.0), ("fedmuscle", 5e-4, 10.0, 1.0)],
                 columns=["method", "local_lr", "eta", "delta"]).to_csv(tmp_path / "setup1.csv", index=False)
    assert tuning.choices_at_an_edge("setup1") == [("fedhenn", "eta", 10.0)]


def test_tuning_seeds_are_not_result_seeds():
    used = {seed for seeds in tuning.SEEDS.values() for seed in seeds}
    assert used and not used & {seed for profile in PROFILES.values() for seed in profile["seeds"]}


@pytest.fixture
def small(tiny, tmp_path, monkeypatch):
    """Tuning of the tiny federation into tmp_path, one seed and one round."""
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    monkeypatch.setitem(tuning.SEEDS, "tiny", (100,))
    monkeypatch.setattr(tuning, "Settings", lambda **fields: tiny(rounds=1, **fields))
    return tmp_path


def test_a_small_grid_is_tuned_and_stored(small):
    table = tuning.tune("tiny", ("fedmuscle", "cofed"))
    assert table["method"].tolist() == ["local"] * 4 + ["fedmuscle"] * 4 + ["cofed"] * 4
    assert table.query("method == 'local' and local_lr == 1e-3")["delta"].tolist() == [0.0]
    assert pd.read_csv(small / "tiny.csv")["delta"].tolist() == pytest.approx(table["delta"].tolist())
    assert table.query("method == 'fedmuscle'")["tau"].notna().sum() == 1


def test_methods_whose_grid_has_the_local_rate_keep_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    asked = []

    def score(setup, configurations, workers):
        asked.extend(configurations)
        return [{"method": method, **values, "delta": -abs(values["local_lr"] - (5e-4 if method == "local" else 2e-3))}
                for method, values in configurations]

    monkeypatch.setattr(tuning, "score", score)
    tuning.tune("mfed_dense", ("mfed", "fedavg", "fedmuscle"))
    assert [values for method, values in asked if method == "mfed"] == [
        {"local_lr": 5e-4}, {"local_lr": 1e-3}, {"local_lr": 2e-3}, {"local_lr": 2e-3, "lam": 0.3}]
    assert [values["local_lr"] for method, values in asked if method == "fedavg"] == [2.5e-4, 5e-4, 1e-3, 2e-3]
    assert {values["local_lr"] for method, values in asked if method == "fedmuscle"} == {5e-4}


def test_a_setup_that_builds_on_another_is_tuned_around_its_choice(small, monkeypatch):
    monkeypatch.setitem(tuning.BUILDS_ON, "tiny", "setup1")
    asked = []

    def score(setup, configurations, workers):
        asked.extend(configurations)
        return [{"method": method, **values, "delta": -position} for position, (method, values) in enumerate(configurations)]

    monkeypatch.setattr(tuning, "score", score)
    monkeypatch.setattr(tuning, "tuned", lambda setup, method: {"local": {"local_lr": 1e-3}, "fedmuscle": {
        "local_lr": 5.0, "contrastive_lr": 3e-3, "tau": 0.4}}[method])
    tuning.tune("tiny", ("fedmuscle",))
    assert [values["local_lr"] for method, values in asked] == [1e-3, 5e-4, 2e-3, 1e-3, 1e-3, 1e-3]
    assert [values.get("tau_cross") for method, values in asked[3:]] == [None, 0.6, 1.0]
    assert all(values["contrastive_lr"] == 3e-3 for method, values in asked[3:])

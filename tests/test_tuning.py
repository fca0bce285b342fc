import pandas as pd
import pytest

from fedmuscle_core import tuning
from fedmuscle_core.methods import METHODS
from fedmuscle_core.profiles import PROFILES, profile_settings
from fedmuscle_core.store import load_run


def test_the_best_validation_delta_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    assert tuning.tuned("setup1", "local") == {}
    pd.DataFrame([("local", 1e-3, None, 0.0), ("local", 2e-3, None, 1.5), ("fedmuscle", 2e-3, 3e-4, 7.0),
                  ("fedmuscle", 2e-3, 3e-3, 6.0)], columns=["method", "local_lr", "contrastive_lr", "delta"]
                 ).to_csv(tmp_path / "setup1.csv", index=False)
    assert tuning.tuned("setup1", "local") == {"local_lr": 2e-3}
    assert tuning.tuned("setup1", "fedmuscle") == {"local_lr": 2e-3, "contrastive_lr": 3e-4}
    assert profile_settings("mini", "setup1", "fedmuscle", [0])[0].contrastive_lr == 3e-4
    with pytest.raises(ValueError, match="method: got 'pairwise', expected one that was tuned"):
        tuning.tuned("setup1", "pairwise")


def test_validation_delta_compares_the_last_round_only():
    def history(method, last):
        return pd.DataFrame([(method, 0, 1, "mAP", "validation", round, value) for round, value in ((0, 1.0), (1, last))]
                            + [(method, 0, 1, "mAP", "test", 1, 99.0)],
                            columns=["method", "seed", "client", "metric", "split", "round", "value"])
    assert tuning.validation_delta(history("fedmuscle", 60.0), history("local", 50.0)) == pytest.approx(20)


def test_the_stored_table_gave_every_method_the_same_budget_and_comes_from_stored_runs():
    table = pd.read_csv(tuning.table_path("setup1"))
    assert table.groupby("method").size().to_dict() == {"local": 4} | {name: 3 for name in METHODS if name != "local"}
    stored = [load_run(path) for path in sorted((tuning.FOLDER / "setup1").glob("*.json"))]
    assert {history["split"].eq("test").any() for _, history in stored} == {False}
    by_values = {}
    for record, history in stored:
        settings = record["settings"]
        key = (settings["method"], settings["local_lr"], settings["contrastive_lr"] if settings["method"] != "local" else None)
        by_values.setdefault(key, []).append(history)
    reference = pd.concat(by_values["local", 1e-3, None])
    assert all(len(histories) == len(tuning.SEEDS) for histories in by_values.values())
    for row in table.itertuples():
        rate = None if row.method == "local" else row.contrastive_lr
        again = tuning.validation_delta(pd.concat(by_values[row.method, row.local_lr, rate]), reference)
        assert again == pytest.approx(row.delta, abs=1e-3)


def test_the_best_values_are_inside_their_grids():
    table = pd.read_csv(tuning.table_path("setup1"))
    for method, grid in [("local", tuning.LOCAL_GRID["local_lr"]),
                         *((name, tuning.CONTRASTIVE_GRID["contrastive_lr"]) for name in METHODS if name != "local")]:
        field = "local_lr" if method == "local" else "contrastive_lr"
        assert min(grid) < tuning.tuned("setup1", method)[field] < max(grid)
    assert set(table["method"]) == set(METHODS)


def test_tuning_seeds_are_not_result_seeds():
    assert not set(tuning.SEEDS) & {seed for profile in PROFILES.values() for seed in profile["seeds"]}


def test_a_small_grid_is_tuned_and_stored(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "FOLDER", tmp_path)
    monkeypatch.setattr(tuning, "SEEDS", (100,))
    monkeypatch.setattr(tuning, "Settings", lambda **fields: tiny(rounds=1, **fields))
    table = tuning.tune("tiny", ("fedmuscle",))
    assert table["method"].tolist() == ["local"] * 4 + ["fedmuscle"] * 3
    assert table.query("method == 'local' and local_lr == 1e-3")["delta"].tolist() == [0.0]
    assert pd.read_csv(tmp_path / "tiny.csv")["delta"].tolist() == pytest.approx(table["delta"].tolist())

import pandas as pd
import pytest

from fedmuscle_core.experiments import choices
from fedmuscle_core.experiments.profiles import profile_settings
from fedmuscle_core.experiments.setups import SETUPS, Setup

TABLES = sorted(path.stem for path in choices.TUNED.glob("*.csv"))


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Writes a table of its own for Setup 1: rows of (method, .., delta), and the names of the fields."""
    monkeypatch.setattr(choices, "TUNED", tmp_path)

    def write(rows, *fields):
        pd.DataFrame(rows, columns=["method", *fields, "delta"]).to_csv(tmp_path / "setup1.csv", index=False)
    return write


def test_every_setup_is_tuned_or_takes_over_what_was_tuned_for_another():
    assert {choices.tuned_as(name) for name in SETUPS if choices.is_tuned(name)} == set(TABLES)
    assert [name for name in SETUPS if not choices.is_tuned(name)] == ["paper1", "paper2", "paper_noniid"]
    own = Setup("own", [("ic10", "vit_small", 8)])
    assert choices.tuned_as(own) == "own" and not choices.is_tuned(own)
    assert choices.is_tuned(Setup("own", own.clients, tuned_as="setup1"))


def test_the_best_validation_delta_is_used(stored):
    assert choices.tuned("setup1", "local") == {}
    stored([("local", 1e-3, None, None, 0.0), ("local", 2e-3, None, None, 1.5), ("fedmuscle", 2e-3, 3e-4, None, 6.5),
            ("fedmuscle", 2e-3, 3e-3, None, 6.0), ("fedmuscle", 2e-3, 3e-4, 0.5, 7.0)], "local_lr", "contrastive_lr", "tau")
    assert choices.tuned("setup1", "local") == {"local_lr": 2e-3}
    assert choices.tuned("setup1", "fedmuscle") == {"local_lr": 2e-3, "contrastive_lr": 3e-4, "tau": 0.5}
    assert choices.tuned("setup1", "fedmuscle", tau=0.2) == {"local_lr": 2e-3, "contrastive_lr": 3e-4}
    assert choices.tuned("setup1", "fedmuscle", tau=0.9)["tau"] == 0.5        # never tried: the best of all
    settings = profile_settings("mini", "setup1", "fedmuscle", [0], tau=0.2)[0]
    assert (settings.method.tau, settings.training.local_lr) == (0.2, 2e-3)
    assert profile_settings("mini", "clients12", "fedmuscle", [0])[0].method.tau == 0.5        # takes over those of Setup 1
    with pytest.raises(ValueError, match="method: got 'pairwise', expected one that was tuned for setup1: .*'local'"):
        choices.tuned("setup1", "pairwise")


def test_whole_numbers_stay_whole(stored):
    stored([("local", None, 0.0), ("fedmuscle", 2, 1.0)], "num_peers")
    assert choices.tuned("setup1", "fedmuscle") == {"num_peers": 2}
    assert profile_settings("mini", "setup1", "fedmuscle", [0])[0].method.num_peers == 2


def test_choices_at_an_edge_of_what_was_tried_are_found(stored):
    stored([("fedhenn", 5e-4, 0.1, 1.0), ("fedhenn", 5e-4, 1.0, 2.0), ("fedhenn", 5e-4, 10.0, 3.0),
            ("fedmuscle", 5e-4, 0.1, 1.0), ("fedmuscle", 5e-4, 1.0, 2.0), ("fedmuscle", 5e-4, 10.0, 1.0)], "local_lr", "eta")
    assert choices.choices_at_an_edge("setup1") == [("fedhenn", "eta", 10.0)]


@pytest.mark.parametrize("setup", TABLES)
def test_the_table_for_people_marks_one_row_a_method(setup):
    table = choices.tuning_table(setup)
    assert table[table["chosen"] == "x"]["method"].tolist() == list(dict.fromkeys(table["method"]))
    assert not table.isna().any(axis=None)

import math

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
    assert choices.tuned("nobody", "local") == {} == choices.tuned("paper1", "local")
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


def test_a_table_that_is_gone_or_damaged_is_named(stored, tmp_path):
    with pytest.raises(ValueError, match=r"setup1.csv: got no file, expected the tuning table of setup1, which comes with"):
        profile_settings("mini", "clients12", "fedmuscle", [0])
    for content in ("", "method,local_lr\nlocal,0.1\n", "method,delta\nlocal,1.0\n,2.0\n", "method,delta\nlocal,\n"):
        (tmp_path / "setup1.csv").write_text(content)
        with pytest.raises(ValueError, match="setup1.csv: got no tuning table"):
            choices.tuned("setup1", "local")


def test_a_setup_can_be_given_where_its_name_can(stored):
    stored([("local", 2e-3, 1.5), ("local", 1e-3, 0.0), ("local", 5e-4, 0.0)], "local_lr")
    for setup in ("setup1", SETUPS["setup1"], "clients12", Setup("own", [("ic10", "vit_small", 8)], tuned_as="setup1")):
        assert choices.tuned(setup, "local") == {"local_lr": 2e-3} and choices.methods_tried(setup) == {"local"}
        assert choices.tuning_table(setup)["chosen"].tolist() == ["x", "", ""]
        assert choices.choices_at_an_edge(setup) == [("local", "local_lr", 2e-3)]
    for setup in ("paper1", Setup("own", [("ic10", "vit_small", 8)])):
        with pytest.raises(ValueError, match="expected a tuning table: nobody tuned this setup"):
            choices.tuning_table(setup)


def test_what_diverged_is_named_in_the_table_and_never_chosen(stored):
    stored([("local", 2e-3, -math.inf), ("local", 1e-3, -9.0), ("simclr", 1e-3, -math.inf)], "local_lr")
    assert choices.tuned("setup1", "local") == {"local_lr": 1e-3}
    assert choices.tuning_table("setup1")["chosen"].tolist() == ["diverged", "x", "diverged"]
    with pytest.raises(ValueError, match="setup1.csv: 'simclr' diverged with all settings that were tried"):
        choices.tuned("setup1", "simclr")


def test_without_a_clone_tables_go_below_the_runs_folder_and_count_first(stored, tmp_path, monkeypatch):
    stored([("local", 2e-3, 1.0)], "local_lr")
    monkeypatch.setattr(choices, "CLONE", False)
    monkeypatch.setenv("FEDMUSCLE_RUNS", str(tmp_path / "runs"))
    assert choices.tuned("setup1", "local") == {"local_lr": 2e-3}
    own = choices.path_to_write("setup1")
    assert own == tmp_path / "runs" / "tuned" / "setup1.csv"
    own.parent.mkdir(parents=True)
    own.write_text("method,local_lr,delta\nlocal,0.5,1.0\n")
    assert choices.tuned("setup1", "local") == {"local_lr": 0.5}


@pytest.mark.parametrize("setup", TABLES)
def test_the_table_for_people_marks_one_row_a_method(setup):
    table = choices.tuning_table(setup)
    assert table[table["chosen"] == "x"]["method"].tolist() == list(dict.fromkeys(table["method"]))
    assert not table.isna().any(axis=None)

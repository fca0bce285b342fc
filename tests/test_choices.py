import math

import pandas as pd
import pytest

from fedmuscle_core.experiments import ablations, choices
from fedmuscle_core.experiments.profiles import profile_settings
from fedmuscle_core.experiments.setups import SETUPS, Setup

TABLED = sorted(choices.read_all()["setup"].unique())
TUNED = {"method": "local", "seeds": "100 101 102", "public_domain": "", "by": "log-odds", "setup": "embedded1"}


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """Writes a table of its own: of rows of (method, .., score), and the names of the fields."""
    monkeypatch.setattr(choices, "TUNED_TABLE", tmp_path / "tuned.csv")

    def write(rows, *fields):
        table = pd.DataFrame(rows, columns=["method", *fields, "score"])
        pd.DataFrame([TUNED | row for row in table.to_dict("records")]).to_csv(tmp_path / "tuned.csv", index=False)
    return write


def test_every_setup_is_tuned_or_takes_over_what_was_tuned_for_another():
    assert {choices.tuned_as(name) for name in SETUPS if choices.is_tuned(name)} == set(TABLED)
    assert [name for name in SETUPS if not choices.is_tuned(name)] == ["paper1", "paper2", "paper_noniid"]
    own = Setup("own", [("ic10", "vit_small", 8)])
    assert choices.tuned_as(own) == "own" and not choices.is_tuned(own)
    assert choices.is_tuned(Setup("own", own.clients, tuned_as="embedded1"))


def test_each_method_is_tuned_with_each_public_domain_that_is_reported():
    found = dict(choices.tuned_for("embedded1"))
    assert found.pop("single") is None and set(found) == set(ablations.PUBLIC_DOMAINS) - {"single"}
    for domain, methods in found.items():
        assert set(methods) == set(ablations.PUBLIC_METHODS)
        table = choices.tuning_table("embedded1", domain)
        assert table[table["method"] != "local"].groupby("method").size().min() >= 12


def test_the_best_validation_score_is_used(stored):
    assert choices.tuned("nobody", "local") == {} == choices.tuned("paper1", "local")
    stored([("local", 1e-3, None, None, 0.0), ("local", 2e-3, None, None, 1.5), ("fedmuscle", 2e-3, 3e-4, None, 6.5),
            ("fedmuscle", 2e-3, 3e-3, None, 6.0), ("fedmuscle", 2e-3, 3e-4, 0.5, 7.0)], "local_lr", "contrastive_lr", "tau")
    assert choices.tuned("embedded1", "local") == {"local_lr": 2e-3}
    assert choices.tuned("embedded1", "fedmuscle") == {"local_lr": 2e-3, "contrastive_lr": 3e-4, "tau": 0.5}
    assert choices.tuned("embedded1", "fedmuscle", tau=0.2) == {"local_lr": 2e-3, "contrastive_lr": 3e-4}
    assert choices.tuned("embedded1", "fedmuscle", tau=0.9)["tau"] == 0.5        # never tried: the best of all
    settings = profile_settings("mini", "embedded1", "fedmuscle", [0], tau=0.2)[0]
    assert (settings.method.tau, settings.training.local_lr) == (0.2, 2e-3)
    assert profile_settings("mini", "clients12", "fedmuscle", [0])[0].method.tau == 0.5        # takes over those of Setup 1
    with pytest.raises(ValueError, match="method: got 'pairwise', expected one that was tuned for embedded1: .*'local'"):
        choices.tuned("embedded1", "pairwise")


def test_what_was_tried_on_few_seeds_is_chosen_only_where_nothing_else_was(stored, tmp_path):
    stored([("fedmuscle", 1e-4, 0.2, 9.0), ("fedmuscle", 3e-4, 0.5, 2.0), ("fedmuscle", 1e-3, 0.5, 3.0)],
           "contrastive_lr", "tau")
    table = pd.read_csv(tmp_path / "tuned.csv", dtype={"seeds": str}).assign(seeds=["100", "100 101 102", "100 101 102"])
    table.to_csv(tmp_path / "tuned.csv", index=False)
    assert choices.tuned("embedded1", "fedmuscle") == {"contrastive_lr": 1e-3, "tau": 0.5}
    assert choices.tuned("embedded1", "fedmuscle", tau=0.2) == {"contrastive_lr": 1e-4, "tau": 0.2}
    assert choices.tuning_table("embedded1")["chosen"].tolist() == ["", "", "x"]


def test_each_public_domain_has_its_own_choice_and_others_the_setups(stored, tmp_path):
    stored([("fedmuscle", 1e-4, 9.0), ("fedmuscle", 3e-4, 2.0)], "contrastive_lr")
    table = pd.read_csv(tmp_path / "tuned.csv", dtype={"seeds": str}).assign(public_domain=["scenes", "single"])
    table.to_csv(tmp_path / "tuned.csv", index=False)
    assert [choices.tuned("embedded1", "fedmuscle", **named)["contrastive_lr"] for named in (
        {}, {"public_domain": "scenes"}, {"public_domain": "noise"})] == [3e-4, 1e-4, 3e-4]
    assert len(choices.tuning_table("embedded1")) == len(choices.tuning_table("embedded1", "scenes")) == 1


def test_whole_numbers_stay_whole(stored):
    stored([("local", None, 0.0), ("fedmuscle", 2, 1.0)], "num_peers")
    assert choices.tuned("embedded1", "fedmuscle") == {"num_peers": 2}
    assert profile_settings("mini", "embedded1", "fedmuscle", [0])[0].method.num_peers == 2


def test_choices_at_an_edge_of_what_was_tried_are_found(stored):
    stored([("fedhenn", 5e-4, 0.1, 1.0), ("fedhenn", 5e-4, 1.0, 2.0), ("fedhenn", 5e-4, 10.0, 3.0),
            ("fedmuscle", 5e-4, 0.1, 1.0), ("fedmuscle", 5e-4, 1.0, 2.0), ("fedmuscle", 5e-4, 10.0, 1.0)], "local_lr", "eta")
    assert choices.choices_at_an_edge("embedded1") == [("fedhenn", "eta", 10.0)]


def test_a_table_that_is_gone_or_damaged_is_named(stored, tmp_path):
    with pytest.raises(ValueError, match=r"tuned.csv: got no rows of embedded1, expected those that come with"):
        profile_settings("mini", "clients12", "fedmuscle", [0])
    head = "setup,public_domain,method,seeds,by"
    for content in ("", f"{head}\nembedded1,,local,100,delta\n",
                    "setup,method,seeds,by,score\nembedded1,local,1,delta,1.0\n",
                    f"{head},score\nembedded1,,local,100,delta,\n",
                    f"{head},score\nembedded1,,local,100,delta,1.0\nembedded1,,,1,delta,2.0\n"):
        (tmp_path / "tuned.csv").write_text(content)
        with pytest.raises(ValueError, match="tuned.csv: got no tuning table"):
            choices.tuned("embedded1", "local")


def test_the_table_of_what_was_chosen_has_one_row_a_method_and_names_the_ends(stored):
    stored([("local", 2e-3, None, 0.1), ("local", 1e-3, None, 0.5), ("local", 5e-4, None, 0.2), ("simclr", 1e-3, 0.1, 0.3),
            ("simclr", 1e-3, 0.2, 0.2), ("simclr", 1e-3, 0.5, -math.inf)], "local_lr", "tau")
    table = choices.chosen_table("embedded1")
    assert table.columns.tolist() == ["method", "chosen", "tuning seeds", "score"]
    assert table.to_numpy().tolist() == [["Local", "local_lr = 0.001", 3, 0.5],
                                         ["SimCLR", "local_lr = 0.001, tau = 0.1*", 3, 0.3]]
    several = choices.chosen_table("embedded1", Setup("own", [("ic10", "vit_small", 8)], tuned_as="embedded1"))
    assert several["setup"].tolist() == ["embedded1"] * 2 + ["own"] * 2


def test_a_setup_can_be_given_where_its_name_can(stored):
    stored([("local", 2e-3, 1.5), ("local", 1e-3, 0.0), ("local", 5e-4, 0.0)], "local_lr")
    own = Setup("own", [("ic10", "vit_small", 8)], tuned_as="embedded1")
    for setup in ("embedded1", SETUPS["embedded1"], "clients12", own):
        assert choices.tuned(setup, "local") == {"local_lr": 2e-3} and choices.methods_tried(setup) == {"local"}
        assert choices.tuning_table(setup)["chosen"].tolist() == ["x", "", ""]
        assert choices.choices_at_an_edge(setup) == [("local", "local_lr", 2e-3)]
    for setup in ("paper1", Setup("own", [("ic10", "vit_small", 8)])):
        with pytest.raises(ValueError, match="expected some: nobody tuned this setup"):
            choices.tuning_table(setup)


def test_what_diverged_is_named_in_the_table_and_never_chosen(stored):
    stored([("local", 2e-3, -math.inf), ("local", 1e-3, -9.0), ("simclr", 1e-3, -math.inf)], "local_lr")
    assert choices.tuned("embedded1", "local") == {"local_lr": 1e-3}
    assert choices.tuning_table("embedded1")["chosen"].tolist() == ["diverged", "x", "diverged"]
    with pytest.raises(ValueError, match="tuned.csv: 'simclr' diverged with all settings that were tried"):
        choices.tuned("embedded1", "simclr")


def test_rows_of_a_user_go_below_the_runs_folder_and_count_first(stored, tmp_path, monkeypatch):
    stored([("local", 2e-3, 1.0), ("simclr", 1e-3, 1.0)], "local_lr")
    assert choices.path_to_write() == tmp_path / "tuned.csv"                            # FEDMUSCLE_COMMIT=1, in all tests
    monkeypatch.delenv("FEDMUSCLE_COMMIT")
    monkeypatch.setenv("FEDMUSCLE_RUNS", str(tmp_path / "runs"))
    assert choices.tuned("embedded1", "local") == {"local_lr": 2e-3}
    own = choices.path_to_write()
    assert own == tmp_path / "runs" / "tuned.csv"
    own.parent.mkdir(parents=True)
    own.write_text("setup,public_domain,method,local_lr,seeds,by,score\nembedded1,,local,0.5,100 101 102,log-odds,1.0\n")
    assert choices.tuned("embedded1", "local") == {"local_lr": 0.5}
    assert choices.tuned("embedded1", "simclr") == {"local_lr": 1e-3}


@pytest.mark.parametrize("setup", TABLED)
def test_the_table_for_people_marks_one_row_a_method(setup):
    table = choices.tuning_table(setup)
    assert table[table["chosen"] == "x"]["method"].tolist() == list(dict.fromkeys(table["method"]))
    assert not table.isna().any(axis=None)

import dataclasses
import math

import pandas as pd
import pytest

from fedmuscle_core.exchange import Diverged
from fedmuscle_core.experiments import choices, tuning
from fedmuscle_core.experiments.choices import ABOUT, CHOSEN_BY, tuned
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.setups import SETUPS, setup_named
from fedmuscle_core.experiments.store import stored_runs
from fedmuscle_core.federation import Federation
from fedmuscle_core.methods import METHODS, FedHeNN, FedMuscle, Local, of_group

TABLE = choices.read_all()
HEATED = TABLE[TABLE["by"] == CHOSEN_BY]
TUNED = [key for key, _ in HEATED.assign(public_domain=HEATED["public_domain"].fillna("")).groupby(["setup", "public_domain"])]


def test_every_method_has_a_grid_of_twelve():
    assert {name: len(tuning.configurations(name)) for name in METHODS} == dict.fromkeys(METHODS, 12)
    assert set(tuning.tuned_methods("embedded1")) == set(of_group("aligning")) - {"local"}
    assert set(tuning.tuned_methods("mfed_dense")) >= {"fedavg", "mfed", "fedmuscle"}


def test_what_is_shared_gives_way_to_a_methods_own_grid_and_what_is_tied_follows():
    shared = {"local_lr": 7.0, "local_batch_size": 8}
    assert {values["local_lr"] for values in tuning.configurations("fedmuscle", shared)} == {7.0}
    assert {values["local_lr"] for values in tuning.configurations("fedavg", shared)} == {2.5e-4, 5e-4, 1e-3, 2e-3}
    assert all(values["tau_prev"] == pytest.approx(0.75 * values["tau"]) for values in tuning.configurations("fedmuscle"))
    assert "tau_prev" not in tuning.configurations("pairwise")[0]


def history(*rows):
    return pd.DataFrame([("local", 0, client, "mAP", split, round, value) for client, split, round, value in rows],
                        columns=["method", "seed", "client", "metric", "split", "round", "value"])


def test_the_score_compares_log_odds_of_each_clients_best_validation_round():
    ours = history((1, "validation", 0, 10.0), (1, "validation", 1, 60.0), (1, "validation", 2, 50.0), (1, "test", 2, 99.0),
                   (2, "validation", 0, 20.0), (2, "validation", 1, 10.0))
    theirs = history((1, "validation", 0, 50.0), (1, "validation", 2, 10.0), (2, "validation", 0, 20.0))
    assert tuning.validation_log_odds(ours, theirs) == pytest.approx(math.log(0.6 / 0.4) / 2)
    lost = history((1, "validation", 1, math.nan))
    assert tuning.validation_log_odds(lost, theirs) == -math.inf
    with pytest.raises(ValueError, match="tuning: Local diverged"):
        tuning.validation_log_odds(ours, lost)


def test_tuning_measures_nothing_that_no_score_needs():
    first = {method: tuning.settings_for(SETUPS["mfed_dense"], method, {}, "single", [100])[0]
             for method in ("mfed", "fedavg", "fedmuscle")}
    assert all(settings.flat()["test_size"] == 0 for settings in first.values())
    assert not first["mfed"].method.measure_gradients and not first["fedavg"].method.measure_gradients


@pytest.fixture(scope="module")
def tuning_runs():
    """{settings: history} of the committed tuning runs."""
    return {Settings.of(**record["settings"]).canonical(): history for record, history in stored_runs(tuning.FOLDER)
            if record["settings"]["setup"] in SETUPS}


@pytest.mark.parametrize(("setup", "domain"), TUNED)
def test_the_stored_table_gave_every_method_the_same_budget_and_comes_from_stored_runs(setup, domain, tuning_runs):
    rows = HEATED[(HEATED["setup"] == setup) & (HEATED["public_domain"].fillna("") == domain)]
    setup = setup_named(setup)
    own = domain or choices.domain_of(setup)

    def runs(method, values, seeds):
        found = [tuning_runs[one.canonical()] for one in tuning.settings_for(setup, method, values, own, seeds)]
        assert not any(history["split"].eq("test").any() for history in found)
        return found

    for method, several in rows.groupby("method"):
        counts = several["seeds"].str.split().str.len()
        least = [len(METHODS[method].grid and tuning.configurations(method)), 4, 2]
        assert [int((counts >= count).sum()) >= wanted for count, wanted in enumerate(least, 1)] == [True] * 3
        reference = {} if method == Local.name else tuned(setup, Local.name)
        for row in several.to_dict("records"):
            values = {name: row[name] for name in row if name not in ABOUT and pd.notna(row[name])}
            values = {name: int(value) if isinstance(Settings.of(method=method).flat()[name], int) else value
                      for name, value in values.items()}
            seeds = [int(seed) for seed in row["seeds"].split()]
            pairs = zip(runs(method, values, seeds), runs(Local.name, reference, seeds), strict=True)
            again = sum(tuning.validation_log_odds(*pair) for pair in pairs) / len(seeds)
            assert again == pytest.approx(row["score"], abs=1e-3)


@pytest.fixture
def small(tiny, tmp_path, monkeypatch):
    """The tiny setup, its tuning of one round into tmp_path."""
    monkeypatch.setattr(choices, "TUNED_TABLE", tmp_path / "tuned.csv")
    monkeypatch.setattr(tuning, "FOLDER", tmp_path / "runs")
    scale = {"rounds": 1, "num_peers": 2, "batch_size": 8, "public_size": 20, "validation_size": 30}
    return dataclasses.replace(tiny().setup, settings=scale)


@pytest.fixture
def asked(monkeypatch):
    """Every (method, values, seeds) that is scored, in order; none is computed: `asked.score` gives each its score."""
    class Asked(list):
        score = staticmethod(lambda method, values: 0.0)

    asked = Asked()

    def scored(setup, method, values, domain, count, reference):
        asked.append((method, values, count))
        return asked.score(method, values)

    monkeypatch.setattr(tuning, "sweep", lambda *_, **__: None)
    monkeypatch.setattr(tuning, "histories", lambda *_: [])
    monkeypatch.setattr(tuning, "scored", scored)
    return asked


def test_a_small_grid_is_tuned_and_stored(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Local, "grid", {"local_lr": (5e-4, 1e-3, 2e-3)})
    monkeypatch.setattr(FedMuscle, "grid", {"tau": (0.2, 0.5)})
    monkeypatch.setattr(tuning, "EXTENSIONS", 0)
    table = tuning.tune(small, ("fedmuscle",))
    said = capsys.readouterr().out
    assert "tuning local on tiny with single: 5 runs, 4 of them to be computed, about " in said        # one is the reference
    assert "tuning fedmuscle on tiny with single: 4 runs, 4 of them to be computed, about " in said
    assert table["method"].tolist() == ["local"] * 3 + ["fedmuscle"] * 2
    assert sorted(table["seeds"].str.split().str.len()) == [1, 1, 1, 3, 3]
    stored = pd.read_csv(tmp_path / "tuned.csv")
    assert sorted(stored["score"]) == pytest.approx(sorted(table["score"])) and set(stored["by"]) == {"log-odds"}
    assert choices.is_tuned(small) and tuned("tiny", "local")["local_lr"] in {5e-4, 1e-3, 2e-3}
    again = tuning.tune(small, ("fedmuscle",), progress=False)                # finished runs are kept
    pd.testing.assert_frame_equal(again, table)


def test_the_better_third_meets_the_second_seed_and_the_better_two_the_third(small, asked):
    asked.score = lambda method, values: -abs(values.get("eta", 0) - 1.0) - values.get("batch_size", 0) / 100
    tuning.tune(small, ("fedhenn",), progress=False)
    several = [(values["eta"], values["batch_size"], count) for method, values, count in asked if method == "fedhenn"]
    assert len(several) == 12 + 4 + 2 and [count for *_, count in several] == [1] * 12 + [2] * 4 + [3] * 2
    assert {eta for eta, _, count in several if count == 3} == {1.0} and tuned("tiny", "fedhenn")["batch_size"] == 16


def test_an_end_of_the_grid_is_gone_beyond_twice(small, asked):
    asked.score = lambda method, values: values.get("eta", 0.0)
    tuning.tune(small, ("fedhenn",), progress=False)
    beyond = [values["eta"] for method, values, count in asked if method == "fedhenn"][18:]
    assert beyond == pytest.approx([90.0, 270.0]) and tuned("tiny", "fedhenn")["eta"] == beyond[-1]


def test_values_that_settings_refuse_are_not_gone_to(small, asked):
    asked.score = lambda method, values: values.get("vote_margin", 0.0) + values.get("vote_share", 0.0)
    tuning.tune(small, ("cofed",), progress=False)
    assert all(values["vote_margin"] < 1 and values["vote_share"] < 1 for method, values, _ in asked if method == "cofed")


def test_tuning_some_methods_or_another_domain_keeps_the_other_rows(small, asked):
    asked.score = lambda method, values: values["local_lr"]
    tuning.tune(small, ("simclr", "fedmuscle"), progress=False)
    asked.score = lambda method, values: -values["local_lr"]
    tuning.tune(small, ("simclr",), progress=False)
    tuning.tune(small, ("simclr",), "scenes", progress=False)
    table = choices.read_all()
    assert table.groupby(["method", table["public_domain"].fillna("")])["score"].max().gt(0).to_dict() == {
        ("local", ""): False, ("simclr", "single"): False, ("simclr", "scenes"): False, ("fedmuscle", "single"): True}
    assert tuned("tiny", "simclr")["local_lr"] < 1e-3


def test_a_configuration_that_diverges_is_the_worst_and_never_chosen(small, monkeypatch):
    fit = Federation.fit

    def fail(federation, *arguments, **options):
        if federation.training.local_lr == 2e-3:
            raise Diverged("client 1: round 1: local loss is NaN (local)", 1, 1)
        return fit(federation, *arguments, **options)
    monkeypatch.setattr(Federation, "fit", fail)
    monkeypatch.setattr(Local, "grid", {"local_lr": (5e-4, 1e-3, 2e-3)})
    monkeypatch.setattr(FedHeNN, "grid", {"eta": (1.0,)})
    table = tuning.tune(small, ("fedhenn",), progress=False)
    local = table[table["method"] == "local"].set_index("local_lr")["score"]
    assert local[2e-3] == -math.inf and tuned("tiny", "local")["local_lr"] < 2e-3
    assert choices.tuning_table("tiny").set_index(["method", "local_lr"]).loc[("local", 2e-3), "chosen"] == "diverged"


def test_where_local_diverges_always_there_is_nothing_to_tune_against(small, asked):
    asked.score = lambda method, values: -math.inf
    with pytest.raises(ValueError, match="tuning: 'local' diverged with all settings that were tried"):
        tuning.tune(small, ("fedmuscle",), progress=False)


def test_a_method_of_which_all_diverges_keeps_its_rows_and_the_others_theirs(small, asked):
    asked.score = lambda method, values: -math.inf if method == "fedhenn" else 1.0
    table = tuning.tune(small, ("fedhenn", "simclr"), progress=False)
    assert (table[table["method"] == "fedhenn"]["score"] == -math.inf).sum() == 12 and tuned("tiny", "simclr")
    with pytest.raises(ValueError, match="'fedhenn' diverged with all settings that were tried for tiny"):
        tuned("tiny", "fedhenn")


def test_who_diverges_on_a_later_seed_gives_way_to_the_best_that_did_not(small, asked):
    asked.score = lambda method, values: (
        -math.inf if values.get("eta", 1.0) > 20 and len(asked) > 30 else values.get("eta", 0.0))
    table = tuning.tune(small, ("fedhenn",), progress=False)
    found = table[(table["method"] == "fedhenn") & (table["score"] > -math.inf)]
    assert tuned("tiny", "fedhenn")["eta"] == choices.on_most_seeds(found)["eta"].max() <= 20


def test_the_upper_end_of_a_grid_that_starts_at_zero_is_gone_beyond():
    chosen = tuning.configurations("matfl")[3]
    assert chosen["group_shift"] == 1.0 and [values["group_shift"] for values in tuning.beyond(
        "matfl", chosen, tuning.configurations("matfl")) if values["group_shift"] != 1.0] == [2.0]
    least = tuning.configurations("matfl")[0]
    assert all(values["group_shift"] == 0.0 for values in tuning.beyond("matfl", least, tuning.configurations("matfl")))


def test_the_command_takes_no_more_workers_than_the_machine_can_carry(monkeypatch, capsys):
    taken = []
    monkeypatch.setattr(tuning, "affordable", lambda workers: min(workers, 3))
    monkeypatch.setattr(tuning, "tune", lambda setup, methods, domain, workers: taken.append(workers) or pd.DataFrame())
    assert tuning.main(["--workers", "1000"]) == 0 and taken == [3]
    with pytest.raises(SystemExit):
        tuning.main(["--workers", "0"])
    assert "workers: got 0" in capsys.readouterr().err

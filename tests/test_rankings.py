"""Stored runs as tables of competitors: who is held against whom, and where numbers disagree."""

import numpy as np
import pandas as pd
import pytest

from fedmuscle_core.analysis import rankings
from fedmuscle_core.experiments.choices import tuned
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.statistics import NUMBERS

SEEDS = (1, 2, 3)


def runs(method, **values):
    return [Settings.of("embedded1", method, seed=seed, **values) for seed in SEEDS]


def test_a_table_shares_its_local_and_competitors_are_told_apart_by_what_differs():
    wanted = [*runs("local"), *runs("fedmuscle"), *runs("fedmuscle", num_peers=1), *runs("fedmuscle", public_domain="noise"),
              *runs("mfed", local_lr=3e-3), *runs("local", rounds=16), *runs("simclr", rounds=16), *runs("simclr", test_size=0)]
    tables = rankings.competitors([*wanted, *wanted])
    assert list(tables) == ["embedded1", "embedded1, rounds 16"]
    assert list(tables["embedded1"]) == ["local", "fedmuscle, num_peers 3, public_domain single",
                                         "fedmuscle, num_peers 1, public_domain single",
                                         "fedmuscle, num_peers 3, public_domain noise", "mfed"]
    assert list(tables["embedded1, rounds 16"]) == ["local", "simclr"]
    several = [[settings.seed for settings in runs] for table in tables.values() for runs in table.values()]
    assert several == [list(SEEDS)] * 7


def test_of_several_locals_the_tuned_one_is_that_of_the_table():
    values = tuned(Settings.of("embedded1").setup, "local")
    (table,) = rankings.competitors([*runs("local", local_lr=1e-5), *runs("local", **values), *runs("fedmuscle")]).values()
    assert list(table) == ["local", "fedmuscle"] and {one.flat()["local_lr"] for one in table["local"]} == {values["local_lr"]}


def history(settings, scores):
    return {}, pd.DataFrame([(settings.method.name, client, "ic10", "accuracy", "test", 8, settings.seed,
                              score + 0.1 * settings.seed, 0) for client, score in enumerate(scores, 1)], columns=[
        "method", "client", "task", "metric", "split", "round", "seed", "value", "bytes"])


SCORES = {"local": (50.0, 10.0), "fedmuscle": (30.0, 20.0), "simclr": (55.0, 11.0), "gramian": (50.0, 10.5)}


def test_numbers_are_of_what_is_stored_and_flips_are_counted(monkeypatch):
    lost = {("gramian", 2)}

    def find(settings, folder):
        name, seed = settings.method.name, settings.seed
        if name == "cofed" or (name, seed) in lost:
            return None
        return history(settings, SCORES[name])
    monkeypatch.setattr(rankings, "find", find)
    (table,) = rankings.competitors([one for name in (*SCORES, "cofed") for one in runs(name)]).values()
    numbers = rankings.stored_numbers(table, "somewhere")
    assert numbers.groupby("method")["seed"].nunique().to_dict() == {"local": 3, "fedmuscle": 3, "simclr": 3, "gramian": 2}
    found = rankings.disagreements(numbers)
    assert set(found) == set(NUMBERS) - {"delta"}
    assert found["fair_gain"] == found["log_odds"] == found["worst_third"] == (2, 2)       # FedMuscle against both others
    (alone,) = rankings.competitors(runs("local")).values()
    assert rankings.stored_numbers(alone, "somewhere") is None


def test_who_diverged_has_no_numbers(monkeypatch):
    def find(settings, folder):
        record, table = history(settings, SCORES[settings.method.name])
        nothing = settings.method.name == "simclr" and settings.seed == 2
        return record, table.assign(split="diverged", value=np.nan).head(1) if nothing else table
    monkeypatch.setattr(rankings, "find", find)
    (table,) = rankings.competitors([one for name in ("local", "fedmuscle", "simclr") for one in runs(name)]).values()
    assert set(rankings.stored_numbers(table, "somewhere")["method"]) == {"local", "fedmuscle"}


@pytest.mark.parametrize(("first", "second", "wanted"), [
    ((1, 0.5, 2), (-1, -2, -0.5), True), ((1, -0.5, 2), (-1, -2, -0.5), False), ((1, 0.5, 2), (-1, np.nan, np.nan), False)])
def test_both_are_shown_where_both_leave_out_nothing(first, second, wanted):
    (row,) = pd.DataFrame({"first": [first], "second": [second]}).itertuples()
    assert rankings.shown(row) == wanted

import dataclasses
import math

import pandas as pd
import pytest

from fedmuscle_core.commands import reproduce
from fedmuscle_core.experiments.estimate import as_text, estimate, seconds_per_client_round
from fedmuscle_core.experiments.runs import canonical, missing_runs
from fedmuscle_core.experiments.store import run_path, save_run
from fedmuscle_core.federation import COLUMNS


def store(folder, settings, seconds):
    record = {"settings": dataclasses.asdict(canonical(settings)), "wall_seconds": seconds, "fingerprint": "", "finished": ""}
    save_run(run_path(folder, canonical(settings)), record, pd.DataFrame([], columns=COLUMNS))


def test_the_estimate_scales_what_was_measured_by_rounds_and_clients(tiny, tmp_path):
    for seed, seconds in enumerate((12.0, 6.0, 600.0)):       # 3 clients, 2 rounds: 2, 1 and 100 s each; median 2
        store(tmp_path, tiny(method="local", seed=seed), seconds)
    store(tmp_path, tiny(method="fedmuscle"), 60.0)                           # 10 s each
    assert seconds_per_client_round(tmp_path)["tiny", "local"] == 2
    assert estimate([tiny(method="local", rounds=10)], tmp_path) == pytest.approx(2 * 10 * 3)
    assert estimate([tiny(method="local", rounds=10)] * 4, tmp_path, 2) == pytest.approx(2 * 2 * 10 * 3)
    assert estimate([tiny(setup="setup1", method="fedmuscle")], tmp_path) == pytest.approx(10 * 2 * 6)    # another setup
    assert estimate([tiny(method="simclr")], tmp_path) == pytest.approx(6 * 2 * 3)                        # another method
    assert estimate([], tmp_path) == 0 and math.isnan(estimate([tiny()], tmp_path / "empty"))


def test_only_what_is_not_stored_is_missing_and_once(tiny, tmp_path):
    wanted = [tiny(method="local"), tiny(method="local", tau=0.4), tiny(method="fedmuscle")]
    assert missing_runs(wanted, tmp_path) == [canonical(wanted[0]), wanted[2]]


def test_durations_in_words():
    assert [as_text(value) for value in (40, 720, 12600, float("nan"))] == ["40 s", "12 min", "3.5 h", "an unknown time"]


def test_reproduce_says_beforehand_how_long_it_will_take(monkeypatch, capsys, tiny, tmp_path):
    monkeypatch.setattr(reproduce, "PLANS", {"02": lambda profile, seeds: [tiny(method="local"), tiny(method="fedmuscle")]})
    monkeypatch.setattr(reproduce, "results", lambda profile: tmp_path)
    monkeypatch.setattr(reproduce, "sweep", lambda wanted, folder, workers: None)
    store(tmp_path, tiny(method="local", seed=5), 60.0)
    reproduce.compute("mini", ["02"], None, 2)
    assert "2 runs to compute: about 60 s with 2 worker(s)" in capsys.readouterr().out

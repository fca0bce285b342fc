import dataclasses
import os
import signal
import statistics
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest

from fedmuscle_core import federation
from fedmuscle_core.experiments import runs as experiment
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.setups import SETUPS
from fedmuscle_core.experiments.store import load_run, run_path
from fedmuscle_core.paths import results
from fedmuscle_core.world.tasks import TASKS


def test_a_run_is_stored_with_settings_versions_times_and_history(tiny, tmp_path):
    settings = tiny(method="local", seed=3)
    record, history = experiment.run(settings, tmp_path, progress=False)
    loaded, table = load_run(run_path(tmp_path, experiment.canonical(settings)))
    assert loaded == record
    pd.testing.assert_frame_equal(table, history, check_exact=True)
    assert Settings(**loaded["settings"]) == experiment.canonical(settings)
    assert loaded["versions"]["torch"] and loaded["wall_seconds"] > 0 and loaded["started"] <= loaded["finished"]


def test_a_sweep_computes_each_run_once_and_resumes(tiny, tmp_path, monkeypatch):
    calls = []
    train = federation.train
    monkeypatch.setattr(federation, "train", lambda built, *rest: calls.append(built.settings) or train(built, *rest))
    wanted = [tiny(method="local", seed=seed, rounds=1) for seed in (0, 1)]
    records, history = experiment.sweep([*wanted, tiny(method="local", rounds=1, tau=0.5)], tmp_path, progress=False)
    assert len(calls) == len(records) == 2      # tau does not matter to local training: the same run
    _, again = experiment.sweep(wanted, tmp_path, progress=False)
    assert len(calls) == 2
    pd.testing.assert_frame_equal(history, again, check_exact=True)
    experiment.sweep([*wanted, tiny(method="local", seed=2, rounds=1)], tmp_path, progress=False)
    assert [settings.seed for settings in calls] == [0, 1, 2]


def test_force_recomputes_what_was_finished_before(tiny, tmp_path, monkeypatch):
    settings = tiny(method="local", rounds=1)
    experiment.run(settings, tmp_path, progress=False)
    assert experiment.is_stored(settings, tmp_path)
    monkeypatch.setenv(experiment.RECOMPUTE_BEFORE, "2999-01-01T00:00:00+00:00")
    assert not experiment.is_stored(settings, tmp_path)


def test_a_run_of_other_clients_or_weights_does_not_count(tiny, tmp_path, monkeypatch):
    settings = tiny(method="local", rounds=1)
    experiment.run(settings, tmp_path, progress=False)
    monkeypatch.setitem(SETUPS, "tiny", SETUPS["tiny"][::-1])
    experiment.fingerprint.cache_clear()
    assert not experiment.is_stored(settings, tmp_path)


def test_a_run_at_another_rate_of_its_tasks_does_not_count(monkeypatch):
    experiment.fingerprint.cache_clear()
    before = experiment.fingerprint("setup1"), experiment.fingerprint("setup2")
    monkeypatch.setitem(TASKS, "tc10", dataclasses.replace(TASKS["tc10"], lr_scale=2.0))
    experiment.fingerprint.cache_clear()
    after = experiment.fingerprint("setup1"), experiment.fingerprint("setup2")
    experiment.fingerprint.cache_clear()
    assert before[0] == after[0] and before[1] != after[1]


def test_the_committed_runs_are_of_the_clients_and_weights_that_are_committed():
    experiment.fingerprint.cache_clear()
    records = [load_run(path)[0] for path in results("mini").rglob("*-seed*.json")]
    assert len(records) >= 3 * 5
    assert {record["fingerprint"] == experiment.fingerprint(record["settings"]["setup"]) for record in records} == {True}


def test_committed_runs_of_setup_1_took_at_most_90_seconds_on_one_core():
    """By the median: some were computed while other work shared the machine."""
    seconds = [load_run(path)[0]["wall_seconds"] for path in (results("mini") / "setup1").glob("*.json")]
    assert len(seconds) >= 15 and statistics.median(seconds) <= 90


def test_the_ledger_is_stored_with_the_run(tiny, tmp_path):
    record, history = experiment.run(tiny(method="fedmuscle", rounds=1), tmp_path, progress=False)
    by_client = {client: sum(size for _, who, _, size in record["ledger"] if who == client) for client in (1, 2, 3)}
    assert by_client == history[history["round"] == 1].groupby("client")["bytes"].first().to_dict()
    assert {direction for _, _, direction, _ in record["ledger"]} == {"up", "down"}


def test_a_failed_run_does_not_take_the_others_down(tiny, tmp_path, monkeypatch):
    train = federation.train

    def fail_on_seed_0(built, *rest):
        if built.settings.seed == 0:
            raise OSError("disk on fire")
        return train(built, *rest)

    monkeypatch.setattr(federation, "train", fail_on_seed_0)
    wanted = [tiny(method="local", seed=seed, rounds=1) for seed in (0, 1)]
    with pytest.raises(RuntimeError, match=r"1 of 2 runs failed \(tiny local seed 0\)") as caught:
        experiment.sweep(wanted, tmp_path, progress=False)
    assert "disk on fire" in str(caught.value.__cause__)
    assert [experiment.is_stored(settings, tmp_path) for settings in wanted] == [False, True]


SWEEP = """
import sys
from fedmuscle_core import Settings, sweep
small = dict(setup="quickstart", method="local", rounds=1, validation_size=20, test_size=20)
sweep([Settings(seed=seed, **small) for seed in range(5)], sys.argv[1], workers=int(sys.argv[2]), progress=False)
"""


def stored(folder):
    return sorted(folder.glob("*/[!.]*.json"))


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_sweep_keeps_what_was_finished_leaves_no_process_and_goes_on(tmp_path, workers):
    command = [sys.executable, "-c", SWEEP, str(tmp_path), workers]
    process = subprocess.Popen(command)
    while not stored(tmp_path) and process.poll() is None:
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert not alive
    survived = {path: path.stat().st_mtime_ns for path in stored(tmp_path)}
    assert 1 <= len(survived) < 5
    subprocess.run(command, check=True)
    assert len(stored(tmp_path)) == 5
    assert all(path.stat().st_mtime_ns == written for path, written in survived.items())


def test_worker_processes_give_the_same_bits(tmp_path):
    for folder, workers in (("one", 1), ("two", 2)):
        subprocess.run([sys.executable, "-c", SWEEP, str(tmp_path / folder), str(workers)], check=True,
                       env=os.environ | {"OMP_NUM_THREADS": "2"})
    pairs = list(zip(stored(tmp_path / "one"), stored(tmp_path / "two"), strict=True))
    assert len(pairs) == 5
    for one, two in pairs:
        assert one.name == two.name
        pd.testing.assert_frame_equal(load_run(one)[1], load_run(two)[1], check_exact=True)


def test_bad_arguments_are_refused_before_any_work(tiny, tmp_path):
    with pytest.raises(ValueError, match="workers: got 0"):
        experiment.sweep([tiny()], tmp_path, workers=0)
    with pytest.raises(ValueError, match="method: got 'sage'"):
        experiment.sweep([tiny(method="local"), tiny(method="sage")], tmp_path)
    assert not stored(tmp_path)


def test_stored_runs_are_loaded_and_missing_ones_named(tiny, tmp_path):
    settings = tiny(method="local", rounds=1)
    _, history = experiment.run(settings, tmp_path, progress=False)
    _, again = experiment.stored([settings, settings], tmp_path)
    pd.testing.assert_frame_equal(history, again, check_exact=True)
    with pytest.raises(ValueError, match="got no stored run of tiny local seed 5; profile 'mini' computes them"):
        experiment.stored([settings, settings.replace(seed=5)], tmp_path)

import dataclasses
import signal
import statistics
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest

from fedmuscle_core.experiments import plans, resume, runs
from fedmuscle_core.experiments.runs import fingerprint, is_stored, run, stored, sweep, sweep_groups
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.store import find_run, run_names, stored_runs
from fedmuscle_core.federation import Federation
from fedmuscle_core.methods import FedMuscle
from fedmuscle_core.paths import results


@pytest.fixture
def built(monkeypatch):
    """The settings of every federation that is built to be run."""
    settings, build = [], runs.building.build
    monkeypatch.setattr(runs.building, "build", lambda one, *rest: settings.append(one) or build(one, *rest))
    return settings


def test_a_run_is_stored_with_settings_versions_times_and_history(tiny, tmp_path):
    settings = tiny(method="local", seed=3)
    record, history = run(settings, tmp_path, progress=False)
    loaded, table = find_run(tmp_path, "tiny", settings.canonical().run())
    assert loaded == record and not list(tmp_path.glob("*.state.pt"))
    pd.testing.assert_frame_equal(table, history, check_exact=True)
    assert settings.canonical() == Settings.of(**record["settings"] | {"setup": settings.setup})
    assert loaded["versions"]["torch"] and loaded["wall_seconds"] > 0 and loaded["started"] <= loaded["finished"]


def test_the_ledger_is_stored_with_the_run(tiny, tmp_path):
    record, history = run(tiny(rounds=1), tmp_path, progress=False)
    by_client = {client: sum(size for _, who, _, size in record["ledger"] if who == client) for client in (1, 2, 3)}
    assert by_client == history[history["round"] == 1].groupby("client")["bytes"].first().to_dict()
    assert {direction for _, _, direction, _ in record["ledger"]} == {"up", "down"}


def test_a_sweep_computes_each_run_once_and_resumes(tiny, tmp_path, built):
    wanted = [tiny(method="local", seed=seed, rounds=1) for seed in (0, 1)]
    records, history = sweep([*wanted, tiny(method="local", rounds=1, tau=0.5)], tmp_path, progress=False)
    assert len(built) == len(records) == 2      # tau does not matter to local training: the same run
    _, again = sweep(wanted, tmp_path, progress=False)
    assert len(built) == 2
    pd.testing.assert_frame_equal(history, again, check_exact=True)
    found = sweep_groups({"few": wanted[:1], "more": [*wanted, tiny(method="local", seed=2, rounds=1)]}, tmp_path)
    assert [settings.seed for settings in built] == [0, 1, 2]
    assert {key: sorted(set(history["seed"])) for key, (_, history) in found.items()} == {"few": [0], "more": [0, 1, 2]}


def test_force_recomputes_what_was_finished_before(tiny, tmp_path, monkeypatch):
    settings = tiny(method="local", rounds=1)
    run(settings, tmp_path, progress=False)
    assert is_stored(settings, tmp_path)
    monkeypatch.setenv(runs.RECOMPUTE_BEFORE, "2999-01-01T00:00:00+00:00")
    assert not is_stored(settings, tmp_path)


def test_a_run_of_other_clients_or_weights_does_not_count(tiny, tmp_path, monkeypatch):
    settings = tiny(method="local", rounds=1)
    run(settings, tmp_path, progress=False)
    other = dataclasses.replace(settings.setup, clients=settings.setup.clients[::-1])
    assert is_stored(settings, tmp_path) and not is_stored(settings.replace(setup=other), tmp_path)
    (tmp_path / "vit_small").mkdir()
    (tmp_path / "vit_small" / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(runs, "BACKBONES", tmp_path)
    fingerprint.cache_clear()
    counts = is_stored(settings, tmp_path)
    fingerprint.cache_clear()
    assert not counts


def test_an_interrupted_run_goes_on_where_it_was_with_the_same_bits(tiny, tmp_path, monkeypatch):
    settings, played, play = tiny(rounds=3), [], FedMuscle.play

    def play_two(method, server, round):
        if len(played) == 2:
            raise KeyboardInterrupt
        played.append(round)
        return play(method, server, round)

    monkeypatch.setattr(resume, "EVERY", 0)
    _, whole = run(settings, tmp_path / "whole", progress=False)
    monkeypatch.setattr(FedMuscle, "play", play_two)
    with pytest.raises(KeyboardInterrupt):
        run(settings, tmp_path, progress=False)
    (state,) = tmp_path.glob("tiny-fedmuscle-*.state.pt")
    monkeypatch.setattr(FedMuscle, "play", lambda method, server, round: played.append(round) or play(method, server, round))
    _, history = run(settings, tmp_path, progress=False)
    assert played == [1, 2, 3] and not state.exists()
    pd.testing.assert_frame_equal(history, whole, check_exact=True)


def test_a_failed_run_does_not_take_the_others_down(tiny, tmp_path, monkeypatch):
    fit = Federation.fit

    def fail_on_seed_0(federation, *arguments, **options):
        if federation.seed == 0:
            raise OSError("disk on fire")
        return fit(federation, *arguments, **options)

    monkeypatch.setattr(Federation, "fit", fail_on_seed_0)
    wanted = [tiny(method="local", seed=seed, rounds=1) for seed in (0, 1)]
    with pytest.raises(RuntimeError, match=r"1 of 2 runs failed \(tiny local seed 0\)") as caught:
        sweep(wanted, tmp_path, progress=False)
    assert "disk on fire" in str(caught.value.__cause__)
    assert [is_stored(settings, tmp_path) for settings in wanted] == [False, True]


SMALL = {"setup": "quickstart", "method": "local", "rounds": 1, "validation_size": 20, "test_size": 20}
SWEEP = f"""
import sys
from fedmuscle_core import Settings, sweep
sweep([Settings(seed=seed, **{SMALL}) for seed in range(5)], sys.argv[1], workers=2, progress=False)
"""


def test_a_killed_sweep_keeps_what_was_finished_leaves_no_process_and_goes_on(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SWEEP, str(tmp_path)])
    while not run_names(tmp_path, "quickstart") and process.poll() is None:
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=30)
    assert children and not alive
    survived, path = run_names(tmp_path, "quickstart"), tmp_path / "quickstart.jsonl"
    assert 1 <= len(survived) < 5
    written = path.read_text().splitlines(keepends=True)[:len(survived)]
    sweep([Settings(seed=seed, **SMALL) for seed in range(5)], tmp_path, progress=False)
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == len(run_names(tmp_path, "quickstart")) == 5 and lines[:len(survived)] == written


def test_worker_processes_give_the_same_bits_of_a_setup_that_no_module_knows(tiny, tmp_path, monkeypatch):
    wanted = [tiny(method=method, seed=seed, rounds=1) for method, seed in (("local", 0), ("fedmuscle", 0), ("fedmuscle", 1))]
    _, one = sweep(wanted, tmp_path / "one", progress=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")                                # a run takes one all the same
    _, two = sweep(wanted, tmp_path / "two", workers=2, progress=False)
    assert len(stored_runs(tmp_path / "two")) == 3
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_a_setup_that_nobody_tuned_is_told_with_the_results(tiny, tmp_path):
    own, renamed = tiny(method="local", rounds=1), dataclasses.replace(tiny().setup, name="tiny2", tuned_as="setup1")
    _, history = sweep([own, own.replace(setup=renamed)], tmp_path, progress=False)
    assert history.attrs["untuned"] == ["tiny"]
    _, history = stored(plans.setup1("mini"), results("mini"))
    assert history.attrs["untuned"] == []


def test_bad_arguments_are_refused_before_any_work(tiny, tmp_path):
    with pytest.raises(ValueError, match="workers: got 0"):
        sweep([tiny()], tmp_path, workers=0)
    with pytest.raises(ValueError, match="num_peers: got 3, expected 1 to 2"):
        sweep([tiny(method="local"), tiny(num_peers=3)], tmp_path)
    assert not list(tmp_path.iterdir())


def test_stored_runs_are_loaded_and_missing_ones_named(tiny, tmp_path):
    settings = tiny(method="local", rounds=1)
    _, history = run(settings, tmp_path, progress=False)
    _, again = stored([settings, settings], tmp_path)
    pd.testing.assert_frame_equal(history, again, check_exact=True)
    with pytest.raises(ValueError, match="got no stored run of tiny local seed 5; profile 'mini' computes them"):
        stored([settings, settings.replace(seed=5)], tmp_path)


def test_committed_runs_of_setup_1_took_at_most_90_seconds_on_one_core():
    """By the median: some were computed while other work shared the machine."""
    seconds = [record["wall_seconds"] for record, _ in stored_runs(results("mini")) if record["settings"]["setup"] == "setup1"]
    assert len(seconds) >= 15 and statistics.median(seconds) <= 90


def test_two_setups_of_one_name_and_methods_of_a_notebook_with_workers_are_refused(tiny, tmp_path, monkeypatch):
    settings = tiny(method="local")
    other = dataclasses.replace(settings.setup, clients=settings.setup.clients[::-1])
    with pytest.raises(ValueError, match="setup: got another setup named 'tiny', expected a name of its own"):
        runs.sweep([settings, settings.replace(setup=other)], tmp_path)
    with pytest.raises(ValueError, match="setup: got another setup named 'setup1'"):
        runs.sweep([settings.replace(setup=dataclasses.replace(other, name="setup1"))], tmp_path)
    monkeypatch.setattr(type(settings.method), "__module__", "__main__")
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    with pytest.raises(ValueError, match="workers: got 2, expected 1 with Local, defined in a notebook"):
        runs.sweep([settings], tmp_path, workers=2)
    assert not list(tmp_path.iterdir())

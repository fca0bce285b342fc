import dataclasses
import io
import json
import math
import os
import resource
import statistics
import subprocess
import sys

import pandas as pd
import pytest
from found_runs import find_run

from fedmuscle_core.exchange import Diverged
from fedmuscle_core.experiments import plans, resume, runs
from fedmuscle_core.experiments.forecast import estimate
from fedmuscle_core.experiments.runs import fingerprint, is_stored, run, stored, sweep, sweep_groups
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.store import stored_runs
from fedmuscle_core.federation import Federation
from fedmuscle_core.methods import FedMuscle
from fedmuscle_core.paths import ROOT, results


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


def test_worker_processes_give_the_same_bits_of_a_setup_that_no_module_knows(tiny, tmp_path, monkeypatch):
    wanted = [tiny(method=method, seed=seed, rounds=1) for method, seed in (("local", 0), ("fedmuscle", 0), ("fedmuscle", 1))]
    _, one = sweep(wanted, tmp_path / "one", progress=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")                                # a run takes one all the same
    _, two = sweep(wanted, tmp_path / "two", workers=2, progress=False)
    assert len(stored_runs(tmp_path / "two")) == 3
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_a_setup_that_nobody_tuned_is_told_with_the_results(tiny, tmp_path):
    own, renamed = tiny(method="local", rounds=1), dataclasses.replace(tiny().setup, name="tiny2", tuned_as="embedded1")
    _, history = sweep([own, own.replace(setup=renamed)], tmp_path, progress=False)
    assert history.attrs["untuned"] == ["tiny"]
    _, history = stored(plans.notebook_06("mini"), results("mini"))
    assert history.attrs["untuned"] == []


def test_bad_arguments_are_refused_before_any_work(tiny, tmp_path):
    for given in ([], [5], None, tiny()):
        with pytest.raises(ValueError, match=r"settings_list: got .*, expected a list of `Settings`, at least one"):
            sweep(given, tmp_path)
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
    records = [record for record, _ in stored_runs(results("mini"))]
    seconds = [record["wall_seconds"] for record in records if record["settings"]["setup"] == "embedded1"]
    assert len(seconds) >= 15 and statistics.median(seconds) <= 90


def test_two_setups_of_one_name_and_methods_of_a_notebook_with_workers_are_refused(tiny, tmp_path, monkeypatch):
    settings = tiny(method="local")
    other = dataclasses.replace(settings.setup, clients=settings.setup.clients[::-1])
    with pytest.raises(ValueError, match="setup: got another setup named 'tiny', expected a name of its own"):
        runs.sweep([settings, settings.replace(setup=other)], tmp_path)
    with pytest.raises(ValueError, match="setup: got another setup named 'embedded1'"):
        runs.sweep([settings.replace(setup=dataclasses.replace(other, name="embedded1"))], tmp_path)
    monkeypatch.setattr(type(settings.method), "__module__", "__main__")
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(ValueError, match="workers: got 2, expected 1 with Local, defined in a notebook"):
        runs.sweep([settings], tmp_path, workers=2)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def diverging(monkeypatch):
    """Client 2 diverges in round 2 of seed 1, of every method."""
    fit = Federation.fit

    def fail(federation, *arguments, **options):
        if federation.seed == 1:
            raise Diverged("client 2: round 2: local loss is NaN (local)", 2, 2)
        return fit(federation, *arguments, **options)
    monkeypatch.setattr(Federation, "fit", fail)


def test_a_run_that_diverges_is_stored_as_such_and_not_computed_again(tiny, tmp_path, built, diverging, monkeypatch, capsys):
    wanted = [tiny(method="local", seed=seed, rounds=1) for seed in (0, 1, 2)]
    records, history = sweep(wanted, tmp_path, progress=False)
    assert [record.get("failed") for record in records] == [
        None, {"client": 2, "round": 2, "reason": "client 2: round 2: local loss is NaN (local)"}, None]
    said = "1 of 3 runs diverged: local diverged on 1 of 3 seeds: seed 1, client 2, round 2\n"
    assert capsys.readouterr().out == said and len(built) == 3 and not list(tmp_path.glob("*.state.pt"))
    assert all(is_stored(settings, tmp_path) for settings in wanted) and history["value"].isna().sum() == 1
    _, again = sweep(wanted, tmp_path, progress=False)
    assert capsys.readouterr().out == said and len(built) == 3
    pd.testing.assert_frame_equal(history, again)
    monkeypatch.setenv(runs.RECOMPUTE_BEFORE, "2999-01-01T00:00:00+00:00")
    assert not is_stored(wanted[1], tmp_path)


def test_a_score_of_nan_counts_as_diverged(tiny, tmp_path, monkeypatch):
    fit = Federation.fit

    def spoil(federation, *arguments, **options):
        history = fit(federation, *arguments, **options)
        history.loc[(history["client"] == 3) & (history["round"] == 1) & (history["split"] == "validation"), "value"] = math.nan
        return history
    monkeypatch.setattr(Federation, "fit", spoil)
    record, history = run(tiny(method="local", rounds=1), tmp_path, progress=False)
    assert record["failed"] == {"client": 3, "round": 1, "reason": "client 3: round 1: validation accuracy is NaN"}
    assert history["split"].tolist() == ["diverged"] and "ledger" not in record


def damage(path, change):
    """Change the record of the first line by hand, and leave out its sum, as in lines of before version 0.7."""
    first, *others = path.read_text().splitlines()
    record = json.loads(first)
    record.pop("crc")
    change(record)
    path.write_text("\n".join([json.dumps(record), *others]) + "\n")


def cut(record):
    entry = record["history"]["series"][-1]
    entry["values"].pop("3")


@pytest.mark.parametrize(("change", "reason"), [
    (cut, "got no row of client 3, .*and 0 others"),
    (lambda record: record["settings"].update(seed=5), "run: got the name local-.*-seed0, expected local-.*-seed5"),
    (lambda record: record["settings"].update(rounds=None), "rounds: got None"),
    (lambda record: record["settings"].update(speed=2), r"settings: got unknown \['speed'\]"),
    (lambda record: record.pop("fingerprint"), "got a record without fingerprint"),
    (lambda record: record.pop("finished"), "got a record without finished"),
    (lambda record: record.update(settings=None), "not a stored run .TypeError"),
    (lambda record: record["history"]["series"][0].update(metric="acc"), "got no row of client 1, "),
    (lambda record: record["history"].update(bytes=[["1-3", "0-1", 7]]), "bytes: got 7 of client 1, round 1, expected 0"),
    (lambda record: record["history"]["tasks"].update({"3": "mlc"}), "task: got 'mlc' of client 3, expected 'ic10'"),
    (lambda record: record.update(ledger={"up": [["1-3", "1", 8]]}), "bytes: got 0 of client 1, round 1, expected 8"),
], ids=["rows", "seed", "none", "unknown", "fingerprint", "finished", "settings", "metric", "bytes", "task", "ledger"])
def test_a_stored_run_changed_by_hand_is_named_with_file_and_line(tiny, tmp_path, change, reason):
    settings = tiny(method="local", rounds=1)
    for seed in (0, 1):
        run(settings.replace(seed=seed), tmp_path, progress=False)
    damage(tmp_path / "tiny.jsonl", change)
    with pytest.raises(ValueError, match=f"tiny.jsonl, line 1: .*{reason}"):
        sweep([settings], tmp_path, progress=False)
    sweep([settings.replace(seed=1)], tmp_path, progress=False)


def test_a_line_cut_off_is_computed_again_and_damage_in_other_files_does_not_matter(tiny, tmp_path):
    settings = tiny(method="local", rounds=1)
    _, history = run(settings, tmp_path, progress=False)
    path = tmp_path / "tiny.jsonl"
    path.write_bytes(path.read_bytes()[:-100])
    (tmp_path / "embedded1.jsonl").write_text('{"run":"cut\n')
    assert math.isnan(estimate([settings], tmp_path))
    with pytest.warns(UserWarning, match="the last line was cut off"):
        _, again = sweep([settings], tmp_path, progress=False)
    pd.testing.assert_frame_equal(history, again)
    assert not math.isnan(estimate([settings.replace(rounds=2)], tmp_path) or math.nan) or path.read_text().count("\n") == 1


def test_a_full_disk_while_storing_keeps_the_state_and_the_next_start_goes_on(tiny, tmp_path, monkeypatch):
    settings, played, play = tiny(rounds=2), [], FedMuscle.play
    monkeypatch.setattr(resume, "EVERY", 0)
    monkeypatch.setattr(FedMuscle, "play", lambda method, server, round: played.append(round) or play(method, server, round))
    run(settings.replace(seed=1), tmp_path, progress=False)
    path, append = tmp_path / "tiny.jsonl", runs.append_run
    before = path.read_bytes()

    def with_little_room(*arguments):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 1000, limits[1]))
        try:
            append(*arguments)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    monkeypatch.setattr(runs, "append_run", with_little_room)
    with pytest.raises(OSError, match="File too large: '.*tiny.jsonl'"):
        run(settings, tmp_path, progress=False)
    assert path.read_bytes() == before and len(list(tmp_path.glob("tiny-*.state.pt"))) == 1
    monkeypatch.setattr(runs, "append_run", append)
    run(settings, tmp_path, progress=False)
    assert played == [1, 2, 1, 2, 2] and is_stored(settings, tmp_path) and not list(tmp_path.glob("*.state.pt"))


def test_a_folder_that_cannot_be_written_is_named_before_any_work(tiny, tmp_path, built):
    (tmp_path / "taken").write_text("a file")
    for compute in (run, lambda settings, folder: sweep([settings], folder)):
        with pytest.raises(ValueError, match="taken.runs: cannot be written to .*FEDMUSCLE_RUNS"):
            compute(tiny(method="local"), tmp_path / "taken" / "runs")
    assert not built


@pytest.mark.parametrize("workers", [1, 2])
def test_the_bar_counts_rounds_also_of_runs_that_diverge_and_tells_the_last_score(tiny, tmp_path, monkeypatch, workers):
    bars = []

    class Bar(runs.tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs | {"disable": False, "file": io.StringIO()})
            bars.append(self)

    monkeypatch.setattr(runs, "tqdm", Bar)
    diverging = tiny(method="fedmuscle", contrastive_lr=1e30, seed=1)
    records, _ = sweep([tiny(method="local"), diverging], tmp_path / "runs", workers)
    (bar,) = bars
    assert ["failed" in record for record in records] == [False, True]
    assert bar.n == bar.total == 4 and "2 runs -> " in bar.desc and "mean score" in bar.postfix


def test_what_takes_seconds_to_import_is_imported_where_it_is_used():
    code = ("import sys; import fedmuscle_core.experiments.runs, fedmuscle_core.analysis.tables; "
            "sys.exit(str([name for name in ('torchvision', 'scipy.stats', 'sklearn') if name in sys.modules] or ''))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.stderr.strip() == ""

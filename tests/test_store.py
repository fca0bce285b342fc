import json
import math
import os
import pickle
import re
import resource
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from found_runs import find_run, run_names

from fedmuscle_core.experiments import store
from fedmuscle_core.experiments.store import (
    COLUMNS,
    append_run,
    compact,
    environment,
    stored_runs,
    write_atomically,
)
from fedmuscle_core.paths import ROOT

COMMITTED = ROOT / "data" / "results"
LIMIT = 20_000_000   # bytes


def made_up_run(run="local-1-seed0", setup="tiny", rounds=3, scale=1.0):
    """(record, history) of a run of two clients, the second absent from the exchange of round 2."""
    settings = {"setup": setup, "method": run.split("-")[0], "seed": 0, "rounds": rounds, "local_lr": 1e-3}
    random = np.random.default_rng(0)
    rows, ledger = [], []

    def note(client, metric, split, round, value):
        rows.append((settings["method"], client, "ic10", metric, split, round, 0, value * scale, 96 if round else 0))

    for round in range(rounds + 1):
        for client in (1, 2):
            if round and (client, round) != (2, 2):
                note(client, "contrastive_loss", "train", round, random.random())
            if round:
                note(client, "local_loss", "train", round, float(np.float32(random.random())))
                ledger += [[round, client, "down", 64], [round, client, "up", 32]]
            note(client, "accuracy", "validation", round, float(np.float32(random.random())) * 100)
    for client in (1, 2):
        note(client, "accuracy", "test", rounds, float(np.float32(random.random())) * 100)
    history = pd.DataFrame(rows, columns=COLUMNS).sort_values(["round", "client"], kind="stable", ignore_index=True)
    matrices = {"cka": [[1.0, 0.434901], [0.434902, 1.0]], "distance": [[0.0, 1.5], [1.5, -0.0]], "uniformity": [-1.25, -3e-6]}
    return {"run": run, "settings": settings, "versions": {"torch": "2.15.0"}, "wall_seconds": 1.5, "ledger": ledger,
            "alignment": {"before": matrices, "after": matrices}, "masks": {"2": ["0a" * 512, "1b" * 512]}}, history


def check_equal(found, expected):
    assert json.dumps(found[0]) == json.dumps(expected[0])
    pd.testing.assert_frame_equal(found[1], expected[1], check_exact=True)
    assert [value.hex() for value in found[1]["value"]] == [value.hex() for value in expected[1]["value"]]


def forget():
    """Nothing read so far is remembered."""
    store._read.clear()
    store._parsed.cache_clear()


def test_a_run_comes_back_as_it_was(tmp_path):
    run = made_up_run()
    append_run(tmp_path / "deep", *run)
    forget()
    check_equal(find_run(tmp_path / "deep", "tiny", "local-1-seed0"), run)
    assert [entry.name for entry in sorted(tmp_path.glob("deep/*")) if not entry.name.startswith(".")] == ["tiny.jsonl"]
    text = (tmp_path / "deep" / "tiny.jsonl").read_text()
    assert text.startswith('{"run":"local-1-seed0","settings":{') and text.count("\n") == 1 and text.endswith("}\n")


def test_what_is_not_there_is_none(tmp_path):
    assert find_run(tmp_path, "tiny", "local-1-seed0") is None and run_names(tmp_path / "no", "tiny") == []
    append_run(tmp_path, *made_up_run())
    assert find_run(tmp_path, "tiny", "local-1-seed1") is None and find_run(tmp_path, "other", "local-1-seed0") is None
    assert stored_runs(tmp_path / "no") == []


@pytest.mark.parametrize("rows", [slice(None, None, -1), [3, 0, 1, 2, *range(4, 21)], [0, 0, *range(21)]],
                         ids=["reversed", "moved", "twice"])
def test_any_order_of_rows_comes_back(tmp_path, rows):
    record, history = made_up_run()
    history = history.iloc[rows].reset_index(drop=True)
    append_run(tmp_path, record, history)
    forget()
    check_equal(find_run(tmp_path, "tiny", "local-1-seed0"), (record, history))


def test_the_usual_order_needs_no_list_of_it(tmp_path):
    append_run(tmp_path, *made_up_run())
    assert "order" not in json.loads((tmp_path / "tiny.jsonl").read_text())["history"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 1e300, 5e-324, 0.1 + 0.2, 1e-5, 1 / 3])
@pytest.mark.parametrize("row", [2, 9, 16], ids=["float64", "float32", "percent"])
def test_unusual_numbers_come_back_and_the_line_is_json(tmp_path, row, value):
    record, history = made_up_run()
    history.loc[row, "value"] = value
    record["alignment"]["after"] = {"cka": [[value, 1.0], [1.0, 0.5]], "uniformity": [value]}
    append_run(tmp_path, record, history)
    forget()
    check_equal(find_run(tmp_path, "tiny", "local-1-seed0"), (record, history))
    json.loads((tmp_path / "tiny.jsonl").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_score_of_nan_is_null(tmp_path):
    record, history = made_up_run()
    history.loc[0, "value"] = math.nan
    append_run(tmp_path, record, history)
    series = json.loads((tmp_path / "tiny.jsonl").read_text())["history"]["series"]
    assert [entry["values"]["1"][0] for entry in series if entry["split"] == "validation"] == [None]


def test_records_of_other_shapes_come_back(tmp_path):
    record, history = made_up_run()
    record |= {"ledger": [[2, 1, "up", 5], [1, 1, "up", 5]], "masks": {}, "alignment": {"before": {}, "after": None}}
    append_run(tmp_path, record, history)
    few, _ = made_up_run("local-2-seed0")
    few = {name: few[name] for name in ("run", "settings")} | {"ledger": []}
    append_run(tmp_path, few, history)
    forget()
    check_equal(find_run(tmp_path, "tiny", "local-1-seed0"), (record, history))
    check_equal(find_run(tmp_path, "tiny", "local-2-seed0"), (few, history))


@pytest.mark.parametrize(("change", "message"), [
    (lambda record, history: history.insert(0, "extra", 1), "history: got columns"),
    (lambda record, history: history.__setitem__("seed", 1), "history: got a table that does not come back"),
    (lambda record, history: history.__setitem__("bytes", range(21)), "history: got a table that does not come back"),
    (lambda record, history: history.__setitem__("value", 1), "history: got a table that does not come back"),
    (lambda record, history: record.__setitem__("run", 'a"b'), "run: got 'a\"b', expected a name"),
    (lambda record, history: record.pop("run"), "run: got '', expected a name"),
    (lambda record, history: record.__setitem__("history", 1), "record: got history"),
    (lambda record, history: record.__setitem__("wall_seconds", math.nan), "record: got NaN or infinity"),
])
def test_what_would_not_come_back_is_not_stored(tmp_path, change, message):
    record, history = made_up_run()
    change(record, history)
    with pytest.raises(ValueError, match=message):
        append_run(tmp_path, record, history)
    assert run_names(tmp_path, "tiny") == []


def test_a_mistake_in_writing_stores_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_same", lambda values, others: True)       # everything passes for float32
    with pytest.raises(ValueError, match="history: got a table that does not come back"):
        append_run(tmp_path, *made_up_run())
    assert run_names(tmp_path, "tiny") == []


def test_histories_that_differ_in_the_sign_of_a_zero_differ():
    _, history = made_up_run()
    history.loc[0, "value"] = 0.0
    other = history.copy()
    assert store._difference(history, other) == ""
    other.loc[0, "value"] = -0.0
    assert store._difference(history, other) == "signs of zeros"


def test_the_last_line_of_a_run_counts(tmp_path):
    for run in (made_up_run(), made_up_run("local-2-seed0"), made_up_run(scale=0.5)):
        append_run(tmp_path, *run)
    forget()
    check_equal(find_run(tmp_path, "tiny", "local-1-seed0"), made_up_run(scale=0.5))
    assert run_names(tmp_path, "tiny") == ["local-2-seed0", "local-1-seed0"]
    runs = stored_runs(tmp_path)
    assert len(runs) == 2
    check_equal(runs[0], made_up_run("local-2-seed0"))
    check_equal(runs[1], made_up_run(scale=0.5))


def test_all_runs_of_a_folder_but_not_of_those_in_it(tmp_path):
    for folder, setup in ((tmp_path, "b"), (tmp_path, "a"), (tmp_path / "tuning", "c")):
        append_run(folder, *made_up_run(setup=setup))
    assert [record["settings"]["setup"] for record, _ in stored_runs(tmp_path)] == ["a", "b"]


def test_an_appended_line_is_seen_and_a_run_asked_for_twice_is_parsed_once(tmp_path, monkeypatch):
    append_run(tmp_path, *made_up_run())
    assert run_names(tmp_path, "tiny") == ["local-1-seed0"]
    append_run(tmp_path, *made_up_run("local-2-seed0"))
    assert run_names(tmp_path, "tiny") == ["local-1-seed0", "local-2-seed0"]
    record, history = find_run(tmp_path, "tiny", "local-2-seed0")
    monkeypatch.setattr(store, "_from_line", lambda text: pytest.fail("parsed once more"))
    record["settings"]["seed"] = 7
    history.loc[0, "value"] = 7.0
    check_equal(find_run(tmp_path, "tiny", "local-2-seed0"), made_up_run("local-2-seed0"))


def test_names_are_found_without_parsing(tmp_path, monkeypatch):
    append_run(tmp_path, *made_up_run())
    append_run(tmp_path, *made_up_run("local-2-seed0"))
    forget()
    monkeypatch.setattr(store, "_from_line", lambda text: pytest.fail("parsed"))
    assert run_names(tmp_path, "tiny") == ["local-1-seed0", "local-2-seed0"]
    assert find_run(tmp_path, "tiny", "local-3-seed0") is None


@pytest.mark.parametrize("kept", [1, 30, 400, -2])
def test_a_last_line_cut_off_is_ignored_and_the_next_one_is_whole(tmp_path, kept):
    path = tmp_path / "tiny.jsonl"
    append_run(tmp_path, *made_up_run())
    size = path.stat().st_size
    append_run(tmp_path, *made_up_run("local-2-seed0"))
    torn = path.read_bytes()
    path.write_bytes(torn[:size] + torn[size:][:kept])
    assert run_names(tmp_path, "tiny") == ["local-1-seed0"] and len(stored_runs(tmp_path)) == 1
    with pytest.warns(UserWarning, match="tiny.jsonl: the last line was cut off and is left out; the run is computed again"):
        append_run(tmp_path, *made_up_run("local-3-seed0"))
    assert run_names(tmp_path, "tiny") == ["local-1-seed0", "local-3-seed0"]
    check_equal(stored_runs(tmp_path)[1], made_up_run("local-3-seed0"))


def test_a_last_line_without_its_newline_counts(tmp_path):
    path = tmp_path / "tiny.jsonl"
    append_run(tmp_path, *made_up_run())
    path.write_bytes(path.read_bytes()[:-1])
    assert run_names(tmp_path, "tiny") == ["local-1-seed0"]
    append_run(tmp_path, *made_up_run("local-2-seed0"))
    assert len(stored_runs(tmp_path)) == 2 and path.read_text().count("\n") == 2


def test_a_failed_append_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    append_run(tmp_path, *made_up_run())
    before = (tmp_path / "tiny.jsonl").read_bytes()

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        append_run(tmp_path, *made_up_run("local-2-seed0"))
    assert (tmp_path / "tiny.jsonl").read_bytes() == before


def test_a_line_for_which_there_is_half_the_room_leaves_the_file_as_it_was(tmp_path):
    append_run(tmp_path, *made_up_run())
    before = (tmp_path / "tiny.jsonl").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) * 3 // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large: '.*tiny.jsonl'"):
            append_run(tmp_path, *made_up_run("local-2-seed0"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "tiny.jsonl").read_bytes() == before
    append_run(tmp_path, *made_up_run("local-3-seed0"))
    assert run_names(tmp_path, "tiny") == ["local-1-seed0", "local-3-seed0"]


APPENDER = """
import pickle, sys
from fedmuscle_core.experiments.store import append_run
record, history = pickle.loads(sys.stdin.buffer.read())
for count in range(25):
    append_run(sys.argv[1], record | {"run": f"{record['run']}-{count}"}, history)
"""


def test_processes_appending_at_once_lose_nothing(tmp_path):
    workers = [subprocess.Popen([sys.executable, "-c", APPENDER, tmp_path], stdin=subprocess.PIPE, cwd=ROOT) for _ in range(4)]
    for place, worker in enumerate(workers):
        record, history = made_up_run(f"local-{place}", rounds=40)
        worker.stdin.write(pickle.dumps((record, history)))
        worker.stdin.close()
    assert [worker.wait(120) for worker in workers] == [0] * 4
    assert sorted(run_names(tmp_path, "tiny")) == sorted(f"local-{place}-{count}" for place in range(4) for count in range(25))
    for record, history in stored_runs(tmp_path):
        check_equal((record, history), (made_up_run(record["run"], rounds=40)[0], made_up_run(rounds=40)[1]))


@pytest.mark.parametrize("change", [lambda folder: append_run(folder, *made_up_run("local-2-seed0")),
                                    lambda folder: compact(folder / "tiny.jsonl")], ids=["append", "compact"])
def test_a_change_waits_for_the_lock(tmp_path, change):
    append_run(tmp_path, *made_up_run())
    append_run(tmp_path, *made_up_run())
    before = (tmp_path / "tiny.jsonl").read_bytes()
    with FileLock(tmp_path / ".tiny.jsonl.lock"):
        waiting = threading.Thread(target=change, args=(tmp_path,))
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive() and (tmp_path / "tiny.jsonl").read_bytes() == before
    waiting.join(60)
    assert not waiting.is_alive() and (tmp_path / "tiny.jsonl").read_bytes() != before


@pytest.mark.parametrize(("line", "asked"), [
    ("", False), ("{", False), ("[]", False), ("<<<<<<< HEAD", False), ('{"settings": {}}', False),
    ('{"run":"x","settings":{"setup":"tiny"', True), ('{"run":"x","settings":{}}', True),
    ('{"run":"x","settings":{"setup":"tiny","method":"local","seed":0},"history":{}}', True),
])
def test_a_damaged_line_is_named(tmp_path, line, asked):
    append_run(tmp_path, *made_up_run())
    path = tmp_path / "tiny.jsonl"
    path.write_text(path.read_text() + line + "\n" + path.read_text())
    message = r"tiny.jsonl, line 2: not a stored run \(.*\); delete the line to have the run computed again"
    with pytest.raises(ValueError, match=message):
        stored_runs(tmp_path)
    with pytest.raises(ValueError, match=message):
        find_run(tmp_path, "tiny", "x") if asked else run_names(tmp_path, "tiny")


@pytest.mark.parametrize("missing", ["metric", "split", "rounds", "values", "scale", "tasks", "series", "bytes", "method"])
def test_a_missing_column_is_named(tmp_path, missing):
    append_run(tmp_path, *made_up_run())
    path = tmp_path / "tiny.jsonl"
    line = json.loads(path.read_text())
    for part in (line["settings"], line["history"], line["history"]["series"][-1]):
        part.pop(missing, None)
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match="tiny.jsonl, line 1: not a stored run"):
        find_run(tmp_path, "tiny", "local-1-seed0")


def test_a_value_too_few_is_noticed(tmp_path):
    append_run(tmp_path, *made_up_run())
    path = tmp_path / "tiny.jsonl"
    line = json.loads(path.read_text())
    line["history"]["series"][-2]["values"]["1"].pop()
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match="line 1: not a stored run .*other numbers of values than rounds"):
        stored_runs(tmp_path)


def test_a_line_in_the_file_of_another_setup_is_named(tmp_path):
    append_run(tmp_path, *made_up_run())
    (tmp_path / "tiny.jsonl").rename(tmp_path / "other.jsonl")
    with pytest.raises(ValueError, match="other.jsonl, line 1: .*setup: got 'tiny', expected the file's, 'other'"):
        stored_runs(tmp_path)


def test_compact_keeps_what_counts(tmp_path):
    path = tmp_path / "tiny.jsonl"
    for run in (made_up_run(), made_up_run("local-2-seed0"), made_up_run(scale=0.5)):
        append_run(tmp_path, *run)
    kept = path.read_text().split("\n")[1:]
    path.write_text(path.read_text() + '{"run":"local-3')
    compact(path)
    assert path.read_text() == "\n".join(kept)
    check_equal(find_run(tmp_path, "tiny", "local-1-seed0"), made_up_run(scale=0.5))


def test_compact_of_a_damaged_or_absent_file_changes_nothing(tmp_path):
    path = tmp_path / "tiny.jsonl"
    path.write_text("not a run\n")
    with pytest.raises(ValueError, match="tiny.jsonl, line 1: not a stored run"):
        compact(path)
    assert path.read_text() == "not a run\n"
    with pytest.raises(ValueError, match="expected a file of runs"):
        compact(tmp_path / "no.jsonl")
    assert not (tmp_path / "no.jsonl").exists()


def test_committed_runs_are_small_whole_and_there_once():
    paths = sorted(COMMITTED.rglob("*.jsonl"))
    assert paths and sum(path.stat().st_size for path in paths) < LIMIT
    assert not [path for path in COMMITTED.rglob("*seed*.json")]
    for path in paths:
        lines = path.read_text().splitlines()
        names = run_names(path.parent, path.stem)
        assert len(lines) == len(set(names)), f"{path}: a run is there twice"
        assert all(re.search(r',"crc":"[0-9a-f]{8}"}$', line) for line in lines), f"{path}: a line without its checksum"
        for name in names:
            record, history = find_run(path.parent, path.stem, name)
            assert record["run"] == name and list(history.columns) == COLUMNS and len(history)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_atomically(path, "old")

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left on device: '.*run.json'"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


def test_environment_names_the_versions():
    assert environment()["torch"].startswith("2.") and environment()["python"] == sys.version.split()[0]


@pytest.mark.parametrize("change", [
    lambda text: text.replace('"torch":"2.15.0"', '"torch":"2.16.0"'),
    lambda text: text.replace('"seed":0', '"seed":1').replace("seed0", "seed1"),
    lambda text: re.sub('"local_loss","split":"train","rounds":"1-3","scale":1,"values":{"1":.0.', r'\g<0>1', text),
    lambda text: text.replace('"crc":"', '"crc":"0')], ids=["a version", "another seed", "a value", "the sum"])
def test_a_line_changed_by_hand_is_named_and_one_without_a_sum_counts(tmp_path, change):
    append_run(tmp_path, *made_up_run())
    path = tmp_path / "tiny.jsonl"
    text = change(path.read_text())
    assert text != path.read_text()
    path.write_text(text)
    with pytest.raises(ValueError, match=r"tiny.jsonl, line 1: not a stored run \(ValueError: crc: the line was changed after"):
        stored_runs(tmp_path)
    path.write_text(re.sub(',"crc":"[0-9a-f]+"', "", text))                   # as lines of before version 0.7
    assert len(stored_runs(tmp_path)) == 1


def test_a_number_that_is_not_json_is_named(tmp_path):
    append_run(tmp_path, *made_up_run())
    path = tmp_path / "tiny.jsonl"
    path.write_text(path.read_text().replace('"wall_seconds":1.5', '"wall_seconds":NaN'))
    with pytest.raises(ValueError, match="line 1: .*got NaN, which is not JSON"):
        find_run(tmp_path, "tiny", "local-1-seed0")


def test_a_run_that_diverged_has_one_row_that_says_when(tmp_path):
    record, _ = made_up_run()
    record = {name: record[name] for name in ("run", "settings")}
    record["failed"] = {"client": 2, "round": 3, "reason": "client 2: round 3: local loss is NaN"}
    append_run(tmp_path, record)
    found, history = find_run(tmp_path, "tiny", "local-1-seed0")
    assert found == record and history[["method", "client", "split", "round", "seed"]].values.tolist() == [
        ["local", 2, "diverged", 3, 0]]
    assert "NaN" not in (tmp_path / "tiny.jsonl").read_text().replace("is NaN", "") and list(history) == COLUMNS


def test_what_can_be_read_of_a_damaged_folder_is_read_and_the_rest_named(tmp_path):
    for setup in ("a", "b", "c"):
        append_run(tmp_path, *made_up_run(setup=setup))
    append_run(tmp_path, *made_up_run("local-2-seed0", setup="b"))
    (tmp_path / "a.jsonl").write_text("<<<<<<< HEAD\n")
    (tmp_path / "b.jsonl").write_text((tmp_path / "b.jsonl").read_text().replace('"series"', '"serious"', 1))
    found, wrong = store.whole_runs(tmp_path)
    assert [(line.path.name, record["run"]) for line, record, _ in found] == [
        ("b.jsonl", "local-2-seed0"), ("c.jsonl", "local-1-seed0")]
    assert len(wrong) == 2 and "a.jsonl, line 1: not a stored run" in wrong[0] and "b.jsonl, line 1: " in wrong[1]


def test_files_have_the_rights_that_the_umask_leaves(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a.json", "{}")
        append_run(tmp_path, *made_up_run())
        compact(tmp_path / "tiny.jsonl")
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode)[-3:] for path in tmp_path.glob("[at]*")}
    assert modes == {"a.json": "640", "tiny.jsonl": "640"}


def test_files_that_belong_together_are_replaced_together_or_not_at_all(tmp_path):
    def fail(path):
        path.write_text("half")
        raise OSError(28, "No space left on device")

    write_atomically(tmp_path / "a.csv", "old")
    with pytest.raises(OSError, match="No space left on device: '.*a.png'"):
        store.replace_together({tmp_path / "a.csv": lambda path: path.write_text("new"), tmp_path / "a.png": fail})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a.csv": "old"}


def test_a_folder_that_cannot_be_written_is_named_with_what_moves_it(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(ValueError, match=r"taken.runs: cannot be written to \(Not a directory\); .* FEDMUSCLE_RUNS"):
        store.check_writable(tmp_path / "taken" / "runs")
    store.check_writable(tmp_path / "made")
    assert not list((tmp_path / "made").iterdir())

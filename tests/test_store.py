import json
import os

import pandas as pd
import pytest

from fedmuscle_core.experiments.store import environment, load_run, save_run, write_atomically


def test_a_run_comes_back_as_it_was(tmp_path):
    history = pd.DataFrame([["local", 1, 0.1 + 0.2], ["local", 2, 1e-300]], columns=["method", "client", "value"])
    record = {"settings": {"seed": 0}, "alignment": {"before": [[1.0]]}, "finished": "2026-01-01T00:00:00+00:00"}
    save_run(tmp_path / "deep" / "run.json", record, history)
    loaded, table = load_run(tmp_path / "deep" / "run.json")
    assert loaded == record
    pd.testing.assert_frame_equal(table, history, check_exact=True)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_atomically(path, "old")

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", json.dumps({"settings": {}})])
def test_a_damaged_file_is_named(tmp_path, text):
    path = tmp_path / "run.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="run.json: not a stored run"):
        load_run(path)


def test_environment_names_the_versions():
    assert environment()["torch"].startswith("2.") and environment()["python"].startswith("3.11")

"""What a user computes in a clone lies beside the committed runs: these stay as they are, and both are read."""

import pytest
from found_runs import run_names

from fedmuscle_core import paths
from fedmuscle_core.experiments import runs, store


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """A folder of committed runs in a clone whose user commits none."""
    monkeypatch.setattr(paths, "STORED", tmp_path / "results")
    monkeypatch.setenv("FEDMUSCLE_RUNS", str(tmp_path / "runs"))
    monkeypatch.delenv("FEDMUSCLE_COMMIT")
    return tmp_path / "results"


def made(settings, folder, monkeypatch, **changes):
    """A stored run, as if `changes` had been in its record."""
    append = store.append_run
    monkeypatch.setattr(runs, "append_run", lambda folder, record, history: append(folder, record | changes, history))
    found = runs.run(settings, folder, progress=False)
    monkeypatch.setattr(runs, "append_run", append)
    return found


def test_own_runs_leave_the_committed_ones_alone_and_both_are_read(committed, tiny, monkeypatch):
    with monkeypatch.context() as committing:
        committing.setenv("FEDMUSCLE_COMMIT", "1")
        runs.run(tiny(rounds=1), committed, progress=False)
    (file,) = committed.glob("*.jsonl")
    before = file.read_bytes()
    records, history = runs.sweep([tiny(rounds=1), tiny(rounds=1, seed=1)], committed, progress=False)
    assert len(records) == 2 and history["seed"].nunique() == 2 and file.read_bytes() == before
    assert [path.name for path in committed.parent.rglob("*.jsonl")] == ["tiny.jsonl"] * 2
    assert len(run_names(paths.written_beside(committed), "tiny")) == len(run_names(committed, "tiny")) == 1
    assert len(store.stored_runs(committed)) == len(store.whole_runs(committed)[0]) == 2
    assert [path for path in committed.iterdir() if not path.name.startswith(".")] == [file]           # no state left behind
    assert runs.missing_runs([tiny(rounds=1), tiny(rounds=1, seed=1)], committed) == []


@pytest.mark.parametrize(("own", "counts"), [
    ({"finished": "2099-01-01T00:00:00+00:00"}, True), ({"finished": "2020-01-01T00:00:00+00:00"}, False),
    ({"finished": "2099-01-01T00:00:00+00:00", "fingerprint": "of others"}, False),
], ids=["later", "earlier", "of other clients"])
def test_of_the_same_run_the_later_counts_if_it_is_of_these_clients(committed, tiny, monkeypatch, own, counts):
    with monkeypatch.context() as committing:
        committing.setenv("FEDMUSCLE_COMMIT", "1")
        runs.run(tiny(rounds=1), committed, progress=False)
    made(tiny(rounds=1), committed, monkeypatch, wall_seconds=99.0, **own)
    (record,), _ = runs.stored([tiny(rounds=1)], committed)
    assert (record["wall_seconds"] == 99.0) == counts and runs.is_stored(tiny(rounds=1), committed)


def test_a_folder_may_be_named_in_any_way(committed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("results", "runs/../results", committed):
        assert paths.written_beside(name) == tmp_path / "runs" / "own"
    assert paths.written_beside(committed / "privacy" / "a.ndjson") == tmp_path / "runs" / "own" / "privacy" / "a.ndjson"
    assert paths.layers("elsewhere") == (paths.Path("elsewhere"),)


def test_what_is_made_of_committed_runs_alone_asks_for_the_variable(committed, monkeypatch):
    with pytest.raises(ValueError, match="FEDMUSCLE_COMMIT: got nothing, expected '1'"):
        paths.check_commits()
    monkeypatch.setenv("FEDMUSCLE_COMMIT", "yes")
    with pytest.raises(ValueError, match="FEDMUSCLE_COMMIT: got 'yes', expected '1' or nothing"):
        paths.commits()
    monkeypatch.setenv("FEDMUSCLE_COMMIT", "1")
    paths.check_commits()

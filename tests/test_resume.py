"""A run's state between two rounds: one that is damaged, or cannot be written, costs time and nothing else."""

import random

import pandas as pd
import pytest
from small_clients import federation, fit, method

from fedmuscle_core.experiments import resume
from fedmuscle_core.experiments.resume import State

IDENTITY = {"run": "a", "fingerprint": "b"}


@pytest.fixture
def killed(tmp_path, monkeypatch):
    """The file that a run left which was killed after two of its three rounds."""
    monkeypatch.setattr(resume, "EVERY", 0.0)
    path = tmp_path / "a.state.pt"
    state, found = State(path, IDENTITY), federation(method("fedmuscle"))

    def kill(found):
        state.save(found)
        if found.round == 2:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        fit(found, after_round=kill)
    return path


def gone_on(path):
    """The history of a run that takes up what is in `path`, and how many rounds it played."""
    state, found, played = State(path, IDENTITY), federation(method("fedmuscle")), []
    state.load(found)
    return fit(found, after_round=lambda found: played.append(found.round)), len(played)


def flip(content):
    content, rng = bytearray(content), random.Random(0)
    for place in rng.sample(range(len(content)), 64):
        content[place] ^= 255
    return bytes(content)


def test_a_whole_state_saves_its_rounds(killed):
    history, played = gone_on(killed)
    assert played == 1
    pd.testing.assert_frame_equal(history, fit(federation(method("fedmuscle"))), check_exact=True)


@pytest.mark.parametrize("damage", [flip, lambda content: content[:len(content) // 2], lambda content: b""])
def test_a_damaged_state_is_dropped_and_the_result_is_the_same(killed, damage):
    killed.write_bytes(damage(killed.read_bytes()))
    with pytest.warns(UserWarning, match=r"a\.state\.pt: got a damaged state.*; it is deleted and the run begins anew"):
        history, played = gone_on(killed)
    assert played == 3 and not killed.exists()
    pd.testing.assert_frame_equal(history, fit(federation(method("fedmuscle"))), check_exact=True)


def test_a_run_goes_on_without_its_state_where_the_disk_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(resume, "EVERY", 0.0)

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("torch.save", full)
    state = State(tmp_path / "a.state.pt", IDENTITY)
    with pytest.warns(UserWarning, match=r"a\.state\.pt: the state could not be written \(.*No space left.*; the run goes on"):
        history = fit(federation(method("fedmuscle")), after_round=state.save)
    assert list(tmp_path.iterdir()) == []
    pd.testing.assert_frame_equal(history, fit(federation(method("fedmuscle"))), check_exact=True)


def test_a_state_that_another_process_took_away_is_none(killed, monkeypatch):
    """The other one finished the run meanwhile."""
    monkeypatch.setattr(resume.Path, "is_file", lambda path: True)
    killed.unlink()
    assert gone_on(killed)[1] == 3
    State(killed, IDENTITY).forget_if_older("2999-01-01")

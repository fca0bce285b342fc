"""States in files: whole or not at all, and what was damaged is not taken for a state."""

import resource

import pytest
import torch

from fedmuscle_core.files import load_state, save_state

STATE = {"round": 3, "rows": [[1, "a", 0.5], []], "tensors": {"w": torch.arange(9000.0).view(90, 100),
                                                             "half": torch.ones(3, dtype=torch.bfloat16)}}


def test_a_state_comes_back_to_the_last_bit(tmp_path):
    path = tmp_path / "made" / "a.state"
    save_state({"old": True}, path)
    save_state(STATE, path)
    back = load_state(path)
    assert back["rows"] == STATE["rows"] and [item.name for item in path.parent.iterdir()] == ["a.state"]
    assert all(torch.equal(value, back["tensors"][name]) and value.dtype == back["tensors"][name].dtype
               for name, value in STATE["tensors"].items())


@pytest.mark.parametrize("damage", [
    lambda content: b"", lambda content: content[:20], lambda content: content[:-1], lambda content: content + b"0",
    lambda content: content[:32], lambda content: content[:2000] + bytes(64) + content[2064:],
    lambda content: bytes([content[0] ^ 1]) + content[1:]])
def test_a_damaged_state_is_named(tmp_path, damage):
    path = tmp_path / "a.state"
    save_state(STATE, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"a\.state: got a damaged state"):
        load_state(path)


@pytest.mark.parametrize("room", [0, 16, 20_000])
def test_a_full_disk_names_the_file_and_leaves_what_was_there(tmp_path, room):
    path = tmp_path / "a.state"
    save_state({"old": 1}, path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match=r"a\.state: the state could not be written \(.*File too large"):
            save_state(STATE, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert load_state(path) == {"old": 1} and len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match="taken"):
        save_state(STATE, tmp_path / "taken" / "a.state")

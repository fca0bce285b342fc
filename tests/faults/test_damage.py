"""Files that are damaged are named, nothing is computed from them, and without them the rest is as it would have been."""

import random
import re
import shutil
import signal
import warnings
from pathlib import Path

import pytest
from faults.children import forked, killed_at
from faults.small_runs import SEED, WANTED, contents
from faults.test_kills import sweep_in_child

from fedmuscle_core.experiments.parked import ParkedClients
from fedmuscle_core.experiments.runs import run, sweep
from fedmuscle_core.experiments.store import whole_runs
from fedmuscle_core.networks import backbones
from fedmuscle_core.networks.backbones import load_backbone
from fedmuscle_core.paths import BACKBONES


def flipped(content, place, bit):
    """`content` with one bit turned over."""
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1:]


def flips(content, count):
    """{what was done: content}, so many bits turned over, one at a time, at places spread over the whole."""
    draw = random.Random(SEED)
    places = [(draw.randrange(part * len(content) // count, (part + 1) * len(content) // count), draw.randrange(8))
              for part in range(count)]
    return {f"bit {bit} of byte {place}": flipped(content, place, bit) for place, bit in places}


def cuts(content, count):
    """Likewise, cut off, and empty."""
    draw = random.Random(SEED)
    return {"empty": b""} | {f"cut off after {size}": content[:size] for size in draw.sample(range(1, len(content)), count)}


def sweep_as_told(folder):
    """A sweep after which what an error says is done: a damaged line or file is deleted, and the sweep asked for again.

    Returns what was said: errors and warnings, each of which names a file."""
    said = []
    for _ in range(5):
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                sweep(WANTED, folder, progress=False)
                return said + [str(each.message) for each in warned]
            except (ValueError, RuntimeError) as error:
                said += [*(str(each.message) for each in warned), str(error)]
        if found := re.search(r"(\S+\.jsonl), line (\d+): .*; delete the line", said[-1]):
            lines = Path(found[1]).read_bytes().split(b"\n")
            del lines[int(found[2]) - 1]
            Path(found[1]).write_bytes(b"\n".join(lines))
        elif found := re.search(rf"({folder}/small-\S+?): .*delete it to begin anew", said[-1]):
            (folder / found[1]).unlink()
        else:
            raise AssertionError(f"nothing is said that one could do: {said[-1]}")
    raise AssertionError(f"it does not come to an end: {said}")


def as_lines(content):
    return [line + b"\n" for line in content.split(b"\n") if line]


def test_damaged_results_are_named_and_computed_again(undisturbed, folder, reference, told, fault):
    whole = undisturbed.read_bytes()
    lines = as_lines(whole)
    damages = flips(whole, 40) | cuts(whole, 8) | {
        "swapped lines": b"".join(reversed(lines)), "twice": whole + whole, "no last newline": whole[:-1],
        "a line in another": lines[0][:300] + lines[1] + lines[2],
        "of a conflict": b"<<<<<<< HEAD\n" + lines[0] + b"=======\n" + b"".join(lines[1:]) + b">>>>>>> other\n",
        "zeros": whole[:500] + bytes(100) + whole[600:],
        "of another setup": whole.replace(b'"setup":"small"', b'"setup":"tiny"'),
        "an exchanged name": whole.replace(b'{"run":"mfed', b'{"run":"cofed'), "a number": whole.replace(b"0.5", b"0.25", 1),
        "zeros after a power cut": whole + bytes(4096)}
    for what, content in damages.items():
        with fault("damaged results", what):
            told.clear()
            (folder / "small.jsonl").write_bytes(content)
            intact = [line for line in lines if line in as_lines(content)]
            said = sweep_as_told(folder)
            said += whole_runs(folder)[1]                                     # lines that no sweep asks for
            assert contents(folder, WANTED) == reference
            assert set(intact) <= set(as_lines((folder / "small.jsonl").read_bytes()))
            assert all("small.jsonl" in text for text in said)
            again = any(text.endswith("stored") for text in told)
            assert said or not again or set(as_lines(content)) <= set(lines), "nothing was said"


@pytest.fixture
def interrupted(tmp_path, told, reference):
    """{run: its state after a round} of the first two runs of a sweep."""
    found = {}
    for number in range(4, 40, 3):
        place = tmp_path / str(number)
        place.mkdir()
        assert forked(tmp_path / f"said{number}", killed_at, number, place, sweep_in_child, place).wait() == -signal.SIGKILL
        for path in place.glob("small-*.state.pt"):
            found.setdefault(path.name, path.read_bytes())
        if len(found) == 2:
            return found
    raise AssertionError("no state was found")


def test_damaged_states_are_named_and_the_run_begins_anew(interrupted, folder, reference, told, fault):
    (name, state), (_, other) = interrupted.items()
    damages = flips(state, 24) | cuts(state, 6) | {"of another run": other, "no state": b"a text", "doubled": state + state,
                                                   "zeros": state[:5000] + bytes(512) + state[5512:]}
    for what, content in damages.items():
        with fault("damaged states", what):
            shutil.rmtree(folder)
            folder.mkdir()
            (folder / name).write_bytes(content)
            told.clear()
            said = sweep_as_told(folder)
            assert contents(folder, WANTED) == reference and any(name in text for text in said)
            assert sorted(path.name for path in folder.iterdir() if path.suffix != ".lock") == ["small.jsonl"]


def test_damaged_states_of_parked_clients_are_named(tmp_path, folder, told, fault, monkeypatch):
    """What a client left is damaged before its next turn."""
    wanted, iterate = WANTED[0].replace(rounds=1), ParkedClients.__iter__
    run(wanted, folder, progress=False, parked=folder / "clients")
    (path, *_) = sorted((folder / "clients").iterdir())
    content, expected = path.read_bytes(), contents(folder, [wanted])
    for what, damaged in (flips(content, 12) | cuts(content, 4)).items():
        left = [damaged]

        def damaging(clients, left=left):
            for client in iterate(clients):
                if client.name == 2 and path.is_file() and left:
                    path.write_bytes(left.pop())
                yield client

        with fault("damaged states of parked clients", what):
            monkeypatch.setattr(ParkedClients, "__iter__", damaging)
            with pytest.raises(ValueError, match=re.escape(str(path))):
                run(wanted, folder, progress=False, parked=folder / "clients")
            monkeypatch.setattr(ParkedClients, "__iter__", iterate)
            run(wanted, folder, progress=False, parked=folder / "clients")
            assert contents(folder, [wanted]) == expected


def test_damaged_backbones_are_named(tmp_path, monkeypatch, fault):
    """Of those that come with the package."""
    for path in BACKBONES.iterdir():
        if path.is_file() or path.name in ("vit_small", "resnet_small"):
            shutil.copytree(path, tmp_path / path.name) if path.is_dir() else shutil.copy(path, tmp_path)
    monkeypatch.setattr(backbones, "BACKBONES", tmp_path)
    load_backbone("vit_small")
    for name in ("model.safetensors", "config.json"):
        path = tmp_path / "vit_small" / name
        content = path.read_bytes()
        damages = flips(content, 12) | cuts(content, 3) | {"of another": (tmp_path / "resnet_small" / name).read_bytes()}
        for what, damaged in damages.items():
            with fault("damaged backbones", name, what):
                path.write_bytes(damaged)
                with pytest.raises(ValueError, match=re.escape(str(path))):
                    load_backbone("vit_small")
        path.write_bytes(content)
    load_backbone("vit_small")

"""A slow disk and slow messages cost time, nothing else; a download that hardly moves ends, and what came is kept."""

import hashlib
import os
import random
import time

import pytest
from faults import small_runs
from faults.small_runs import SEED, WANTED, contents
from small_clients import federation, fit, method

from fedmuscle_core.engines.in_process import InProcess
from fedmuscle_core.experiments.runs import sweep
from fedmuscle_core.world.real import fetch
from fedmuscle_core.world.real.sources import File


@pytest.mark.parametrize("slow", ["fsync", "replace", "open"])
def test_a_slow_disk_changes_nothing(folder, reference, told, fault, monkeypatch, slow):
    took, call = [], getattr(os, slow)

    def slowly(*arguments, **options):
        took.append(slow)
        time.sleep(0.02)
        return call(*arguments, **options)

    with fault("slow disk", slow):
        monkeypatch.setattr(os, slow, slowly)
        sweep(WANTED, folder, progress=False)
        assert took and contents(folder, WANTED) == reference


class Slow(InProcess):
    """Answers take a time, and come in another order each time."""

    order = random.Random(SEED)

    def ask(self, stages):
        time.sleep(0.01)
        return [dict(self.order.sample(list(found.items()), len(found))) for found in super().ask(stages)]


@pytest.mark.parametrize("name", ["fedmuscle", "fedhenn", "cofed", "mfed"])
def test_slow_answers_in_any_order_change_nothing(fault, name):
    expected = fit(federation(method(name)), 2)
    with fault("slow messages", name):
        found = federation(method(name))
        assert fit(found, 2, engine=Slow(found.clients, found.method)).equals(expected)


class Trickle:
    """A connection that gives a byte at a time."""

    status = 200

    def __init__(self, content, pause):
        self.content, self.pause = iter(content), pause

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def read1(self, size):
        time.sleep(self.pause)
        return bytes([byte]) if (byte := next(self.content, None)) is not None else b""


def test_a_download_that_hardly_moves_ends_and_goes_on_later(tmp_path, fault, monkeypatch):
    content = bytes(range(200))
    file = File("https://example.org/a.bin", len(content), hashlib.sha256(content).hexdigest())
    monkeypatch.setattr(fetch, "PATIENCE", 0.1)
    with fault("slow network: download"):
        monkeypatch.setattr(fetch.urllib.request, "urlopen", lambda request, timeout: Trickle(content, 0.02))
        with pytest.raises(ValueError, match="slower than 1,000 bytes a second; what came is kept in .*, the same"):
            fetch.download(file, tmp_path / "a.bin")
        kept = (tmp_path / "a.bin.partial").read_bytes()
        assert kept and content.startswith(kept)

        def rest(request, timeout):
            start = int(request.headers["Range"].removeprefix("bytes=").rstrip("-"))
            answer = Trickle(content[start:], 0.0)
            answer.status = 206
            return answer

        monkeypatch.setattr(fetch.urllib.request, "urlopen", rest)
        fetch.download(file, tmp_path / "a.bin")
        assert (tmp_path / "a.bin").read_bytes() == content


def test_slow_messages_of_a_stored_run_change_nothing(folder, reference, fault, monkeypatch):
    small_runs.use(monkeypatch.setattr, slow=0.02)
    with fault("slow messages", "sweep"):
        sweep(WANTED, folder, progress=False)
        assert contents(folder, WANTED) == reference

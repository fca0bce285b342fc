"""Downloads, from a server of our own: what is shown first, going on after a break, checksums, unpacking."""

import contextlib
import hashlib
import http.server
import pickle
import shutil
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR10

from fedmuscle_core.commands import cli
from fedmuscle_core.world.real import fetch, layouts, sources
from fedmuscle_core.world.real.sources import SOURCES, File, Source


@pytest.fixture
def server(tmp_path):
    """Serves tmp_path/www with ranges; `asked`: the paths and Range headers it saw; `cut`: bytes after which it hangs up;
    `pause`: seconds before each further byte."""
    root, asked, state = tmp_path / "www", [], {"cut": None, "pause": None}
    root.mkdir()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            content = (root / self.path.lstrip("/")).read_bytes()
            given = self.headers.get("Range")
            asked.append((self.path, given))
            start = int(given.removeprefix("bytes=").rstrip("-")) if given else 0
            self.send_response(206 if given else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = start + state["cut"] if state["cut"] else None
            if state["pause"] is None:
                self.wfile.write(content[start:end])
            else:
                self.trickle(content[start:end])

        def trickle(self, content):
            with contextlib.suppress(OSError):
                for place in range(len(content)):
                    time.sleep(state["pause"])
                    self.wfile.write(content[place:place + 1])

        def log_message(self, *_):
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    running.root, running.asked, running.state = root, asked, state
    running.address = f"http://127.0.0.1:{running.server_port}"
    yield running
    running.shutdown()
    running.server_close()


def served(server, name, content):
    (server.root / name).write_bytes(content)
    return File(f"{server.address}/{name}", len(content), hashlib.sha256(content).hexdigest())


@pytest.fixture
def pets(server, tmp_path, monkeypatch):
    """A source "pets": a zip with an image folder."""
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path / "data"))
    with zipfile.ZipFile(tmp_path / "pets.zip", "w") as archive:
        for split, name in (("train", "cat"), ("train", "dog"), ("test", "cat"), ("test", "dog")):
            Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / "x.png")
            archive.write(tmp_path / "x.png", f"{split}/{name}/0.png")
    file = served(server, "pets.zip", (tmp_path / "pets.zip").read_bytes())
    monkeypatch.setitem(SOURCES, "pets", Source("two kinds of pets", "ours", layouts.image_folder, 2, (file,)))
    return tmp_path / "data" / "pets"


def test_a_source_is_shown_fetched_unpacked_and_checked(pets, capsys):
    assert cli.main(["data", "fetch", "--yes", "pets"]) == 0
    shown = capsys.readouterr().out
    for part in ("two kinds of pets", "terms: ours", "pets.zip", "SHA-256", "0 MB", str(pets)):
        assert part in shown
    assert len(sources.read_source("pets")) == 4 and not list(pets.parent.glob("*.part")) and not list(pets.glob("*.zip"))
    assert cli.main(["data", "check", "pets"]) == 0
    assert "pets: 4 samples are whole (2 train, 2 test)" in capsys.readouterr().out
    (pets / "test" / "dog" / "0.png").write_bytes(b"no image")
    assert cli.main(["data", "check", "pets"]) == 2
    assert "dog/0.png: not a whole image" in capsys.readouterr().err


def test_nothing_comes_without_a_yes_and_what_is_here_is_not_fetched_again(pets, server, capsys):
    assert fetch.fetch("pets", lambda prompt: "") == 1 and not pets.exists() and not server.asked
    assert fetch.fetch("pets", lambda prompt: "y") == 0 and len(server.asked) == 1
    assert fetch.fetch("pets", lambda prompt: pytest.fail("asked")) == 0 and len(server.asked) == 1
    assert "here already" in capsys.readouterr().out


def test_a_download_goes_on_where_it_broke_off(server, tmp_path):
    content = bytes(range(256)) * 40
    file, path = served(server, "a.bin", content), tmp_path / "a.bin"
    server.state["cut"] = 4000
    with pytest.raises(ValueError, match="a.bin: .*the same command goes on"):
        fetch.download(file, path)
    assert (tmp_path / "a.bin.partial").stat().st_size == 4000 and not path.exists()
    server.state["cut"] = None
    fetch.download(file, path)
    assert path.read_bytes() == content and [given for _, given in server.asked] == [None, "bytes=4000-"]
    fetch.download(file, path)
    assert len(server.asked) == 2                                             # whole and verified: not asked for again


def test_a_wrong_checksum_is_named_and_the_file_deleted(server, tmp_path):
    file = served(server, "a.bin", b"right")
    (server.root / "a.bin").write_bytes(b"wrong")
    wrong = hashlib.sha256(b"wrong").hexdigest()
    with pytest.raises(ValueError, match=f"a.bin: got a file with SHA-256 {wrong}, expected 5 bytes .*{file.sha256}"):
        fetch.download(file, tmp_path / "a.bin")
    assert list(tmp_path.glob("a.bin*")) == []
    with pytest.raises(ValueError, match="nothing.bin: .*goes on"):
        fetch.download(File("http://127.0.0.1:9/nothing.bin", 5, "0"), tmp_path / "nothing.bin")


def test_no_more_bytes_come_than_the_file_has(server, tmp_path, monkeypatch):
    """Of a server that sends 20 MB for a file of five bytes, with the right length in its header or a wrong one."""
    file = served(server, "a.bin", b"right")
    (server.root / "a.bin").write_bytes(b"right" + bytes(20_000_000))
    receive, sizes = fetch._receive, []

    def watched(answer, partial, *arguments):
        receive(answer, partial, *arguments)
        sizes.append(partial.stat().st_size)
    monkeypatch.setattr(fetch, "_receive", watched)
    with pytest.raises(ValueError, match="a.bin: got a file with 6 bytes or more, expected 5 bytes with SHA-256"):
        fetch.download(file, tmp_path / "a.bin")
    assert sizes == [6] and list(tmp_path.glob("a.bin*")) == []


@pytest.mark.parametrize(("pause", "patience", "slowest", "message"), [
    (60.0, 0.1, 1000, "a.bin: .*timed out; what came is kept"), (0.02, 0.1, 10 ** 6, "slower than 1,000,000 bytes a second")])
def test_a_server_that_stalls_or_trickles_is_given_up(server, tmp_path, monkeypatch, pause, patience, slowest, message):
    file = served(server, "a.bin", bytes(range(100)))
    server.state["pause"] = pause
    monkeypatch.setattr(fetch, "PATIENCE", patience)
    monkeypatch.setattr(fetch, "SLOWEST", slowest)
    with pytest.raises(ValueError, match=message):
        fetch.download(file, tmp_path / "a.bin")
    server.state["pause"] = None
    fetch.download(file, tmp_path / "a.bin")
    assert (tmp_path / "a.bin").read_bytes() == bytes(range(100))


def test_an_interruption_between_two_archives_fetches_neither_again(server, pets, monkeypatch):
    with zipfile.ZipFile(server.root / "more.zip", "w") as archive:
        archive.write(server.root.parent / "x.png", "train/cat/1.png")
    second = served(server, "more.zip", (server.root / "more.zip").read_bytes())
    plain = served(server, "note.csv", b"1,2\n")
    source = SOURCES["pets"]
    monkeypatch.setitem(SOURCES, "pets", source._replace(files=(*source.files, second, plain)))
    unpack_archive = shutil.unpack_archive

    def once(path, *arguments, **options):
        unpack_archive(path, *arguments, **options)
        raise KeyboardInterrupt
    monkeypatch.setattr(shutil, "unpack_archive", once)
    with pytest.raises(KeyboardInterrupt):
        fetch.fetch("pets", None)
    assert not pets.exists() and len(server.asked) == 3
    monkeypatch.setattr(shutil, "unpack_archive", unpack_archive)
    assert fetch.fetch("pets", None) == 0 and len(server.asked) == 3
    assert len(sources.read_source("pets")) == 5 and (pets / "note.csv").is_file()
    assert [path.name for path in pets.parent.iterdir()] == ["pets"]


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
@pytest.mark.parametrize("member", ["../../outside.png", "/tmp_outside.png"])
def test_no_member_of_an_archive_leaves_its_folder(tmp_path, kind, member):
    path, content = tmp_path / f"evil.{kind}", tmp_path / "a" / "content"
    content.parent.mkdir()
    (tmp_path / "x.png").write_bytes(b"evil")
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(tmp_path / "x.png", member)
    else:
        with tarfile.open(path, f"w:{kind.partition('.')[2]}") as archive:
            archive.add(tmp_path / "x.png", member, filter=lambda found: found.replace(name=member, deep=False))
    with contextlib.suppress(tarfile.FilterError):
        fetch.unpack("pets", [path], content)
    outside = {found.name for found in tmp_path.rglob("*") if content not in found.parents}
    assert outside == {"x.png", path.name, "a", "content"} and not Path(member).exists()


def test_cifar_becomes_one_image_a_sample(server, tmp_path, monkeypatch):
    """The official archive with five samples a file; torchvision's own sums are set to those of our files."""
    rng, made, base = np.random.default_rng(0), {}, "cifar-10-batches-py"
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for name in names:
        labels = rng.integers(10, size=5).tolist()
        made[name] = pickle.dumps({"data": rng.integers(256, size=(5, 3072), dtype=np.uint8), "labels": labels})
    classes = [f"class{number}" for number in range(10)]
    made["batches.meta"] = pickle.dumps({"label_names": classes})
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        for name, content in made.items():
            (tmp_path / name).write_bytes(content)
            archive.add(tmp_path / name, f"{base}/{name}")
    sums = {name: hashlib.md5(content).hexdigest() for name, content in made.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]})
    file = served(server, "c.tar.gz", (tmp_path / "c.tar.gz").read_bytes())
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path / "data"))
    monkeypatch.setitem(SOURCES, "cifar10", SOURCES["cifar10"]._replace(files=(file,)))
    assert fetch.fetch("cifar10", None) == 0
    folder = tmp_path / "data" / "cifar10"
    assert sorted(path.name for path in folder.iterdir()) == ["test", "train"]
    images = sorted(folder.rglob("*.png"))
    assert len(images) == 30
    first = pickle.loads(made["test_batch"])
    path = folder / "test" / classes[first["labels"][0]] / "00000.png"
    assert np.array_equal(np.asarray(Image.open(path)).transpose(2, 0, 1).ravel(), first["data"][0])


def test_the_list_names_every_source_with_its_terms(capsys):
    assert cli.main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    assert all(f"{name}: {source.about}" in shown and source.terms in shown for name, source in SOURCES.items())


@pytest.mark.parametrize(("command", "message"), [
    (["fetch", "imagenet"], "source: got 'imagenet', expected one of"),
    (["fetch", "--yes", "flickr30k"], "flickr30k: got a source without files"),
    (["check", "voc"], "voc: no such folder; `fedmuscle data fetch voc` gets it, or set FEDMUSCLE_DATA"),
])
def test_what_cannot_be_had_is_said(tmp_path, monkeypatch, capsys, command, message):
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path))
    assert cli.main(["data", *command]) == 2
    assert message in capsys.readouterr().err


def test_a_full_disk_is_noticed_before_anything_is_asked(pets, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10})())
    with pytest.raises(ValueError, match="got 0 MB of free disk"):
        fetch.fetch("pets", lambda prompt: pytest.fail("asked"))


def test_sources_are_described_fully():
    for name, source in SOURCES.items():
        assert source.about and source.terms and callable(source.read), name
        for file in source.files:
            assert file.url.startswith("https://") and file.size > 10 ** 6 and len(file.sha256) == 64, name

"""Downloads, from a server of our own: what is shown first, going on after a break, checksums, unpacking."""

import hashlib
import http.server
import pickle
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from fedmuscle_core.commands import cli
from fedmuscle_core.world.real import fetch, layouts, sources
from fedmuscle_core.world.real.sources import SOURCES, File, Source


@pytest.fixture
def server(tmp_path):
    """Serves tmp_path/www with ranges; `asked`: the paths and Range headers it saw; `cut`: bytes after which it hangs up."""
    root, asked, state = tmp_path / "www", [], {"cut": None}
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
            self.wfile.write(content[start:end])

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
    return File(f"{server.address}/{name}", len(content), hashlib.md5(content).hexdigest())


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
    for part in ("two kinds of pets", "terms: ours", "pets.zip", "md5", "0 MB", str(pets)):
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
    wrong = hashlib.md5(b"wrong").hexdigest()
    with pytest.raises(ValueError, match=f"a.bin: got a file with md5 {wrong}, expected {file.md5}"):
        fetch.download(file, tmp_path / "a.bin")
    assert list(tmp_path.glob("a.bin*")) == []
    with pytest.raises(ValueError, match="nothing.bin: .*goes on"):
        fetch.download(File("http://127.0.0.1:9/nothing.bin", 5, "0"), tmp_path / "nothing.bin")


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
    monkeypatch.setattr(fetch.CIFAR10, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(fetch.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(fetch.CIFAR10, "meta", {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]})
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
            assert file.url.startswith("http") and file.size > 10 ** 6 and len(file.md5) == 32, name

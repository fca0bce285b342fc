"""Download a real data set: show what it is, fetch with resume, verify, unpack.  Never called by anything but its command."""

import http.client
import shutil
import sys
import time
import urllib.request

from tqdm.auto import tqdm

from ...files import sha256
from .sources import read_source, source_folder, source_named, sources

CHUNK = 1 << 20
FREE_FACTOR = 3                       # of the download's size: archive, its content, and some air
PATIENCE, SLOWEST = 60.0, 1000        # seconds without a byte, and bytes a second after these, at which a download gives up


def main(action, name=None, yes=False):
    """`fedmuscle data`: action "list", or "fetch" or "check" with the name of a source; returns the exit status."""
    if action == "list":
        print("\n".join(map(describe, sources())))
        return 0
    source_folder(name)
    return fetch(name, None if yes else input) if action == "fetch" else check(name)


def describe(name):
    """What the source is, its terms, size and addresses, as text."""
    source, folder = source_named(name), source_folder(name)
    size = sum(file.size for file in source.files)
    there = "here already" if folder.is_dir() else f"{size / 1e6:,.0f} MB to download" if size else "not to be downloaded"
    lines = [f"{name}: {source.about}", f"  terms: {source.terms}", f"  folder: {folder} ({there})"]
    files = [f"  from: {file.url} ({file.size / 1e6:,.0f} MB, SHA-256 {file.sha256})" for file in source.files]
    return "\n".join(lines + files)


def fetch(name, ask=input):
    """Download source `name` into its folder after `ask` has said yes; returns the exit status.

    A download that broke off goes on where it was; a file whose checksum differs is deleted and named in a ValueError.
    The folder appears under its name only when everything is there.  ask: function prompt -> answer, None: do not ask.
    """
    source, folder = source_named(name), source_folder(name)
    print(describe(name))
    if folder.is_dir():
        return 0
    if not source.files:
        raise ValueError(f"{name}: got a source without files, expected one that can be downloaded; see its terms above")
    size = sum(file.size for file in source.files)
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < FREE_FACTOR * size:
        raise ValueError(f"{folder.parent}: got {free / 1e6:,.0f} MB of free disk, expected {FREE_FACTOR * size / 1e6:,.0f} MB")
    if ask and ask("Download? [y/N] ").strip().lower() not in ("y", "yes"):
        print("nothing was downloaded")
        return 1
    working = folder.with_name(f"{name}.part")
    working.mkdir(exist_ok=True)
    paths = [working / file.url.rsplit("/", 1)[1] for file in source.files]
    for file, path in zip(source.files, paths, strict=True):
        download(file, path)
    unpack(name, paths, working / "content")
    (working / "content").replace(folder)
    shutil.rmtree(working)
    print(f"{name} -> {folder}")
    return 0


def download(file, path):
    """`file` to `path`, through a file beside it that a later call goes on with; never more bytes than it has."""
    if path.is_file() and sha256(path) == file.sha256:
        return
    partial = path.with_name(f"{path.name}.partial")
    start = partial.stat().st_size if partial.is_file() else 0
    if start < file.size:
        request = urllib.request.Request(file.url, headers={"Range": f"bytes={start}-"} if start else {})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                start = start if answer.status == 206 else 0
                _receive(answer, partial, start, file.size)
            if (came := partial.stat().st_size) < file.size:
                raise ConnectionError(f"broke off after {came:,} of {file.size:,} bytes")
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(f"{file.url}: {error}; what came is kept in {partial}, the same command goes on") from error
    found = f"{partial.stat().st_size:,} bytes or more" if partial.stat().st_size > file.size else f"SHA-256 {sha256(partial)}"
    if found != f"SHA-256 {file.sha256}":
        partial.unlink()
        raise ValueError(f"{file.url}: got a file with {found}, expected {file.size:,} bytes with SHA-256 {file.sha256}; it "
                         "was deleted")
    partial.replace(path)


def _receive(answer, partial, start, size):
    """Write the bytes of `answer` to `partial` after its first `start`, one more than the file has at most."""
    began, came = time.monotonic(), 0
    with partial.open("ab" if start else "wb") as target, tqdm(desc=partial.stem, total=size, initial=start, unit="B",
                                                               unit_scale=True, disable=None) as bar:
        while block := answer.read1(min(CHUNK, size + 1 - start - came)):
            came += target.write(block)
            bar.update(len(block))
            if came < SLOWEST * (time.monotonic() - began - PATIENCE):
                raise ConnectionError(f"slower than {SLOWEST:,} bytes a second")


def unpack(name, paths, content):
    """What the files `paths` hold into the folder `content`; CIFAR's become one image file a sample, as `layouts` reads them.

    The files stay: whoever is interrupted here need not download again.
    """
    content.mkdir(exist_ok=True)
    for path in paths:
        if path.suffix in (".zip", ".tar", ".gz"):
            shutil.unpack_archive(path, content, **{} if path.suffix == ".zip" else {"filter": "data"})     # none leaves it
        else:
            shutil.copy(path, content)
    if name in ("cifar10", "cifar100"):
        from torchvision.datasets import CIFAR10, CIFAR100  # takes seconds

        kind = CIFAR10 if name == "cifar10" else CIFAR100
        for split in ("train", "test"):
            samples = kind(str(content), train=split == "train")              # verifies the pickles before it reads them
            for number, (image, label) in enumerate(tqdm(samples, f"{name} {split}")):
                path = content / split / samples.classes[label] / f"{number:05}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
        shutil.rmtree(content / kind.base_folder)


def check(name):
    """Read the whole source and look at every file; returns the exit status, ValueError naming the file at fault."""
    table = read_source(name)
    from .photos import check_samples  # takes seconds

    count = check_samples(table, source_named(name).num_classes, progress=sys.stderr.isatty())
    splits = ", ".join(f"{size:,} {split}" for split, size in table["split"].value_counts(sort=False).items())
    print(f"{name}: {count:,} samples are whole ({splits})")
    return 0

"""Download a real data set: show what it is, fetch with resume, verify, unpack.  Never called by anything but its command."""

import hashlib
import http.client
import shutil
import sys
import urllib.request
from pathlib import Path

from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.datasets.utils import extract_archive
from tqdm.auto import tqdm

from .photos import check_samples
from .sources import read_source, source_folder, source_named, sources

CHUNK = 1 << 20
CIFAR = {"cifar10": CIFAR10, "cifar100": CIFAR100}
FREE_FACTOR = 3                       # of the download's size: archive, its content, and some air


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
    return "\n".join(lines + [f"  from: {file.url} ({file.size / 1e6:,.0f} MB, md5 {file.md5})" for file in source.files])


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
    for file in source.files:
        download(file, working / file.url.rsplit("/", 1)[1])
    unpack(name, working)
    working.replace(folder)
    print(f"{name} -> {folder}")
    return 0


def download(file, path):
    """`file` to `path`, through a file beside it that a later call goes on with."""
    if path.is_file() and md5(path) == file.md5:
        return
    partial = path.with_name(f"{path.name}.partial")
    start = partial.stat().st_size if partial.is_file() else 0
    if start < file.size:
        request = urllib.request.Request(file.url, headers={"Range": f"bytes={start}-"} if start else {})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                going_on = start and answer.status == 206
                with partial.open("ab" if going_on else "wb") as target, tqdm(
                        desc=path.name, total=file.size, initial=start if going_on else 0, unit="B", unit_scale=True) as bar:
                    while block := answer.read(CHUNK):
                        target.write(block)
                        bar.update(len(block))
            if (came := partial.stat().st_size) < file.size:
                raise ConnectionError(f"broke off after {came:,} of {file.size:,} bytes")
        except (OSError, http.client.HTTPException) as error:
            raise ValueError(f"{file.url}: {error}; what came is kept in {partial}, the same command goes on") from error
    found = md5(partial)
    if found != file.md5:
        partial.unlink()
        raise ValueError(f"{file.url}: got a file with md5 {found}, expected {file.md5}; it was deleted")
    partial.replace(path)


def md5(path):
    """MD5 sum of a file, as hexadecimal digits: against damage, not against malice."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def unpack(name, folder):
    """Unpack the archives in `folder` and delete them; CIFAR's become one image file a sample, as `layouts` reads them."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (".zip", ".tar", ".gz"):
            extract_archive(str(path), str(folder))
            path.unlink()
    if name in CIFAR:
        for split in ("train", "test"):
            samples = CIFAR[name](str(folder), train=split == "train")        # verifies the pickles before it reads them
            for number, (image, label) in enumerate(tqdm(samples, f"{name} {split}")):
                path = folder / split / samples.classes[label] / f"{number:05}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
        shutil.rmtree(folder / CIFAR[name].base_folder)


def check(name):
    """Read the whole source and look at every file; returns the exit status, ValueError naming the file at fault."""
    table = read_source(name)
    count = check_samples(table, source_named(name).num_classes, progress=sys.stderr.isatty())
    splits = ", ".join(f"{size:,} {split}" for split, size in table["split"].value_counts(sort=False).items())
    print(f"{name}: {count:,} samples are whole ({splits})")
    return 0

"""Outputs of trunks on disk, each computed once for all runs: a row a sample, in half precision.

A store is three files: NAME.rows, NAME.keys with 16 bytes a row that say which sample it is of, and NAME.json with what all
rows are of.  Rows are appended; what a kill or a full disk leaves of an unfinished one is cut off at the next opening.
"""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch.utils.data import Dataset
from tqdm.auto import tqdm

KEY, AT_ONCE = 16, 32


class KeptRows(Dataset):
    """Rows `places` of a store's file, read as they are needed."""

    def __init__(self, rows, places):
        self.rows, self.places = rows, places

    def __len__(self):
        return len(self.places)

    def __getitem__(self, number):
        return torch.from_numpy(np.array(self.rows[self.places[number]]))

    def all(self):
        """All of them in memory, (n, ..) float16."""
        return torch.from_numpy(self.rows[self.places.numpy()])


def keys_of(samples, *what):
    """16 bytes for each sample of a tensor (n, ..): a hash of its values and of `what` is made of them."""
    about = hashlib.blake2b(repr(what).encode()).digest()
    return [hashlib.blake2b(row.numpy().tobytes(), key=about, digest_size=KEY).digest() for row in samples.contiguous()]


def kept_rows(folder, name, about, keys, compute, progress=True):
    """`KeptRows` of the samples with these keys; compute(numbers) -> (len(numbers), ..) for those that the store lacks.

    about: what the rows are of, a dict; raises ValueError where the store has those of something else, or a row is not finite
    in half precision.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.{kind}" for kind in ("rows", "keys", "json")]
    with FileLock(folder / f"{name}.lock"):
        shape = _shape(paths[2], about)
        known = _known(*paths[:2], shape)
        missing = list({key: number for number, key in enumerate(keys) if key not in known}.values())
        _append(paths, about, shape, known, keys, missing, compute, progress)
        shape = _shape(paths[2], about)
    rows = np.memmap(paths[0], np.float16, "r", shape=(len(known), *shape))
    return KeptRows(rows, torch.tensor([known[key] for key in keys]))


def _shape(path, about):
    """Shape of a row, None where the store is new or not whole."""
    if not all(path.with_suffix(f".{kind}").is_file() for kind in ("rows", "keys", "json")):
        return None
    found = json.loads(path.read_text())
    if found["about"] != about:
        raise ValueError(f"{path}: got outputs of {found['about']}, expected {about}: remove the files {path.stem}.*")
    return tuple(found["shape"])


def _known(rows, keys, shape):
    """{key: place} of the whole rows; what is beyond them is cut off."""
    if shape is None:
        for path in (rows, keys):
            path.write_bytes(b"")
        return {}
    size = 2 * int(np.prod(shape))
    count = min(rows.stat().st_size // size, keys.stat().st_size // KEY)
    for path, each in ((rows, size), (keys, KEY)):
        if path.stat().st_size != count * each:
            os.truncate(path, count * each)
    found = keys.read_bytes()
    return {found[KEY * place:KEY * (place + 1)]: place for place in range(count)}


def _append(paths, about, shape, known, keys, missing, compute, progress):
    """Compute the missing samples and add them to the store and to `known`."""
    if not missing:
        return
    with tqdm(total=len(missing), desc="trunk outputs", unit="sample", disable=not progress, leave=False, delay=2) as bar:
        for first in range(0, len(missing), AT_ONCE):
            numbers = missing[first:first + AT_ONCE]
            values = compute(numbers).half().numpy()
            if not np.isfinite(values).all():
                raise ValueError(f"{paths[0]}: got outputs beyond half precision, expected numbers below 65,504")
            if shape is None:
                shape = values.shape[1:]
                part = paths[2].with_suffix(".part")
                part.write_text(json.dumps({"about": about, "shape": shape}) + "\n")
                part.replace(paths[2])
                bar.set_postfix_str(f"{len(missing) * values[0].nbytes / 2 ** 20:.0f} MiB -> {paths[0].parent}")
            if values.shape[1:] != shape:
                raise ValueError(f"{paths[0]}: got an output of shape {values.shape[1:]}, expected {shape} as of the others")
            for path, content in ((paths[0], values.tobytes()), (paths[1], b"".join(keys[number] for number in numbers))):
                with path.open("ab") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            for number in numbers:
                known[keys[number]] = len(known)
            bar.update(len(numbers))

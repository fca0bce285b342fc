"""Stored runs: one JSON file a run, written whole or not at all."""

import json
import os
import platform
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd


def write_atomically(path, text):
    """Write `text` to `path` through a temporary file beside it: a crash or a full disk leaves the old file as it was."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def environment():
    """Versions and platform that a result was computed with."""
    packages = ("fedmuscle-core", "torch", "torchvision", "transformers", "numpy", "scikit-learn", "torchmetrics", "peft")
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return {"python": platform.python_version(), "machine": platform.machine(), **found}


def now():
    """Current time, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def run_path(folder, settings):
    """`folder`/setup/method-key-seed.json."""
    return Path(folder) / settings.setup / f"{settings.method}-{settings.key()}-seed{settings.seed}.json"


def save_run(path, record, history):
    """Write one run: `record` (settings, versions, times, alignment) and its history, a row a line."""
    rows = ",\n  ".join(json.dumps(row) for row in history.itertuples(index=False, name=None))
    head = json.dumps(record, indent=1)[1:-2]
    text = f'{{{head},\n "columns": {json.dumps(list(history.columns))},\n "history": [\n  {rows}\n ]\n}}\n'
    json.loads(text)
    write_atomically(path, text)


def load_run(path):
    """(record, history) of a stored run; ValueError, naming the file, if it is not one."""
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
        history = pd.DataFrame(record.pop("history"), columns=record.pop("columns"))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not a stored run ({error}); delete it to have it computed again") from error
    return record, history

"""Stored runs: one file of JSON lines a setup, one line a run, exact to the bit after loading.

What belongs to a folder of committed runs is written beside it, and read in both places, see `paths.layers`.

Appending is one write at the end of a file, a diff is one added line a run, two branches merge by keeping the lines of both,
and nothing but the standard library is needed to read it.  Of several lines with the same run the last counts, so that a run
computed again is appended as well.

A line is the run's record, its name under "run" first, and its "history".  What would be long is written short:

- spans: ascending numbers as text, "0-15" or "1-4,6".
- history: rows that differ in client and round only share one entry of "series", {"metric", "split", "rounds": spans, "values":
  {client: values}}.  With "scale" the values are the shortest decimals of float32 numbers, to be multiplied by it (scores
  in percent are shares times 100); without, they are float64, little-endian, base 85.  Method and seed are those of the
  settings.  Rows go by round, client, then entry of "series"; if not, "order" tells for each row its place among those.
- "bytes" of the history, "up" and "down" of the ledger: blocks [clients, rounds, number], the first two as spans.
- alignment, masks: JSON, compressed by zlib, base 85.

- "crc": CRC-32 of the line without it, in the shortest form of JSON; a line without one is taken as it is.

In JSON nan is null and comes back as nan; infinities are the texts "inf", "-inf".

A run that diverged has no history but "failed", {"client", "round", "reason"}; its table is one row of split "diverged".
"""

import base64
import contextlib
import functools
import json
import math
import os
import pickle
import platform
import re
import secrets
import warnings
import zlib
from collections import defaultdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from filelock import FileLock

from ..federation import COLUMNS
from ..paths import layers, written_beside

NAME = r"[A-Za-z0-9._+-]+"
PLAIN = {"allow_nan": False, "separators": (",", ":")}
DIVERGED = "diverged"      # split of the one row that stands for a run that diverged
FIRST = re.compile(rf'\{{"run": ?"({NAME})",')
DAMAGE = (AttributeError, IndexError, KeyError, TypeError, ValueError, zlib.error)
_read = {}       # {path: ((size, time of change), lines)}


class Line(NamedTuple):
    """A line of a file of runs, not yet parsed."""

    path: Path
    number: int
    run: str
    text: str


def write_atomically(path, text):
    """Write `text` to `path` through a temporary file beside it: a crash or a full disk leaves the old file as it was."""
    replace_together({path: lambda temporary: temporary.write_text(text, encoding="utf-8", newline="")})


def replace_together(writers):
    """Replace files, {path: function that writes the file it is given}, once all are written: after a crash or with a full disk
    the old ones are as they were.  Who may read them is as for every new file."""
    written = {}
    try:
        for path, write in writers.items():
            path = Path(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            written[path] = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            with _naming(path):
                write(written[path])
                with written[path].open("rb") as file:
                    os.fsync(file.fileno())
        for path, temporary in written.items():
            temporary.replace(path)
    finally:
        for temporary in written.values():
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _naming(path):
    """Context in which an `OSError` that names no file, such as that of a full disk, names `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def check_writable(folder):
    """ValueError, before any work starts, where results cannot be written to `folder`."""
    folder = written_beside(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{secrets.token_hex(4)}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"{folder}: cannot be written to ({error.strerror}); expected a folder for results: the variable "
                         "FEDMUSCLE_RUNS chooses another one") from error


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


def append_run(folder, record, history=None):
    """Append one run to `folder`/<setup>.jsonl: `record`, with its name under "run" and its settings, and its history, None for
    one that diverged.

    Safe where several processes append, and where one is killed or the disk is full: what was there stays as it was.
    ValueError where the run would not come back from its line as it is.
    """
    line = (_to_line(record, history) + "\n").encode()
    path = written_beside(folder) / f"{record['settings']['setup']}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with _naming(path), _locked(path), path.open("ab", buffering=0) as file:
        lines = path.read_bytes()
        size = _whole(lines)
        if size < len(lines):
            warnings.warn(f"{path}: the last line was cut off and is left out; the run is computed again", stacklevel=2)
        try:
            file.truncate(size)
            _write(file, line if not size or lines[:size].endswith(b"\n") else b"\n" + line)
            os.fsync(file.fileno())
        except BaseException:
            file.truncate(size)
            raise


def find_lines(folder, setup, run):
    """The `Line`s of the run with that name: one for each of `paths.layers` that has it."""
    found = (_lines(place / f"{setup}.jsonl").get(run) for place in layers(folder))
    return [line for line in found if line is not None]


def stored_runs(folder):
    """(record, history) of every run in `folder`, setup by setup, in the order of their lines."""
    return [load(line) for path in _files(folder) for line in _lines(path).values()]


def _files(folder):
    return [path for place in layers(folder) for path in sorted(place.glob("*.jsonl"))]


def whole_runs(folder):
    """([(line, record, history)] of every run in `folder` that can be read, [what is wrong with the others])."""
    found, wrong = [], []
    for path in _files(folder):
        try:
            lines = _lines(path).values()
        except (ValueError, OSError) as error:
            wrong.append(str(error))
            continue
        for line in lines:
            try:
                found.append((line, *load(line)))
            except ValueError as error:
                wrong.append(str(error))
    return found, wrong


def compact(path):
    """Rewrite a file of runs without the lines that a later one of the same run replaces."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"path: got {path}, expected a file of runs")
    with _locked(path):
        write_atomically(path, "".join(f"{line.text}\n" for line in _lines(path).values()))


def _locked(path):
    """Context in which no other process appends to a file."""
    return FileLock(path.with_name(f".{path.name}.lock"))


def _write(file, content):
    """Write `content` in one piece; an unbuffered file takes less where the disk fills up, and fails at the next attempt."""
    rest = memoryview(content)
    while rest:
        rest = rest[file.write(rest):]


def _whole(content):
    """Bytes of `content` without a last line that a crash cut off: no beginning of a JSON object is JSON."""
    size = content.rfind(b"\n") + 1
    try:
        json.loads(content[size:])
    except ValueError:
        return size
    return len(content)


def _lines(path):
    """{run: its last `Line`} of a file, in the order of these lines; {} where there is no file."""
    path = path.absolute()
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    stamp = found.st_size, found.st_mtime_ns
    if path not in _read or _read[path][0] != stamp:
        content = path.read_bytes()
        _read[path] = stamp, _last_lines(path, content[:_whole(content)].decode(errors="backslashreplace").removesuffix("\n"))
    return _read[path][1]


def _last_lines(path, content):
    found = {}
    for number, text in enumerate(content.split("\n") if content else [], 1):
        if not (name := FIRST.match(text)):
            raise damaged(path, number, 'it does not begin with {"run":"<name>"')
        found.pop(name[1], None)
        found[name[1]] = Line(path, number, name[1], text)
    return found


def load(line):
    """(record, history) of a `Line`; ValueError naming file and line where it is damaged."""
    record, history = _parsed(line)
    return pickle.loads(record), history.copy()


@functools.lru_cache(maxsize=4096)
def _parsed(line):
    """(record, history) of a `Line`; the record pickled: what one caller does to it must not reach the next."""
    try:
        record, history = _from_line(line.text)
        if record["settings"]["setup"] != line.path.stem:
            raise ValueError(f"setup: got {record['settings']['setup']!r}, expected the file's, {line.path.stem!r}")
        if record["run"] != line.run:
            raise ValueError(f"run: got {record['run']!r}, expected {line.run!r} all over the line")
    except DAMAGE as error:
        raise damaged(line.path, line.number, f"{type(error).__name__}: {error}") from error
    return pickle.dumps(record), history


def damaged(path, number, reason):
    """The error to raise for a line that is no stored run, or not the one that it is taken for."""
    return ValueError(f"{path}, line {number}: not a stored run ({reason}); delete the line to have the run computed again")


def _to_line(record, history):
    """The text of a run, see the module; ValueError where it would not come back from it as it is."""
    plain = json.loads(json.dumps(record))
    if not re.fullmatch(NAME, plain.get("run", "")):
        raise ValueError(f"run: got {plain.get('run', '')!r}, expected a name of letters, digits and . _ + -")
    history = _of_failed(plain) if "failed" in plain else history
    if list(history.columns) != COLUMNS:
        raise ValueError(f"history: got columns {list(history.columns)}, expected {COLUMNS}")
    shortened = {name: shorten(plain[name]) for name, (shorten, _) in SHORT.items() if name in plain}
    short = {"run": plain["run"], **plain, **shortened}
    short |= {} if "failed" in plain else {"history": _short_history(history)}
    try:
        text = json.dumps(short | {"crc": _crc(short)}, **PLAIN)
    except ValueError as error:
        raise ValueError("record: got NaN or infinity, expected them in history and alignment only") from error
    back, table = _from_line(text)
    if changed := [name for name in plain if json.dumps(plain[name]) != json.dumps(back.get(name))]:
        raise ValueError(f"record: got {', '.join(changed)} that do not come back from a line as they are")
    if reason := _difference(table, history):
        raise ValueError(f"history: got a table that does not come back from a line as it is, expected one setup, method and "
                         f"seed, those of the settings, and numbers of the usual types: {reason}")
    return text


def _from_line(text):
    """(record, history) of the text of a run."""
    record = json.loads(text, parse_constant=_no_constant)
    whole = record.pop("crc", None) in (None, _crc(record))
    history = _of_failed(record) if "failed" in record else _long_history(record.pop("history"), record["settings"])
    if not whole:
        raise ValueError("crc: the line was changed after it was stored")
    return record | {name: lengthen(record[name]) for name, (_, lengthen) in SHORT.items() if name in record}, history


def _crc(short):
    return f"{zlib.crc32(json.dumps(short, **PLAIN).encode()):08x}"


def _no_constant(name):
    raise ValueError(f"got {name}, which is not JSON")


def _of_failed(record):
    """The table of a run that diverged: one row that says when, and that no function of `statistics` takes for a score."""
    failed, settings = record["failed"], record["settings"]
    row = (settings["method"], failed["client"] or 0, "", "", DIVERGED, failed["round"], settings["seed"], math.nan, 0)
    return pd.DataFrame([row], columns=COLUMNS)


def _difference(table, other):
    """In what two histories differ, "" where they are equal to the bit."""
    try:
        pd.testing.assert_frame_equal(table, other, check_exact=True)
    except AssertionError as error:
        return str(error)
    return "" if _same(table["value"].to_numpy(), other["value"].to_numpy()) else "signs of zeros"


def _same(values, others):
    """Whether float64 arrays are equal to the bit, one nan like another."""
    return (values.view(np.int64) == others.view(np.int64))[~(np.isnan(values) & np.isnan(others))].all()


def _short_history(history):
    tasks = dict(sorted(zip(history["client"].tolist(), history["task"], strict=True)))
    cells = zip(history["client"].tolist(), history["round"].tolist(), history["bytes"].tolist(), strict=True)
    short = {"tasks": {str(client): task for client, task in tasks.items()}, "series": _series(history),
             "bytes": _blocks({(client, round): number for client, round, number in cells})}
    keys, wanted = _keys(_long_history(short, {"method": "", "seed": 0})), _keys(history)
    if keys == wanted:
        return short
    places = {key: place for place, key in enumerate(keys)}
    return short | {"order": [places[key] for key in wanted]}


def _long_history(short, settings):
    entries = [(entry, client) for entry in short["series"] for client in entry["values"]]
    rounds = [_expanded(entry["rounds"]) for entry, _ in entries]
    sizes = [len(found) for found in rounds]
    values = [_long_floats(entry["values"][client], entry.get("scale")) for entry, client in entries]
    if [len(found) for found in values] != sizes:
        raise ValueError("history: got series with other numbers of values than rounds")
    clients, rounds = np.repeat([int(client) for _, client in entries], sizes), np.concatenate(rounds)
    order = np.lexsort((np.repeat(np.arange(len(entries)), sizes), clients, rounds))
    order = order[short["order"]] if "order" in short else order
    clients, rounds, values, sent = clients[order], rounds[order], np.concatenate(values)[order], _cells(short["bytes"])
    metrics, splits = (np.repeat([entry[name] for entry, _ in entries], sizes)[order] for name in ("metric", "split"))
    table = {"method": settings["method"], "client": clients, "task": [short["tasks"][str(client)] for client in clients],
             "metric": metrics, "split": splits, "round": rounds, "seed": settings["seed"], "value": values,
             "bytes": [sent[cell] for cell in zip(clients.tolist(), rounds.tolist(), strict=True)]}
    return pd.DataFrame(table, columns=COLUMNS)


def _keys(history):
    """What tells the rows of one run apart, in their order."""
    names = ["round", "client", "metric", "split"]
    return list(zip(*(history[name] for name in names), history.groupby(names).cumcount(), strict=True))


def _series(history):
    """The entries of "series", of each client in the order of its rows of a round."""
    kinds = [history["metric"], history["split"]]
    places = history.groupby(["round", "client"]).cumcount().groupby(kinds, sort=False).max().sort_values(kind="stable")
    rows = dict(list(history.groupby(["metric", "split"])))
    found = {}
    for metric, split in places.index:
        for client, own in rows[metric, split].groupby("client"):
            values, scale = _short_floats(own["value"].to_numpy(dtype=float))
            found.setdefault((metric, split, _spans(own["round"].tolist()), scale), {})[str(client)] = values
    return [{"metric": metric, "split": split, "rounds": rounds, **({"scale": scale} if scale else {}), "values": values}
            for (metric, split, rounds, scale), values in found.items()]


def _short_floats(values):
    """(numbers, scale) where values are float32 times a scale, else (text, None)."""
    for scale in (100, 1):
        with np.errstate(over="ignore"):
            numbers = [_short_float(float(str(value))) for value in (values / scale).astype(np.float32)]
        if _same(_long_floats(numbers, scale), values):
            return numbers, scale
    return base64.b85encode(values.astype("<f8").tobytes()).decode(), None


def _long_floats(short, scale):
    if scale is None:
        return np.frombuffer(base64.b85decode(short), dtype="<f8").astype(float)
    return np.array([_long_float(value) for value in short], dtype=np.float32).astype(float) * scale


def _short_float(value):
    if value != value:
        return None
    return str(value) if value in (math.inf, -math.inf) else value


def _long_float(short):
    if short is None:
        return math.nan
    return float(short) if short in ("inf", "-inf") else short


def _spans(numbers):
    parts = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(f"{first}-{last}" if first < last else f"{first}" for first, last in parts)


@functools.cache
def _expanded(spans):
    parts = [[int(end) for end in part.split("-")] for part in spans.split(",")]
    return [number for ends in parts for number in range(ends[0], ends[-1] + 1)]


def _blocks(cells):
    """[[clients, rounds, number], ...] of {(client, round): number}: what has one number all over is one block."""
    rounds, clients = defaultdict(list), defaultdict(list)
    for (client, round), number in sorted(cells.items()):
        rounds[client, number].append(round)
    for (client, number), found in rounds.items():
        clients[_spans(found), number].append(client)
    return [[_spans(found), spans, number] for (spans, number), found in clients.items()]


def _cells(blocks):
    return {(client, round): number for clients, rounds, number in blocks
            for client in _expanded(clients) for round in _expanded(rounds)}


def _short_ledger(ledger):
    """{direction: blocks}; the ledger itself where it is not in order."""
    cells = {direction: {} for *_, direction, _ in ledger}
    for round, client, direction, number in ledger:
        cells[direction][client, round] = number
    short = {direction: _blocks(found) for direction, found in cells.items()}
    return short if _long_ledger(short) == ledger else ledger


def _long_ledger(short):
    if isinstance(short, list):
        return short
    return sorted([round, client, direction, number] for direction, blocks in short.items()
                  for (client, round), number in _cells(blocks).items())


def _packed(value):
    return base64.b85encode(zlib.compress(json.dumps(value, allow_nan=False).encode(), 9)).decode() if value else value


def _unpacked(short):
    return json.loads(zlib.decompress(base64.b85decode(short))) if isinstance(short, str) else short


def _each(change, value):
    """Nested dicts and lists with every entry of a list that is none itself changed."""
    if isinstance(value, dict):
        return {name: _each(change, part) for name, part in value.items()}
    if isinstance(value, list):
        return [_each(change, part) if isinstance(part, list) else change(part) for part in value]
    return value


SHORT = {"ledger": (_short_ledger, _long_ledger), "masks": (_packed, _unpacked),
         "alignment": (lambda value: _packed(_each(_short_float, value)), lambda short: _each(_long_float, _unpacked(short)))}

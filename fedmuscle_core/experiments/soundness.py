"""Whether a stored run is what its settings say: rows, numbers and bytes, without computing it again."""

import math

from ..methods import METHODS
from ..world.tasks import task_named
from .forecast import bytes_exchanged
from .settings import Settings
from .setups import SETUPS

NEEDED = ("settings", "fingerprint", "versions", "started", "finished", "wall_seconds")
NEEDED_WITH_HISTORY = ("ledger", "alignment")
CELL = ["client", "metric", "split", "round"]
UNFORESEEN = 0.01      # share of the exchanged bytes that the closed form leaves out, such as what a bandit is told


def flaws(record, history, setup=None):
    """What is wrong with a stored run, a list of texts, empty where it is sound.

    setup: the `Setup`, where none of SETUPS has that name.
    """
    needed = NEEDED if "failed" in record else NEEDED + NEEDED_WITH_HISTORY
    if lost := [name for name in needed if name not in record]:
        return [f"got a record without {', '.join(lost)}"]
    values = record["settings"]
    if values["method"] not in METHODS or (setup or SETUPS.get(values["setup"])) is None:
        return []                                                             # of a method or setup that is gone
    try:
        settings = Settings.of(**values | {"setup": setup or values["setup"]}).canonical()
    except (TypeError, ValueError) as error:
        return [str(error)]
    found = []
    if settings.run() != record["run"]:
        found.append(f"run: got the name {record['run']}, expected {settings.run()} for its settings")
    return found if "failed" in record else found + flaws_of_rows(history, settings) + flaws_of_bytes(record, history, settings)


def flaws_of_rows(history, settings):
    """As `flaws`, of the rows: each client is scored every round, and on test samples at the end."""
    found, clients, last = [], range(1, len(settings.setup.clients) + 1), settings.rounds
    for name, value in (("method", settings.method.name), ("seed", settings.seed)):
        if (history[name] != value).any():
            found.append(f"{name}: got {sorted(set(history[name]))}, expected {value!r} as in the settings")
    if (twice := history.duplicated(CELL)).any():
        found.append(f"got two rows of {_cell(history[twice].iloc[0])}")
    tasks = {client: task_named(spec.task) for client, spec in enumerate(settings.setup.clients, 1)}
    wanted = {(client, tasks[client].metric, "validation", round) for client in clients for round in range(last + 1)}
    wanted |= {(client, tasks[client].metric, "test", last) for client in clients if settings.test_size}
    train = history[history["split"] == "train"]
    if type(settings.method).__module__.startswith(__package__.split(".")[0]):
        always = set(train["metric"]) - set(settings.method.sometimes)
        everyone = always | {"local_loss"} if settings.absence == 0 else {"local_loss"}
        wanted |= {(client, metric, "train", round)
                   for client in clients for metric in everyone for round in range(1, last + 1)}
    there = set(zip(*(history[name].tolist() for name in CELL), strict=True))
    if settings.bad_uploads == "raise" and (lost := sorted(wanted - there)):
        found.append(f"got no row of {_cell(dict(zip(CELL, lost[0], strict=True)))}, and {len(lost) - 1} others")
    measured = {cell for cell in there if cell[2] == "train" and cell[0] in tasks and 1 <= cell[3] <= last}
    if more := sorted(there - wanted - measured):
        found.append(f"got a row of {_cell(dict(zip(CELL, more[0], strict=True)))}, expected none")
    scored = history["split"] != "train"
    wrong = ~(history["value"].between(0, 100) | ~scored & history["value"].abs().lt(math.inf))
    if wrong.any():
        row = history[wrong].iloc[0]
        found.append(f"got {row['value']} as {_cell(row)}, expected {'0 to 100 percent' if scored[row.name] else 'a number'}")
    named = history["client"].map({client: task.name for client, task in tasks.items()})
    if (other := history["task"] != named).any():
        row = history[other].iloc[0]
        found.append(f"task: got {row['task']!r} of client {row['client']}, expected {named[row.name]!r}")
    return found


def flaws_of_bytes(record, history, settings):
    """As `flaws`, of the bytes: those of the rows are those of the ledger, and these what the method's closed form says."""
    sent, found = {}, []
    for round, client, _, size in record["ledger"]:
        sent[client, round] = sent.get((client, round), 0) + size
    counted = dict(zip(zip(history["client"].tolist(), history["round"].tolist(), strict=True), history["bytes"].tolist(),
                       strict=True))
    for cell in sorted(cell for cell in sent.keys() | counted.keys() if cell[1]):     # rows of round 0 come before its bytes
        if sent.get(cell, 0) != counted.get(cell):
            found.append(f"bytes: got {counted.get(cell)} of client {cell[0]}, round {cell[1]}, expected {sent.get(cell, 0)} "
                         "as the ledger has")
            break
    total, known = sum(sent.values()), bytes_exchanged(settings)
    if known is not None and settings.bad_uploads == "raise" and abs(total - known) > UNFORESEEN * known:
        found.append(f"bytes: got {total:,} in all, expected {known:,}")
    return found


def _cell(row):
    return f"client {row['client']}, {row['split']} {row['metric']}, round {row['round']}"

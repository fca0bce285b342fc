"""Settings in, stored result out: run one, or sweep many, resuming where an earlier sweep stopped."""

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Iterable
from functools import cache, lru_cache, partial

import pandas as pd
import torch
from tqdm.auto import tqdm

from ..checks import positive_int
from ..exchange import Diverged
from ..networks.backbones import backbone_digest, backbone_folder
from ..networks.checkpoints import CHECKPOINTS
from ..networks.client_network import num_parameters
from ..paths import BACKBONES, layers, written_beside
from ..world.tasks import task_named
from . import build as building
from .choices import is_tuned
from .code import code_digest
from .processes import in_processes, tell
from .resume import EVERY, State
from .settings import Settings
from .setups import SETUPS
from .soundness import flaws
from .statistics import failures
from .store import append_run, check_writable, damaged, environment, find_lines, load, now

RECOMPUTE_BEFORE = "FEDMUSCLE_RECOMPUTE_BEFORE"   # set by `fedmuscle reproduce --force`: runs finished earlier do not count


@contextlib.contextmanager
def one_thread():
    """Torch on one thread: sums come out bit for bit the same however many runs share the machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def run(settings, folder, progress=True, parked=None):
    """Run `settings`, store the result in `folder`, return (record, history); it counts instead of an earlier one.

    A run that diverges, by NaN or infinity in what a client sends or scores, is stored as such: `record["failed"]` says which
    client, when and how, and the history is one row of split "diverged".

    parked: see `build.build`.  The state is kept now and then, and a run that was killed goes on from it.  With real data it
    computes on an accelerator where there is one (FEDMUSCLE_DEVICE: another choice).
    """
    settings = building.check(settings).canonical()
    check_writable(folder)
    started, clock, device = now(), time.perf_counter(), device_for(settings)
    with one_thread() if device == "cpu" else contextlib.nullcontext():
        federation = building.build(settings, parked, device)
        identity = {"run": settings.run(), "fingerprint": fingerprint(settings.setup)} | on_real_data(settings, device)
        state = State(written_beside(folder) / f"{settings.setup.name}-{settings.run()}.state.pt", identity)
        state.forget_if_older(os.environ.get(RECOMPUTE_BEFORE, ""))
        parameters = {client.name: counted(client.network) for client in federation.clients} if "data" in identity else {}
        if parameters and progress:
            print("parameters that learn, of all:", *(f"client {name} {few:,} of {every:,}" for name, (few, every) in
                                                      parameters.items()), sep="\n  ")
        if parked is None:
            state.load(federation)
        try:
            tell((settings.run(), federation.round, None))
            keep = partial(_after_round, settings.run(), state if parked is None else None)
            history = federation.fit(settings.rounds, progress=progress, after_round=keep)
            failed = failed_score(history)
        except Diverged as error:
            failed = {"client": error.client, "round": error.round, "reason": str(error)}
    record = {"run": settings.run(), "settings": settings.flat(), "fingerprint": identity["fingerprint"],
              "versions": environment(), "code": code_digest(), "started": started, "finished": now(),
              "wall_seconds": round(time.perf_counter() - clock + state.seconds, 1)}
    if failed:
        record, history = record | {"failed": failed}, None
    else:
        record |= {"ledger": federation.ledger.table().values.tolist(), "alignment": federation.alignment,
                   "masks": building.predicted_masks(federation)}
    if parameters:
        record |= {"device": identity["device"], "data": identity["data"], "parameters": parameters}
    append_run(folder, record, history)
    state.path.unlink(missing_ok=True)
    return find(settings, folder)


def _after_round(run, state, federation):
    """Keep the state of a run, where there is one to keep, and tell how far it is."""
    if state is not None:
        state.save(federation)
    tell((run, federation.round, federation.mean_score))


def failed_score(history):
    """{"client", "round", "reason"} of the first score that is NaN; None where all are numbers."""
    lost = history[history["value"].isna() & (history["split"] != "train")]
    if lost.empty:
        return None
    row = lost.iloc[0]
    client, when = (int(row[name]) for name in ("client", "round"))
    return {"client": client, "round": when, "reason": f"client {client}: round {when}: {row['split']} {row['metric']} is NaN"}


def find(settings, folder):
    """(record, history) of a run in `folder`, None where there is none; ValueError naming file and line where it is damaged.

    Of a user's own and a committed one the later counts, if it is of the clients and backbones that are here now.
    """
    lines = find_lines(folder, settings.setup.name, settings.run())
    if not lines:
        return None
    line = lines[0] if len(lines) == 1 else max(lines, key=lambda line: _preferred(load(line)[0], settings))
    _check_sound(line, settings)
    return load(line)


def _preferred(record, settings):
    return _fits(record, settings), record["finished"]


def _fits(record, settings):
    """Whether a stored run is of these settings, and of the clients, backbones and data that are here now."""
    values = settings.flat()
    if any(values.get(name) != value for name, value in record["settings"].items()):
        return False
    if "data" in record and can_run(settings) and record["data"] != data_used(settings):
        return False
    return record["fingerprint"] == fingerprint(settings.setup)


@lru_cache(maxsize=4096)
def _check_sound(line, settings):
    (record, history), now_here = load(line), fingerprint(settings.setup)
    if record.get("fingerprint", now_here) == now_here and (wrong := flaws(record, history, settings.setup)):
        raise damaged(line.path, line.number, wrong[0])


def device_for(settings):
    """Where a run computes."""
    if building.world_for(settings).wants_accelerator:
        return os.environ.get("FEDMUSCLE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    return "cpu"


def on_real_data(settings, device):
    """{"device", "data"} of a run on real data: what it depends on beside its settings; {} for scenes."""
    data = data_used(settings)
    return {"device": device_name(device), "data": data} if data else {}


def data_used(settings):
    """Hashes of the samples and backbones of a run on real data, None for scenes."""
    used = building.world_for(settings).used()
    if used is None:
        return None
    backbones = sorted({spec.backbone for spec in settings.setup.clients})
    return used | {"backbones": {name: backbone_digest(name) for name in backbones}}


def device_name(device):
    """The accelerator's name, or "cpu"."""
    return torch.cuda.get_device_name(device) if str(device).startswith("cuda") else str(device)


def counted(network):
    """(parameters that learn, all)."""
    return [num_parameters(network), sum(parameter.numel() for parameter in network.parameters())]


def can_run(settings):
    """Whether the data and backbones of a run are at hand; backbones of `CHECKPOINTS` may still be downloaded."""
    here = all(backbone_folder(spec.backbone) or spec.backbone in CHECKPOINTS for spec in settings.setup.clients)
    return bool(here) and building.world_for(settings).is_here()


def is_stored(settings, folder):
    """Whether the run is in `folder`, of the clients and backbones that are here now, and recent enough to count."""
    settings = settings.canonical()
    found = find(settings, folder)
    return found is not None and _fits(found[0], settings) and found[0]["finished"] >= os.environ.get(RECOMPUTE_BEFORE, "")


@cache
def fingerprint(setup):
    """Short hash of what a setup's name stands for: its clients, the rates of their tasks, the weights and tokenizers of those
    of their backbones that come with this package (for others see `data_used`)."""
    digest = hashlib.sha256(repr(setup.clients).encode())
    scaled = sorted({(task.name, task.lr_scale) for spec in setup.clients if (task := task_named(spec.task)).lr_scale != 1})
    digest.update(repr(scaled).encode() if scaled else b"")
    digest.update(b"one start" if setup.one_start else b"")
    for name in sorted({spec.backbone for spec in setup.clients}):
        for path in sorted((BACKBONES / name).glob("*.safetensors")) + sorted((BACKBONES / name).glob("tokenizer.json")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


def missing_runs(settings_list, folder):
    """The distinct runs among `settings_list` that a sweep of `folder` would compute."""
    distinct = dict.fromkeys(settings.canonical() for settings in settings_list)
    return [settings for settings in distinct if not is_stored(settings, folder)]


def sweep(settings_list, folder, workers=1, progress=True):
    """Compute what is not yet stored in `folder`, then return (records, history) of all, history as one tidy table.

    workers: processes, one run and one thread each.  A run that fails does not stop the others; what they computed is
    stored, and the first error is raised at the end.  One that diverges is stored as such, not computed again, and said at the
    end.  Interrupted, it resumes: every finished run is already on disk.
    With more than one worker a script must call this under `if __name__ == "__main__":`, as each worker imports the script.
    """
    positive_int("workers", workers)
    given = list(settings_list) if isinstance(settings_list, Iterable) else []
    if not given or not all(isinstance(settings, Settings) for settings in given):
        raise ValueError(f"settings_list: got {settings_list!r:.80}, expected a list of `Settings`, at least one")
    check_names(given)
    check_modules(given, workers)
    wanted = list(dict.fromkeys(building.check(settings).canonical() for settings in given))
    missing = missing_runs(wanted, folder)
    if missing:
        check_writable(folder)
        _compute(missing, folder, min(workers, len(missing)), progress)
    records, history = _load(wanted, folder)
    if failed := failures(history):
        print(f"{sum('failed' in record for record in records)} of {len(records)} runs diverged: "
              f"{', '.join(f'{method} {text}' for method, text in failed.items())}")
    return records, history


def check_names(settings_list):
    """ValueError where two setups of one name would share stored runs."""
    known = dict(SETUPS)
    for settings in settings_list:
        if known.setdefault(settings.setup.name, settings.setup) != settings.setup:
            raise ValueError(f"setup: got another setup named {settings.setup.name!r}, expected a name of its own: runs are "
                             "stored by it")


def check_modules(settings_list, workers):
    """ValueError where other processes cannot import a method, as it is defined in a notebook."""
    here = {type(settings.method).__name__ for settings in settings_list if type(settings.method).__module__ == "__main__"}
    if workers > 1 and here and not hasattr(sys.modules["__main__"], "__file__"):
        raise ValueError(f"workers: got {workers}, expected 1 with {', '.join(sorted(here))}, defined in a notebook: other "
                         "processes can only import what is in a file")


def sweep_groups(groups, folder, workers=1):
    """{key: (records, history)} of {key: list of `Settings`}, computed in one sweep."""
    sweep([settings for several in groups.values() for settings in several], folder, workers)
    return {key: stored(several, folder) for key, several in groups.items()}


def stored(settings_list, folder):
    """(records, history) as `sweep` gives them, of runs that are there already; ValueError naming those that are not."""
    wanted = list(dict.fromkeys(settings.canonical() for settings in settings_list))
    if absent := [settings.describe() for settings in wanted if not _is_there(settings, folder)]:
        raise ValueError(f"{' and '.join(map(str, layers(folder)))}: got no stored run of {', '.join(absent)}; profile 'mini' "
                         "computes them")
    return _load(wanted, folder)


def _is_there(settings, folder):
    found = find(settings, folder)
    return found is not None and found[0]["fingerprint"] == fingerprint(settings.setup)


def _load(wanted, folder):
    loaded = [find(settings, folder) for settings in wanted]
    history = pd.concat([history for _, history in loaded], ignore_index=True)
    history.attrs["untuned"] = sorted({settings.setup.name for settings in wanted if not is_tuned(settings.setup)})
    return [record for record, _ in loaded], history


def _compute(missing, folder, workers, progress):
    failed, stored, played, jobs = {}, 0, {}, [(settings, folder) for settings in missing]
    bar = tqdm(total=sum(settings.rounds for settings in missing), unit="round", disable=not progress,
               desc=f"{len(missing)} runs -> {written_beside(folder)}")

    def told(news):
        run, rounds, score = news
        bar.update(rounds - played.get(run, 0))
        played[run] = rounds
        if score is not None:
            bar.set_postfix_str(f"{stored} runs stored, mean score {score:.1f} %")

    with bar, contextlib.closing(in_processes(_attempt, jobs, workers, told)) as done:
        try:
            for (settings, _), error in done:
                stored += error is None
                told((settings.run(), settings.rounds, None))                 # also where it diverged or was stored meanwhile
                if error is not None:
                    failed[settings] = error
        except KeyboardInterrupt:
            print(f"stopped: {stored} of {len(missing)} runs are stored in {written_beside(folder)}, and of those under way a "
                  f"state that is at most {EVERY:g} s old: run this again, and it goes on")
            raise
    if failed:
        first, names = next(iter(failed.values())), dict.fromkeys(settings.describe() for settings in failed)
        raise RuntimeError(f"{len(failed)} of {len(missing)} runs failed ({', '.join(names)}); the others are stored; "
                           f"the first error: {first}") from first


def _attempt(settings, folder):
    try:
        if not is_stored(settings, folder):                                   # by another sweep, meanwhile
            run(settings, folder, progress=False)
    except Exception as error:   # reported by the caller once the other runs are stored
        return error
    return None

"""Settings in, stored result out: run one, or sweep many, resuming where an earlier sweep stopped."""

import contextlib
import dataclasses
import hashlib
import os
import time
from functools import cache

import pandas as pd
import torch
from tqdm.auto import tqdm

from .. import federation
from ..checks import positive_int
from ..methods import ALIGNING, METHODS
from ..networks.backbones import backbone_digest, backbone_folder
from ..networks.checkpoints import CHECKPOINTS
from ..networks.client_network import num_parameters
from ..paths import BACKBONES
from ..world.real.splits import data_are_here, digest, is_real, run_rows
from ..world.tasks import task_named
from .processes import in_processes
from .resume import State
from .settings import Settings
from .setups import SETUPS
from .store import environment, load_run, now, run_path, save_run

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
    """Run `settings`, store the result below `folder`, return (record, history); overwrites an earlier result.

    parked: see `federation.build`.  A run on real data keeps its state after each round and goes on from it, and computes on an
    accelerator where there is one (FEDMUSCLE_DEVICE: another choice); methods that exchange parameters begin anew.
    """
    settings = canonical(federation.check(settings))
    started, clock = now(), time.perf_counter()
    path, real = run_path(folder, settings), is_real(settings.setup)
    device = "cpu"
    if real:
        device = os.environ.get("FEDMUSCLE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    with one_thread() if device == "cpu" else contextlib.nullcontext():
        built = federation.build(settings, parked, device)
        data = data_used(settings) if real else None
        state = State(path.with_suffix(".state.pt"), {"device": device_name(device), "data": data,
                                                      "fingerprint": fingerprint(settings.setup)}
                      ) if real and settings.method in ALIGNING else None
        if state:
            state.forget_if_older(os.environ.get(RECOMPUTE_BEFORE, ""))
        parameters = {client.index: counted(client.model) for client in built.clients} if real else {}
        if real and progress:
            print("parameters that learn, of all:", *(f"client {index} {few:,} of {every:,}" for index, (few, every) in
                                                      parameters.items()), sep="\n  ")
        history, alignment = federation.train(built, progress, state)
    record = {"settings": dataclasses.asdict(settings), "fingerprint": fingerprint(settings.setup), "versions": environment(),
              "started": started, "finished": now(),
              "wall_seconds": round(time.perf_counter() - clock + (state.seconds if state else 0), 1),
              "ledger": built.ledger.table().values.tolist(), "alignment": alignment,
              "masks": federation.predicted_masks(built)}
    if real:
        record |= {"device": device_name(device), "data": data, "parameters": parameters}
    save_run(path, record, history)
    if state:
        state.path.unlink(missing_ok=True)
    return record, history


def counted(model):
    """(parameters that learn, all parameters) of a network."""
    return num_parameters(model), sum(parameter.numel() for parameter in model.parameters())


def device_name(device):
    """What computes, in words."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def data_used(settings):
    """What a run on real data depends on beside its settings, as text for JSON: {"sources": {name: hash of its samples},
    "clients": {client, "0" the public data: hash of its samples}, "backbones": {name: hash of its weights}}; the rows follow
    from the seed, see `real_data.run_rows`."""
    reads_public = "public_domain" in METHODS[settings.method].reads
    names = {index: task_named(spec.task).source for index, spec in enumerate(SETUPS[settings.setup], 1)}
    names |= {0: settings.public_domain} if reads_public else {}
    rows = run_rows(settings, public=reads_public)
    return {"sources": {name: digest(name) for name in sorted(set(names.values()))},
            "clients": {str(index): digest(names[index], rows[index]) for index in sorted(rows)},
            "backbones": {name: backbone_digest(name) for name in sorted({spec.backbone for spec in SETUPS[settings.setup]})}}


def can_run(settings):
    """Whether the data and backbones of a run are at hand; those of `CHECKPOINTS` count as such, the hub has them."""
    here = all(backbone_folder(spec.backbone) or spec.backbone in CHECKPOINTS for spec in SETUPS[settings.setup])
    return here and data_are_here(settings, "public_domain" in METHODS[settings.method].reads)


def same_data(record, settings):
    """Whether a stored run is of the data and backbones that are here; True where some are not here: it cannot be told."""
    return not can_run(settings) or record["data"] == data_used(settings)


def canonical(settings):
    """The settings with what the method does not read at its default: equal results share one stored run."""
    return settings.canonical(METHODS[settings.method].reads)


def is_stored(settings, folder):
    """Whether the run is in `folder`, of the clients and backbones that are here now, and recent enough to count."""
    path = run_path(folder, canonical(settings))
    if not path.is_file():
        return False
    record, _ = load_run(path)
    if Settings(**record["settings"]) != canonical(settings):
        return False
    if is_real(settings.setup) and not same_data(record, canonical(settings)):
        return False
    return record["fingerprint"] == fingerprint(settings.setup) and record["finished"] >= os.environ.get(RECOMPUTE_BEFORE, "")


@cache
def fingerprint(setup):
    """Short hash of what a setup's name stands for: its clients, the rates of their tasks, the weights and tokenizers of those
    of their backbones that lie in data/backbones (for others see `same_data`)."""
    digest = hashlib.sha256(repr(SETUPS[setup]).encode())
    scaled = sorted({(task.name, task.lr_scale) for spec in SETUPS[setup] if (task := task_named(spec.task)).lr_scale != 1})
    digest.update(repr(scaled).encode() if scaled else b"")
    for name in sorted({spec.backbone for spec in SETUPS[setup]}):
        for path in sorted((BACKBONES / name).glob("*.safetensors")) + sorted((BACKBONES / name).glob("tokenizer.json")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


def missing_runs(settings_list, folder):
    """The distinct runs among `settings_list` that a sweep of `folder` would compute."""
    return [settings for settings in dict.fromkeys(map(canonical, settings_list)) if not is_stored(settings, folder)]


def sweep(settings_list, folder, workers=1, progress=True):
    """Compute what is not yet stored in `folder`, then return (records, history) of all, history as one tidy table.

    workers: processes, one run and one thread each.  A run that fails does not stop the others; what they computed is
    stored, and the first error is raised at the end.  Interrupted, it resumes: every finished run is already on disk.
    With more than one worker a script must call this under `if __name__ == "__main__":`, as each worker imports the script.
    """
    positive_int("workers", workers)
    wanted = list(dict.fromkeys(canonical(federation.check(settings)) for settings in settings_list))
    missing = missing_runs(wanted, folder)
    if missing:
        _compute(missing, folder, min(workers, len(missing)), progress)
    return _load(wanted, folder)


def stored(settings_list, folder):
    """(records, history) as `sweep` gives them, of runs that are there already; ValueError naming those that are not."""
    wanted = list(dict.fromkeys(map(canonical, settings_list)))
    if absent := [f"{settings.setup} {settings.method} seed {settings.seed}" for settings in wanted
                  if not run_path(folder, settings).is_file()]:
        raise ValueError(f"{folder}: got no stored run of {', '.join(absent)}; profile 'mini' computes them")
    return _load(wanted, folder)


def _load(wanted, folder):
    loaded = [load_run(run_path(folder, settings)) for settings in wanted]
    return [record for record, _ in loaded], pd.concat([history for _, history in loaded], ignore_index=True)


def _compute(missing, folder, workers, progress):
    failed = {}
    with tqdm(total=len(missing), desc=f"runs -> {folder}", disable=not progress) as bar:
        for (settings, _), error in in_processes(_attempt, [(settings, folder) for settings in missing], workers):
            bar.update()
            if error is not None:
                failed[f"{settings.setup} {settings.method} seed {settings.seed}"] = error
    if failed:
        first = next(iter(failed.values()))
        raise RuntimeError(f"{len(failed)} of {len(missing)} runs failed ({', '.join(failed)}); the others are stored; "
                           f"the first error: {first}") from first


def _attempt(settings, folder):
    try:
        run(settings, folder, progress=False)
    except Exception as error:   # noqa: BLE001 - reported by the caller once the other runs are stored
        return error
    return None

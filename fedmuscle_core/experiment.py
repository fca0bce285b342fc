"""Settings in, stored result out: run one, or sweep many, resuming where an earlier sweep stopped."""

import contextlib
import dataclasses
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

import pandas as pd
import torch
from tqdm.auto import tqdm

from . import federation
from .checks import positive_int
from .methods import METHODS
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


def run(settings, folder, progress=True):
    """Run `settings`, store the result below `folder`, return (record, history); overwrites an earlier result."""
    settings = canonical(federation.check(settings))
    started, clock = now(), time.perf_counter()
    with one_thread():
        history, alignment = federation.train(federation.build(settings), progress)
    record = {"settings": dataclasses.asdict(settings), "versions": environment(), "started": started, "finished": now(),
              "wall_seconds": round(time.perf_counter() - clock, 1), "alignment": alignment}
    save_run(run_path(folder, settings), record, history)
    return record, history


def canonical(settings):
    """The settings with what the method does not read at its default: equal results share one stored run."""
    return settings.canonical(METHODS[settings.method].reads)


def is_stored(settings, folder):
    """Whether the run is in `folder` and recent enough to count."""
    path = run_path(folder, canonical(settings))
    if not path.is_file():
        return False
    return load_run(path)[0]["finished"] >= os.environ.get(RECOMPUTE_BEFORE, "")


def sweep(settings_list, folder, workers=1, progress=True):
    """Compute what is not yet stored in `folder`, then return (records, history) of all, history as one tidy table.

    workers: processes, one run and one thread each.  A run that fails does not stop the others; what they computed is
    stored, and the first error is raised at the end.  Interrupted, it resumes: every finished run is already on disk.
    """
    positive_int("workers", workers)
    wanted = list(dict.fromkeys(canonical(federation.check(settings)) for settings in settings_list))
    missing = [settings for settings in wanted if not is_stored(settings, folder)]
    if missing:
        _compute(missing, folder, min(workers, len(missing)), progress)
    loaded = [load_run(run_path(folder, settings)) for settings in wanted]
    return [record for record, _ in loaded], pd.concat([history for _, history in loaded], ignore_index=True)


def _compute(missing, folder, workers, progress):
    errors = []
    bar = tqdm(total=len(missing), desc=f"runs -> {folder}", disable=None if progress else True)
    with bar, contextlib.ExitStack() as stack:
        if workers == 1:
            finished = map(lambda settings: _attempt(settings, folder), missing)
        else:
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn")))
            finished = (future.result() for future in as_completed([pool.submit(_attempt, s, folder) for s in missing]))
        for error in finished:
            bar.update()
            errors += [error] if error is not None else []
    if errors:
        raise RuntimeError(f"{len(errors)} of {len(missing)} runs failed; the others are stored") from errors[0]


def _attempt(settings, folder):
    try:
        run(settings, folder, progress=False)
    except Exception as error:   # noqa: BLE001 - reported by the caller once the other runs are stored
        return error
    return None

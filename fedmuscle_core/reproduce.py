"""`fedmuscle reproduce`: the notebooks of one profile, each executed from its .py source into `data/runs/<profile>`."""

import os
import time

import jupytext
import nbformat
import papermill
import yaml
from papermill.exceptions import PapermillExecutionError
from tqdm.auto import tqdm

from .checks import positive_int
from .experiment import RECOMPUTE_BEFORE
from .paths import NOTEBOOKS, figures, results, runs
from .profiles import check_profile
from .store import now


def reproduce(profile, only=None, parameters=None, workers=1, force=False):
    """Run the notebooks through papermill; a failed one does not stop the others.  Returns 0 if none failed, else 1.

    only: prefixes of notebook names, e.g. ["02"].  parameters: {name: YAML text}.  Raises ValueError before any work when
    no notebook matches, or when a notebook that was named does not have a parameter that was given.
    """
    positive_int("workers", workers)
    check_profile(profile)
    folder = runs(profile)
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(source, *_prepare(source, folder, parameters or {}, profile, workers)) for source in _choose(only)]
    unused = set(parameters or {}) - {name for _, _, values in jobs for name in values}
    if unused:
        raise ValueError(f"-p: got unknown {sorted(unused)}; {_known(jobs)}")
    if force:
        os.environ[RECOMPUTE_BEFORE] = now()

    report = []
    for source, notebook, values in (bar := tqdm(jobs, desc=profile, unit="notebook")):
        bar.set_postfix_str(source.stem)
        report.append((source.stem, *_execute(notebook, folder / f"{source.stem}.ipynb", values)))
    return _summarise(report, profile)


def _choose(only):
    sources = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py"))
    chosen = [source for source in sources if not only or any(source.stem.startswith(prefix) for prefix in only)]
    if not chosen:
        raise ValueError(f"--only: got {only}, expected the start of one of {[source.stem for source in sources]}")
    return chosen


def _prepare(source, folder, given, profile, workers):
    """(path of an unexecuted notebook, its parameter values) for one .py source."""
    notebook = folder / f".{source.stem}.source.ipynb"
    nbformat.write(jupytext.read(source), notebook)
    known = papermill.inspect_notebook(str(notebook))
    values = {"profile": profile, "workers": workers} | {name: yaml.safe_load(text) for name, text in given.items()}
    return notebook, {name: value for name, value in values.items() if name in known}


def _known(jobs):
    names = sorted({name for _, notebook, _ in jobs for name in papermill.inspect_notebook(str(notebook))})
    return f"the chosen notebooks know {names}"


def _execute(notebook, target, values):
    """(seconds, None or the first line of what went wrong); the executed copy is at `target` either way."""
    clock = time.perf_counter()
    try:
        papermill.execute_notebook(str(notebook), str(target), parameters=values, progress_bar=False, cwd=str(NOTEBOOKS),
                                   kernel_name="python3")
        trouble = None
    except PapermillExecutionError as error:
        trouble = f"cell {error.exec_count}: {error.ename}: {error.evalue}".splitlines()[0]
    except Exception as error:  # noqa: BLE001 - one notebook's kernel must not take the others down
        trouble = f"{type(error).__name__}: {error}".splitlines()[0]
    notebook.unlink(missing_ok=True)
    return time.perf_counter() - clock, trouble


def _summarise(report, profile):
    width = max(len(name) for name, *_ in report)
    print()
    for name, seconds, trouble in report:
        print(f"{name:{width}}  {seconds:7.1f} s  {'FAILED  ' + trouble if trouble else 'done'}")
    failed = sum(trouble is not None for *_, trouble in report)
    print(f"{len(report) - failed} of {len(report)} notebooks done.  Executed copies: {runs(profile)}")
    print(f"Stored runs: {results(profile)}   Figures: {figures(profile)}")
    return 1 if failed else 0

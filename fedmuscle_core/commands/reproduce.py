"""`fedmuscle reproduce`: the notebooks of one profile, each executed from its .py source into `data/runs/<profile>`."""

import contextlib
import json
import os
import sys
import tempfile
from datetime import datetime
from pathlib import Path

import jupytext
import nbformat
import papermill
import yaml
from tqdm.auto import tqdm

from ..checks import positive_int
from ..experiments import shadows, to_keep, tuning
from ..experiments.choices import path_to_write, tuned_for, tuned_setups
from ..experiments.forecast import as_text, estimate
from ..experiments.forecast import report as forecast
from ..experiments.plans import NOTEBOOKS_OF, PLANS
from ..experiments.processes import affordable, in_processes
from ..experiments.profiles import check_profile
from ..experiments.runs import RECOMPUTE_BEFORE, can_run, missing_runs, sweep
from ..experiments.store import check_writable, compact, now, stored_runs, write_atomically
from ..paths import COMMITTED, NOTEBOOKS, results, runs, written_beside
from .kernels import execute

QUICKSTART = "00_quickstart"    # the notebook that is trained to the end in profile "quick", too


def dry_run(profile, only=None, parameters=None, force=False):
    """Print what `reproduce` would compute, without doing it: for profile "paper" also what it would download, load, train and
    exchange, see `forecast`; for the others how long it would take, with `force` all of it anew.  Returns 0."""
    check_profile(profile)
    given, sources = _given(parameters), _choose(only, profile)
    with tempfile.TemporaryDirectory() as folder:
        _prepare(sources, Path(folder), {}, given)
    numbers = [source.stem[:2] for source in sources]
    if missing := [number for number in numbers if number not in PLANS]:
        print(f"notebooks {', '.join(missing)} compute no runs that are planned")
    if "19" in numbers and profile == "mini" and (said := shadows.forecast()):
        print(said)
    wanted = _planned(profile, numbers, given.get("seeds"))
    missing = missing_runs(wanted, results(profile))
    print(f"notebooks {', '.join(numbers)}: {len(set(wanted))} runs, {len(missing)} of them not in {results(profile)}")
    if profile == "paper" and missing:
        print(forecast(missing))
    elif force:
        print(from_nothing(profile, wanted))
    elif missing:
        print(f"about {as_text(estimate(missing, results('mini')))} with one worker, by the times of stored runs")
        print(to_keep.to_be_kept(missing), end="")
    return 0


def from_nothing(profile, wanted, workers=1):
    """One line: how long all of `wanted` takes, of COMMITTED profiles with their tuning, by the times of stored runs."""
    runs, tuned, count = set(wanted), 0.0, 0
    if profile in COMMITTED:
        names = {setup.name for settings in runs for setup in tuned_setups(settings.setup)}
        seconds = [record["wall_seconds"] for record, _ in stored_runs(tuning.FOLDER) if record["settings"]["setup"] in names]
        tuned, count = sum(seconds) / workers, len(seconds)
    return (f"from nothing: {count} runs of the tuning, about {as_text(tuned)}, then {len(runs)} runs, about "
            f"{as_text(estimate(runs, results('mini'), workers))}, with {workers} worker(s)")


def reproduce(profile, only=None, parameters=None, workers=1, force=False):
    """Run the notebooks through papermill, `workers` at a time; a failed one does not stop the others.  Returns 0 if none
    failed, else 1.

    only: prefixes of notebook names, e.g. ["02"].  parameters: {name: YAML text}, given to the notebooks that know them.
    workers: at most one for each core and for each `processes.MEMORY` GB of this machine, see `processes.affordable`.
    Runs that `plans` knows of are computed first, all notebooks' together, with a bar that shows the time left.
    force: compute again what was stored before now, for profiles "mini" and "foundation" the tuning, too.  Interrupted, the
    same command goes on: the time it began is kept in the runs folder until all went well; then the files of runs that it wrote
    lose the lines that are superseded.
    Raises ValueError before anything runs where there are no notebooks or one of `only` matches none, a parameter is unknown to
    all of them, is not YAML, or is `profile` or `workers`, which have options of their own, or a folder cannot be written.
    """
    workers = affordable(positive_int("workers", workers))
    check_profile(profile)
    given, sources, figures = _given(parameters), _choose(only, profile), runs(profile) / "figures"
    side_by_side = min(workers, len(sources))
    values = {"profile": profile, "workers": 1 if side_by_side > 1 else workers, **given}
    with tempfile.TemporaryDirectory() as folder:
        jobs = _prepare(sources, Path(folder), values, given)
        check_writable(runs(profile))
        changed = {"FEDMUSCLE_FIGURES": str(figures)}
        if side_by_side > 1:                                                  # each kernel would take all cores otherwise
            changed["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", "1")
        since = runs(profile) / "recomputing.json"
        if force:
            begun = _begun(since, {"notebooks": [source.stem for source in sources], "given": given})
            changed[RECOMPUTE_BEFORE] = begun
        with _environment(**changed):
            compute(profile, [source.stem[:2] for source in sources], given.get("seeds"), workers, force)
            report = _execute_all(profile, jobs, side_by_side)
    status = _summarise(report, profile, figures)
    if force and status == 0:
        _compact_written(begun, map(written_beside, [results(profile), *([tuning.FOLDER] if profile in COMMITTED else [])]))
        since.unlink(missing_ok=True)
    return status


def _begun(path, asked):
    """When the `force` that `path` tells of began, if it asked for the same and was not finished; else now, noted there."""
    try:
        kept = json.loads(path.read_text()) if path.is_file() else {"asked": None}
        if kept["asked"] == asked:
            datetime.fromisoformat(kept["begun"])
            print(f"going on with what was begun {kept['begun']} (to begin anew, delete {path})")
            return kept["begun"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: got a damaged file, expected when --force began; delete it to begin anew") from error
    begun = now()
    write_atomically(path, json.dumps({"begun": begun, "asked": asked}) + "\n")
    return begun


def _compact_written(begun, folders):
    """Drop superseded lines of the files of runs in `folders` that were written since `begun` (ISO 8601)."""
    for path in (path for folder in folders for path in sorted(folder.glob("*.jsonl"))):
        if path.stat().st_mtime >= datetime.fromisoformat(begun).timestamp():
            compact(path)


def compute(profile, numbers, seeds=None, workers=1, force=False):
    """Compute what is missing of the runs of the notebooks `numbers`, e.g. ["04", "05"], in one resumable sweep.

    With `force` and profiles "mini" and "foundation" the hyperparameters of all methods are tuned again first, for each setup
    and public domain that was tuned for.
    """
    wanted = _planned(profile, numbers, seeds)
    if not wanted:
        return
    if force and profile != "paper":
        print(from_nothing(profile, wanted, workers))
    if force and profile in COMMITTED:
        for setup in sorted({setup for settings in wanted for setup in tuned_setups(settings.setup)},
                            key=lambda setup: (bool(setup.tuned_as), setup.name)):
            for domain, methods in tuned_for(setup):
                print(f"tuning {setup.name} with {domain} -> {path_to_write()}")
                tuning.tune(setup, methods, domain, workers)
        wanted = _planned(profile, numbers, seeds)                            # with what was chosen now
    missing = missing_runs(wanted, results(profile))
    if missing and profile == "paper":
        print(forecast(missing))
    elif missing:
        print(f"{len(missing)} runs to compute: about {as_text(estimate(missing, results('mini'), workers))} "
              f"with {workers} worker(s), by the times of stored runs")
    if missing and (said := to_keep.to_be_kept(missing)):
        print(said)
    try:
        sweep(wanted, results(profile), workers, progress=sys.stderr.isatty())
    except RuntimeError as error:
        print(f"{error}; the notebooks that need them will say so")


def _planned(profile, numbers, seeds):
    """The runs of the notebooks `numbers` whose data and backbones are here; says how many others there are.  "paper": all,
    as missing data must be said where they are read."""
    wanted = [settings for number in numbers if number in PLANS for settings in PLANS[number](profile, seeds)]
    others = {settings for settings in wanted if profile != "paper" and not can_run(settings)}
    if others:
        print(f"{len(others)} runs need real data or backbones that are not here; notebooks show what is stored of them")
    return [settings for settings in wanted if settings not in others]


def _given(parameters):
    """{name: value} of {name: YAML text}, or of None."""
    return {name: _value(name, text) for name, text in (parameters or {}).items()}


def _value(name, text):
    if name in ("profile", "workers"):
        raise ValueError(f"-p: got {name!r}, which is set by --{name}")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"-p {name}: got {text!r}, expected YAML ({str(error).splitlines()[0]})") from error


def _choose(only, profile):
    """The sources of the notebooks that `only` names, all if it is None, of those that the profile is for."""
    if not NOTEBOOKS.is_dir():
        raise ValueError(f"notebooks: got no folder {NOTEBOOKS}, expected a clone of the repository")
    sources = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.py"))
    names = [source.stem for source in sources]
    if wrong := [prefix for prefix in only or () if not prefix or not any(name.startswith(prefix) for name in names)]:
        raise ValueError(f"--only: got {wrong}, expected the start of one of {names}")
    chosen = [source for source in sources if not only or source.stem.startswith(tuple(only))]
    if profile in NOTEBOOKS_OF:
        without = [source.stem for source in chosen if source.stem[:2] not in NOTEBOOKS_OF[profile]]
        if only and without:
            raise ValueError(f"--only: got {without} with profile {profile!r}, expected some of {NOTEBOOKS_OF[profile]}: the "
                             "others have no runs of it")
        chosen = [source for source in chosen if source.stem not in without]
    return chosen


def _prepare(sources, folder, values, given):
    """[(path in `folder` of an unexecuted notebook, those of `values` and `given` that it knows)], one for each .py source;
    ValueError where none knows one of `given`."""
    jobs, known = [], set()
    for source in sources:
        notebook = folder / f"{source.stem}.ipynb"
        nbformat.write(jupytext.read(source), notebook)
        names = set(papermill.inspect_notebook(str(notebook)))
        jobs.append((notebook, {name: value for name, value in {**values, **given}.items() if name in names}))
        known |= names
    if unknown := set(given) - known:
        raise ValueError(f"-p: got unknown {sorted(unknown)}; the chosen notebooks know {sorted(known)}")
    return jobs


def _execute_all(profile, jobs, side_by_side):
    """[(name, seconds, None or what went wrong)] of all `jobs`, see `_prepare`, sorted by name."""
    wanted = [(notebook, notebook.with_suffix(".executed.ipynb"), NOTEBOOKS, values) for notebook, values in jobs]
    report, bar = [], tqdm(desc=profile, unit="notebook", total=len(jobs), disable=None)
    with bar, contextlib.closing(in_processes(execute, wanted, side_by_side)) as executed:
        for (notebook, copy, *_), found in executed:
            bar.set_postfix_str(f"{notebook.stem} done")
            bar.update()
            seconds, trouble = (0.0, str(found)) if isinstance(found, Exception) else found
            try:
                if copy.is_file() and not isinstance(found, Exception):
                    _keep(copy, runs(profile) / notebook.name, trouble)
            except OSError as error:
                trouble = trouble or f"{type(error).__name__}: {error}"
            report.append((notebook.stem, seconds, trouble))
    return sorted(report)


def _keep(copy, target, trouble):
    """Put an executed copy at `target`, whole or not at all; one of a notebook that failed beside it, as an earlier good one
    stays."""
    failed = target.with_suffix(".failed.ipynb")
    write_atomically(failed if trouble else target, copy.read_text(encoding="utf-8"))
    if not trouble:
        failed.unlink(missing_ok=True)


@contextlib.contextmanager
def _environment(**values):
    """Environment variables for the kernels, put back afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def lessons_of(path):
    """What an executed notebook says at its end that was learned, as text; "" where it says nothing."""
    said = [output["data"]["text/markdown"] for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"
            for output in cell.outputs if "text/markdown" in output.get("data", {})]
    return said[-1] if said else ""


def _summarise(report, profile, figures):
    width = max(len(name) for name, *_ in report)
    print()
    for name, seconds, trouble in report:
        print(f"{name:{width}}  {seconds:7.1f} s  {'FAILED  ' + trouble if trouble else 'done'}")
    failed = sum(trouble is not None for *_, trouble in report)
    print(f"{len(report) - failed} of {len(report)} notebooks done.  Executed copies: {runs(profile)}"
          + (" (of failed ones: *.failed.ipynb)" if failed else ""))
    print(f"Stored runs: {written_beside(results(profile))}   Figures: {figures}")
    if profile == "quick":
        done = {name for name, _, trouble in report if trouble is None}
        if QUICKSTART in done:
            print(f"\n{QUICKSTART} trained to the end:\n{lessons_of(runs(profile) / f'{QUICKSTART}.ipynb')}")
        if done - {QUICKSTART}:
            print("The other notebooks played a round or two: quick proves that they run, and nothing else.")
    return 1 if failed else 0

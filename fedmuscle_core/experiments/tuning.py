"""Tuning with the same budget for every method, on validation samples and seeds of its own:
`python -m fedmuscle_core.experiments.tuning`.

Four configurations a method, of its `grid`.  Local: four local learning rates; all methods then share the best, unless their
own grid has the rate.  Every other method: three values of its first hyperparameter, then a further value of its second at the
best of the first (a method with one: four values of it).  A setup that builds on another (Setup 2 on Setup 1): three
configurations a method, what was chosen there and two neighbours of one hyperparameter, its `around`.  Chosen is the best Delta
on validation samples, against Local at its default.  One that diverges has the Delta -inf: it is in the table, never chosen.
"""

import argparse
import math
import sys

import pandas as pd

from ..checks import positive_int
from ..methods import METHODS, Local, method_named, of_group
from ..paths import results
from .choices import path_to_write, table_path, tuned
from .processes import affordable, stoppable
from .runs import sweep
from .settings import Settings
from .setups import setup_named
from .statistics import failures, relative_change
from .store import check_writable, write_atomically

FOLDER = results("mini") / "tuning"


def validation_delta(history, reference):
    """Mean over seeds and clients of the relative change of the last validation score, in percent; -inf where one diverged."""
    for text in failures(reference).values():
        raise ValueError(f"tuning: Local at its default {text}; expected a reference that came to an end")
    if failures(history):
        return -math.inf

    def last(table):
        rows = table[(table["split"] == "validation") & (table["round"] == table["round"].max())]
        return rows.reset_index(drop=True)
    both = pd.concat([last(reference).assign(method="reference"), last(history).assign(method="candidate")])
    changes = relative_change(both, baseline="reference")
    return changes[changes["method"] == "candidate"]["change"].mean()


def tuned_methods(setup):
    """Names of the methods that are tuned for a setup, Local left out."""
    tunes = setup_named(setup).tunes
    return tuple(name for name in (of_group(tunes) if isinstance(tunes, str) else tunes) if name != Local.name)


def tune(setup, methods=None, workers=1, progress=True):
    """Run the grids of a setup, write and return the table: method, the fields of the grids, seeds, delta in percent.

    methods: those of `tuned_methods` if None; the rows of others stay in the table.  Stage by stage, each one sweep: finished
    runs are kept.
    """
    setup = setup_named(setup)
    methods = tuned_methods(setup) if methods is None else methods
    check_writable(path_to_write(setup.name).parent)
    rows = (again if setup.builds_on else from_scratch)(setup, methods, workers, progress)
    order, before = [Local.name, *methods], table_path(setup)
    if before.is_file():
        kept = [row for row in pd.read_csv(before).to_dict("records") if row["method"] not in order]
        order = [name for name in METHODS if name in order or name in {row["method"] for row in kept}]
        rows += [{name: value for name, value in row.items() if name != "seeds" and value == value} for row in kept]
    table = pd.DataFrame(sorted(rows, key=lambda row: order.index(row["method"])))
    names = [name for name in table.columns if name != "delta"]
    table = table[names].assign(seeds=" ".join(map(str, setup.tuning_seeds)), delta=table["delta"].round(4))
    write_atomically(path_to_write(setup.name), table.to_csv(index=False, lineterminator="\n"))
    return table


def from_scratch(setup, methods, workers, progress):
    """Rows of three stages: local learning rates; first hyperparameters; second ones."""
    def scaled(values):
        return {name: round(value * setup.rate_scale[name], 8) if name in setup.rate_scale else value
                for name, value in values.items()}

    def scores(configurations):
        return score(setup, configurations, workers, progress)

    grids = {method: method_named(method).grid for method in (Local.name, *methods)}
    local = scores([(Local.name, scaled(values)) for values in grids[Local.name][0]])
    shared = {"local_lr": best(local, Local.name)["local_lr"]}
    first = scores([(method, {**shared, **scaled(values)}) for method in methods for values in grids[method][0] or [{}]])
    kept = {method: {name: best(first, method)[name] for values in grids[method][0][:1] for name in values}
            for method in methods}
    second = scores([(method, {**shared, **kept[method], **scaled(values)})
                     for method in methods for values in grids[method][1]])
    return local + first + second


def again(setup, methods, workers, progress):
    """Rows of two stages: Local around its choice in the setup this one builds on; then every other method."""
    def around(method, **shared):
        field, factors = method_named(method).around
        values = {**tuned(setup.builds_on, method), **shared}
        usual = Settings.of(method=method).flat()
        start = values.get("tau" if field == "tau_cross" else field, usual.get(field) or usual.get("tau"))
        return [(method, values), *((method, {**values, field: round(factor * start, 6)}) for factor in factors)]

    local = score(setup, around(Local.name), workers, progress)
    shared = {"local_lr": best(local, Local.name)["local_lr"]}
    return local + score(setup, [one for method in methods for one in around(method, **shared)], workers, progress)


def best(rows, method):
    """The row of `method` with the highest delta; ValueError where all diverged."""
    found = max((row for row in rows if row["method"] == method), key=lambda row: row["delta"])
    if found["delta"] == -math.inf:
        raise ValueError(f"tuning: {method!r} diverged with all settings that were tried, expected one that did not")
    return found


def score(setup, configurations, workers, progress=True):
    """One row {method, fields, delta} for each (method, values), computed in one sweep."""
    wanted = [tuning_settings(setup, Local.name, {}), *(tuning_settings(setup, *each) for each in configurations)]
    sweep([one for several in wanted for one in several], FOLDER, workers, progress)
    reference, *found = [sweep(several, FOLDER)[1] for several in wanted]
    return [{"method": method, **values, "delta": validation_delta(history, reference)}
            for (method, values), history in zip(configurations, found, strict=True)]


def tuning_settings(setup, method, values):
    """One `Settings` a tuning seed, without test samples."""
    setup = setup_named(setup)
    base = Settings.of(setup, method, **{"test_size": 0} | setup.settings | values)
    return [base.replace(seed=seed) for seed in setup.tuning_seeds]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", default="setup1")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="default: those that the setup names")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(argv)
    with stoppable("finished runs are kept, and the last state of the runs under way: the same command goes on"):
        try:
            print(tune(args.setup, args.methods, affordable(positive_int("workers", args.workers))).to_string(index=False))
        except ValueError as error:
            parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())

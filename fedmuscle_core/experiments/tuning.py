"""Tuning with the same budget for every method, on validation scenes and seeds of its own: `python -m fedmuscle_core.tuning`.

Four configurations a method.  Local: four local learning rates; all methods then share the best, unless their own grid has
the rate.  Every other method: three values of its first hyperparameter, then a further value of its second at the best of the
first (a method with one: four values of it).  A setup that builds on another (Setup 2 on Setup 1): three configurations a
method, what was chosen there and two neighbours of one hyperparameter.  Chosen is the best Delta on validation scenes, against
Local at its default.
"""

import argparse
import sys

import pandas as pd

from ..methods import ALIGNING, SHARING
from ..paths import DATA
from .runs import sweep
from .settings import Settings
from .setups import SETUP_SETTINGS
from .statistics import relative_change
from .store import write_atomically

SEEDS = {"setup1": (100, 101), "setup2": (100,), "mfed_dense": (100,), "mfed_labels": (100,),
         "photos1": (100,)}                           # never used for results
LOCAL_GRID = [{"local_lr": rate} for rate in (2.5e-4, 5e-4, 1e-3, 2e-3)]
RATES = [{"contrastive_lr": rate} for rate in (3e-4, 1e-3, 3e-3)]
TEMPERATURE = [{"tau": 0.5}]                          # beside the default, 0.2
GRIDS = {                                             # three values of the first hyperparameter, one more of the second
    "simclr": (RATES, TEMPERATURE),
    "cofed": ([{"vote_margin": margin} for margin in (0.1, 0.3, 0.6)], [{"vote_share": 0.6}]),
    "fedhenn": ([{"eta": eta} for eta in (0.1, 1.0, 10.0)], [{"eta": 0.3}]),
    "gramian": (RATES, TEMPERATURE),
    "pairwise": (RATES, TEMPERATURE),
    "fedmuscle": (RATES, [{"tau": 0.5, "tau_prev": 0.3}]),
    "fedavg": (LOCAL_GRID, []),
    "fedprox": (LOCAL_GRID[1:], [{"mu": 0.1}]),
    "encoder_only": (LOCAL_GRID, []),
    "matfl": (LOCAL_GRID[1:], [{"group_shift": 0.5}]),
    "mfed": (LOCAL_GRID[1:], [{"lam": 0.3}]),
    "centralised": (LOCAL_GRID, []),
}
RATE_SCALE = {"photos1": {"local_lr": 0.25, "contrastive_lr": 0.1}}    # of the rates above, of which all chose the lowest there
METHODS_OF = {**dict.fromkeys(("mfed_dense", "mfed_labels"), (*SHARING, "fedmuscle")),   # of other setups: ALIGNING
              "photos1": ("simclr", "pairwise", "fedmuscle")}
BUILDS_ON = {"setup2": "setup1"}
NEIGHBOURS = {                                        # factors of what was chosen; tau_cross: of tau
    "local": ("local_lr", (0.5, 2.0)), "simclr": ("tau", (0.5, 2.0)), "cofed": ("vote_margin", (0.5, 1.5)),
    "fedhenn": ("eta", (0.3, 3.0)), "gramian": ("tau", (0.5, 2.0)), "pairwise": ("tau_cross", (1.5, 2.5)),
    "fedmuscle": ("tau_cross", (1.5, 2.5)),
}
FOLDER = DATA / "results" / "tuning"


def table_path(setup):
    return FOLDER / f"{setup}.csv"


def tuned(setup, method, **fixed):
    """{field: value} of the best settings of `method` in the stored table; {} where the setup was not tuned.

    fixed: values of the run's settings.  Among the rows that have them, where the table tried them: e.g. tau=0.2.
    Raises ValueError for a method that was not tuned.
    """
    if not table_path(setup).is_file():
        return {}
    scores = pd.read_csv(table_path(setup))
    fields = [name for name in scores.columns if name in Settings.__dataclass_fields__ and name != "method"]
    rows = scores[scores["method"] == method]
    if rows.empty:
        raise ValueError(f"method: got {method!r}, expected one that was tuned: {sorted(scores['method'].unique())}")
    for name in sorted(set(fixed) & set(fields)):
        tried = rows[name].fillna(Settings.__dataclass_fields__[name].default) == fixed[name]
        rows = rows[tried] if tried.any() else rows
    return rows.loc[rows["delta"].idxmax(), fields].dropna().to_dict()


def tuning_table(setup):
    """The stored table of a setup for people: the chosen row of each method marked, empty where a method has no such field."""
    table = pd.read_csv(table_path(setup))
    best = table.groupby("method")["delta"].transform("max")
    table["chosen"] = (table["delta"] == best).map({True: "x", False: ""})
    return table.astype(object).fillna("")


def choices_at_an_edge(setup):
    """[(method, field, value)] of the choices that lie at an end of the three or more values tried of a hyperparameter."""
    table, found = pd.read_csv(table_path(setup)), []
    for method, rows in table.groupby("method", sort=False):
        for field, value in tuned(setup, method).items():
            tried = rows[field].dropna().unique()
            if len(tried) >= 3 and value in (tried.min(), tried.max()):
                found.append((method, field, value))
    return found


def validation_delta(history, reference):
    """Mean over seeds and clients of the relative change of the last validation score, in percent."""
    def last(table):
        rows = table[(table["split"] == "validation") & (table["round"] == table["round"].max())]
        return rows.reset_index(drop=True)
    both = pd.concat([last(reference).assign(method="reference"), last(history).assign(method="candidate")])
    changes = relative_change(both, baseline="reference")
    return changes[changes["method"] == "candidate"]["change"].mean()


def tuned_methods(setup):
    """Names of the methods that are tuned for `setup`, Local left out."""
    return METHODS_OF.get(setup, tuple(name for name in ALIGNING if name != "local"))


def tune(setup, methods=None, workers=1):
    """Run the grids of `setup`, write and return the table: method, the fields of the grids, seeds, delta in percent.

    methods: those of `tuned_methods` if None.  Stage by stage, each one sweep: finished runs are kept.
    """
    methods = tuned_methods(setup) if methods is None else methods
    rows = again(setup, methods, workers) if setup in BUILDS_ON else from_scratch(setup, methods, workers)
    order = ["local", *methods]
    table = pd.DataFrame(sorted(rows, key=lambda row: order.index(row["method"])))
    names = [name for name in table.columns if name != "delta"]
    table = table[names].assign(seeds=" ".join(map(str, SEEDS[setup])), delta=table["delta"].round(4))
    write_atomically(table_path(setup), table.to_csv(index=False, lineterminator="\n"))
    return table


def from_scratch(setup, methods, workers):
    """Rows of three stages: local learning rates; first hyperparameters; second ones."""
    def scaled(values):
        scale = RATE_SCALE.get(setup, {})
        return {name: round(value * scale[name], 8) if name in scale else value for name, value in values.items()}

    local = score(setup, [("local", scaled(values)) for values in LOCAL_GRID], workers)
    shared = {"local_lr": best(local, "local")["local_lr"]}
    first = score(setup, [(method, {**shared, **scaled(values)}) for method in methods for values in GRIDS[method][0]], workers)
    kept = {method: {name: best(first, method)[name] for name in GRIDS[method][0][0]} for method in methods}
    second = score(setup, [(method, {**shared, **kept[method], **scaled(values)}) for method in methods
                           for values in GRIDS[method][1]], workers)
    return local + first + second


def again(setup, methods, workers):
    """Rows of two stages: Local around its choice in the setup this one builds on; then every other method."""
    def around(method, **shared):
        field, factors = NEIGHBOURS[method]
        values = {**tuned(BUILDS_ON[setup], method), **shared}
        start = values.get("tau" if field == "tau_cross" else field, getattr(Settings(), field) or Settings().tau)
        return [(method, values), *((method, {**values, field: round(factor * start, 6)}) for factor in factors)]

    local = score(setup, around("local"), workers)
    shared = {"local_lr": best(local, "local")["local_lr"]}
    return local + score(setup, [one for method in methods for one in around(method, **shared)], workers)


def best(rows, method):
    """The row of `method` with the highest delta."""
    return max((row for row in rows if row["method"] == method), key=lambda row: row["delta"])


def score(setup, configurations, workers):
    """One row {method, fields, delta} for each (method, values), computed in one sweep."""
    wanted = [settings(setup, "local", {}), *(settings(setup, *configuration) for configuration in configurations)]
    sweep([one for several in wanted for one in several], FOLDER, workers)
    reference, *found = [sweep(several, FOLDER)[1] for several in wanted]
    return [{"method": method, **values, "delta": validation_delta(history, reference)}
            for (method, values), history in zip(configurations, found, strict=True)]


def settings(setup, method, values):
    """One `Settings` a tuning seed, without test scenes."""
    base = Settings(setup=setup, method=method, test_size=0).replace(**SETUP_SETTINGS.get(setup, {}), **values)
    return [base.replace(seed=seed) for seed in SEEDS[setup]]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", default="setup1")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(argv)
    print(tune(args.setup, workers=args.workers).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())

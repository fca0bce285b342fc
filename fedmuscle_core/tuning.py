"""Tuning with the same budget for every method, on validation scenes and seeds of its own: `python -m fedmuscle_core.tuning`.

First the local learning rate, four values, by Local alone; all methods then share it.  Then the contrastive learning rate,
three values for each method that exchanges something.  Chosen is the best Delta on validation scenes, against Local at its
default.
"""

import argparse
import sys

import pandas as pd

from .experiment import sweep
from .paths import DATA
from .settings import Settings
from .statistics import relative_change
from .store import write_atomically

SEEDS = (100, 101)                                    # never used for results
LOCAL_GRID = {"local_lr": (2.5e-4, 5e-4, 1e-3, 2e-3)}
CONTRASTIVE_GRID = {"contrastive_lr": (3e-4, 1e-3, 3e-3)}
FOLDER = DATA / "results" / "tuning"


def table_path(setup):
    return FOLDER / f"{setup}.csv"


def tuned(setup, method):
    """{field: value} of the best settings of `method` in the stored table; {} where the setup was not tuned."""
    if not table_path(setup).is_file():
        return {}
    scores = pd.read_csv(table_path(setup))
    chosen = {"local_lr": _best(scores, "local", "local_lr")}
    if method != "local":
        chosen["contrastive_lr"] = _best(scores, method, "contrastive_lr")
    return chosen


def _best(scores, method, field):
    rows = scores[scores["method"] == method]
    if rows.empty:
        raise ValueError(f"method: got {method!r}, expected one that was tuned: {sorted(scores['method'].unique())}")
    return float(rows.loc[rows["delta"].idxmax(), field])


def validation_delta(history, reference):
    """Mean over seeds and clients of the relative change of the last validation score, in percent."""
    def last(table):
        rows = table[(table["split"] == "validation") & (table["round"] == table["round"].max())]
        return rows.reset_index(drop=True)
    both = pd.concat([last(reference).assign(method="reference"), last(history).assign(method="candidate")])
    changes = relative_change(both, baseline="reference")
    return changes[changes["method"] == "candidate"]["change"].mean()


def tune(setup, methods, workers=1):
    """Run the grids of `setup`, write and return the table: method, local_lr, contrastive_lr, seeds, delta in percent."""
    def history(method, **values):
        return sweep([Settings(setup=setup, method=method, seed=seed, test_size=0).replace(**values) for seed in SEEDS],
                     FOLDER, workers)[1]

    rows = []
    reference = history("local")
    for local_lr in LOCAL_GRID["local_lr"]:
        rows.append(("local", local_lr, None, validation_delta(history("local", local_lr=local_lr), reference)))
    local_lr = max(rows, key=lambda row: row[3])[1]
    for method in methods:
        for rate in CONTRASTIVE_GRID["contrastive_lr"]:
            found = history(method, local_lr=local_lr, contrastive_lr=rate)
            rows.append((method, local_lr, rate, validation_delta(found, reference)))
    table = pd.DataFrame(rows, columns=["method", "local_lr", "contrastive_lr", "delta"]).round({"delta": 4})
    table.insert(3, "seeds", " ".join(map(str, SEEDS)))
    write_atomically(table_path(setup), table.to_csv(index=False, lineterminator="\n"))
    return table


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", default="setup1")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(argv)
    print(tune(args.setup, ("pairwise", "fedmuscle"), args.workers).to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())

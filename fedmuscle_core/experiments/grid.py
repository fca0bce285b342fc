"""The grid of federations of notebook 17: what each of its clients has, and what it gained.

`python -m fedmuscle_core.experiments.grid`, where the photos are, measures how far the public photos lie from each client's
own: data/results/grid_mismatch.csv.
"""

import sys

import pandas as pd

from ..paths import BACKBONES, STORED, check_commits
from ..world.tasks import task_named
from . import ablations
from .mismatch import public_mismatch
from .runs import stored
from .setups import SETUPS
from .statistics import failures, final_scores, log_odds_change
from .store import write_atomically

METHODS = ("fedmuscle", "simclr")
GAINS = (*METHODS, "lead")                            # over Local, and of alignment over SimCLR
MISMATCHES = STORED / "grid_mismatch.csv"
CELL = ["networks", "sizes", "source", "photos"]      # of `ablations.by_cell`, its rate left out
PARTS = ("networks", "sizes")                         # of the grid, by whose values errors of a rule are measured
PROBED = ("cifar10_excerpt", "cifar100_excerpt")


def observations(results, strengths, mismatches):
    """One row a client and cell of `ablations.by_cell`: FEATURES of `analysis.advice`, GAINS, federation, client, task and the
    parts of the cell.

    results: {(cell, method): (records, history)}.  strengths: {backbone: probe accuracy}.  mismatches: {cell[:4]: {client:
    mmd}}.  Cells with a run that diverged are left out; `attrs["left_out"]` names them.
    """
    rows, left_out = [], []
    for cell in [cell for cell, method in results if method == METHODS[0]]:
        networks, labels, source, photos, rate = cell
        setup = SETUPS[results[cell, METHODS[0]][0][0]["settings"]["setup"]]
        several = pd.concat([results[key][1] for key in ((cell[:2], "local"), *((cell, method) for method in METHODS))])
        if failures(several):
            left_out.append(cell)
            continue
        gains = log_odds_change(final_scores(several)).pivot(index="client", columns="method", values="log_odds")
        own = {client: strengths[spec.backbone] for client, spec in enumerate(setup.clients, 1)}
        for client, spec in enumerate(setup.clients, 1):
            aligned, alone = (gains.loc[client, method] for method in METHODS)
            rows.append({
                "federation": f"{networks} networks, {labels} labels", "networks": networks, "sizes": labels,
                "client": client, "task": spec.task, "source": source,
                "labels": spec.train_size / task_named(spec.task).num_outputs, "own": own[client],
                "peers": sum(value for other, value in own.items() if other != client) / (len(own) - 1),
                "photos": photos, "mismatch": max(0.0, mismatches[cell[:4]][client]), "rate": rate,
                "fedmuscle": aligned, "simclr": alone, "lead": aligned - alone})
    table = pd.DataFrame(rows)
    table.attrs["left_out"] = left_out
    return table


def observed(folder):
    """`observations` of the grid's runs stored in `folder`, with what MISMATCHES says of their photos; ValueError where that is
    missing."""
    if not MISMATCHES.is_file():
        raise ValueError(f"{MISMATCHES}: got no such file, expected how far public photos lie from private ones; where the "
                         "photos are, `python -m fedmuscle_core.experiments.grid` measures it")
    runs = ablations.by_cell("foundation")
    probes = pd.read_csv(BACKBONES / "probe_real.csv").query("weights == 'pretrained' and source in @PROBED")
    measured = pd.read_csv(MISMATCHES).set_index([*CELL, "client"])["mmd"]
    return observations({key: stored(several, folder) for key, several in runs.items()},
                        probes.groupby("backbone")["accuracy"].mean().to_dict(),
                        {cell: rows.droplevel(CELL).to_dict() for cell, rows in measured.groupby(level=CELL)})


def main():
    """Measure MISMATCHES, for which the photos are needed."""
    check_commits()
    firsts = {cell[:4]: several[0] for (cell, method), several in ablations.by_cell("foundation").items()
              if method == METHODS[0]}
    measured = pd.concat({cell: public_mismatch(first.replace(test_size=0)) for cell, first in firsts.items()}, names=CELL)
    write_atomically(MISMATCHES, measured.reset_index(CELL)[[*CELL, "client", "mmd"]].round(5).to_csv(
        index=False, lineterminator="\n"))
    return 0


if __name__ == "__main__":
    sys.exit(main())

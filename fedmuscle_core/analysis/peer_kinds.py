"""Which kind of peer helps which kind of client: from runs in which every client was served by one kind alone."""

import numpy as np
import pandas as pd

from ..experiments.statistics import best_validation


def kind_gains(histories, local, names):
    """(K, K) table: change in log-odds against `local`, on validation samples, of clients of the kind of the row that are
    served by the kind of the column; mean over clients and seeds.

    histories: {shift: history} of runs with K equal `shifts`, see `peers`; client c is of kind (c - 1) mod K, `names` in turn.
    """
    count, alone, table = len(names), best_validation(local), pd.DataFrame(index=names, columns=names, dtype=float)
    for shift, history in histories.items():
        gains = best_validation(history) - alone
        kinds = (gains.index.get_level_values("client") - 1) % count
        for kind, gain in gains.groupby(kinds).mean().items():
            table.iloc[kind, (kind + shift) % count] = gain
    return table.rename_axis(index="client", columns="served by")


def worth_of_choosing(histories, local, names):
    """Mean over kinds of what the best kind of peer is worth over the mean kind, the best chosen on one seed and judged on the
    others, a list of one a seed: about 0 where kinds do not matter.  Arguments as of `kind_gains`."""
    seeds, found = sorted(local["seed"].unique()), []
    for seed in seeds:
        one, rest = (kind_gains({shift: history[(history["seed"] == seed) == own] for shift, history in histories.items()},
                                local[(local["seed"] == seed) == own], names) for own in (True, False))
        best = np.nanargmax(one.to_numpy(), 1)
        found.append(float((rest.to_numpy()[range(len(names)), best] - rest.mean(axis=1)).mean()))
    return found


def oracle_shifts(table):
    """The shifts by which each kind is served by what `kind_gains` says is best for it, a tuple; what was not tried does not
    count."""
    if (empty := table.isna().all(axis=1)).any():
        raise ValueError(f"table: got no number for {table.index[empty].tolist()}, expected one for each kind")
    best = np.nanargmax(table.to_numpy(), 1)
    return tuple(int((other - kind) % len(table)) for kind, other in enumerate(best))

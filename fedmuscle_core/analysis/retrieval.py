"""Image-text retrieval: recalls of the clients that read pairs, as tables."""

import pandas as pd

from ..experiments.statistics import mean_interval
from ..methods import METHODS
from .tables import interval_text


def recall_rows(records, client=1):
    """One row a run: method, seed, and the recalls of `client` in percent, see `tasks.recalls`, with their mean at rank 1 as
    "R@1".  Runs that diverged are left out; `attrs["failed"]` names them."""
    failed = [record["settings"] for record in records if "recalls" not in record]
    rows = [{"method": record["settings"]["method"], "seed": record["settings"]["seed"], **record["recalls"][str(client)]}
            for record in records if "recalls" in record]
    table = pd.DataFrame(rows, columns=None if rows else ["method", "seed", "i2t R@1", "t2i R@1"])
    table.attrs["failed"] = [f"{METHODS[one['method']].label}, seed {one['seed']}" for one in failed]
    return table.assign(**{"R@1": (table["i2t R@1"] + table["t2i R@1"]) / 2})


def recall_table(rows):
    """One row a method: recalls, mean over seeds with 95 % interval, as text."""
    names = [name for name in rows.columns if "R@" in name]
    found = {method: {name: interval_text(mean_interval(several[name]), signed=False) for name in names}
             | {"seeds": len(several)} for method, several in rows.groupby("method", sort=False)}
    return pd.DataFrame(found).T.rename(index=lambda name: METHODS[name].label).rename_axis("method")

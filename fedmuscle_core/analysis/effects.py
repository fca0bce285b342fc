"""What becomes of a federation when one thing is varied: `measure` the runs of `ablations`, then compare them.

`measure` gives one row a run; `effects` the paired differences to a reference; `effect_table` and `answer` say them in words.
"""

import numpy as np
import pandas as pd

from ..experiments.runs import sweep
from ..experiments.statistics import delta, final_scores, mean_interval, relative_change, seeds_needed, verdict
from ..methods import METHODS
from .tables import interval_text


def run_all(runs, folder, workers=1):
    """{(value, method): (records, history)} of {(value, method): list of `Settings`}, computed in one sweep."""
    sweep([settings for several in runs.values() for settings in several], folder, workers)
    return {key: sweep(several, folder) for key, several in runs.items()}


def client_changes(results):
    """Change of every client against Local on the same seed, in percent; one row (value, method, seed, client).

    results: as from `run_all`; the Local of the same value, or the one with the value None.
    """
    rows = []
    for (value, method), (_, history) in results.items():
        if method != "local":
            if not {(value, "local"), (None, "local")} & set(results):
                raise ValueError(f"results: got no 'local' for {value!r}, expected ({value!r}, 'local') or (None, 'local')")
            local = results[(value, "local") if (value, "local") in results else (None, "local")][1]
            changes = relative_change(final_scores(pd.concat([local, history])))
            rows.append(changes[changes["method"] != "local"].assign(value_of=_label(value)))
    return pd.concat(rows, ignore_index=True).rename(columns={"value": "score"}).rename(columns={"value_of": "value"})


def measure(results):
    """One row a run of `run_all`, Local left out, in the order of the keys.

    Columns: value (a number, or text), method, seed; delta, worst, improved, worst_third as from `statistics.delta`; loss: last
    contrastive loss, mean over clients, in nats; kib: KiB up and down a client and round; seconds: wall time of the run.
    """
    changes, rows = client_changes(results), []
    for (value, method), (records, history) in results.items():
        if method == "local":
            continue
        mine = changes[(changes["value"] == _label(value)) & (changes["method"] == method)]
        summary = delta(mine).set_index("seed")
        sent = history[history["round"] > 0].groupby(["seed", "client", "round"])["bytes"].max().groupby("seed").mean() / 1024
        losses = history[(history["metric"] == "contrastive_loss") & (history["round"] == history["round"].max())]
        losses = losses.groupby("seed")["value"].mean()
        seconds = {record["settings"]["seed"]: record["wall_seconds"] for record in records}
        for seed in summary.index:
            rows.append({"value": _label(value), "method": method, "seed": seed, **summary.loc[seed].drop("method"),
                         "loss": losses.get(seed, np.nan), "kib": sent[seed], "seconds": seconds[seed]})
    return pd.DataFrame(rows)


def effects(measured, reference, method="fedmuscle", column="delta", effect=1.0):
    """Every value of `method` against its value `reference`, paired over the seeds both have: one row each, as numbers.

    Student-t intervals, not adjusted for the number of rows.  Columns: label; mean, low, high of the difference; own_mean,
    own_low, own_high of the value itself; seeds; seeds_needed to show a difference of `effect`.
    """
    wide = measured[measured["method"] == method].pivot(index="seed", columns="value", values=column)
    if any(isinstance(value, str) for value in wide):
        wide = wide[[value for value in measured["value"].unique() if value in wide]]       # as planned; numbers: ascending
    reference, rows = _label(reference), []
    if reference not in wide:
        raise ValueError(f"reference: got {reference!r}, expected one of {list(wide.columns)}")
    for value in wide.columns:
        difference = (wide[value] - wide[reference]).dropna()
        same = value == reference
        rows.append((value, *((0.0, np.nan, np.nan) if same else mean_interval(difference)),
                     *mean_interval(wide[value].dropna()), len(difference), "-" if same else seeds_needed(difference, effect)))
    return pd.DataFrame(rows, columns=["label", "mean", "low", "high", "own_mean", "own_low", "own_high", "seeds",
                                       "seeds_needed"])


def effect_table(measured, reference, name="value", method="fedmuscle"):
    """`effects` on Delta as text: one row a value of what is called `name`."""
    rows = []
    for row in effects(measured, reference, method).itertuples():
        same = row.label == _label(reference)
        rows.append({name: row.label, "Delta (%)": interval_text((row.own_mean, row.own_low, row.own_high)),
                     f"minus {_label(reference)} (points)": "-" if same else interval_text((row.mean, row.low, row.high)),
                     "shown": "-" if same else verdict((row.mean, row.low, row.high)), "seeds": row.seeds,
                     "seeds to show 1 point": row.seeds_needed})
    return pd.DataFrame(rows)


def answer(measured, reference, name, method="fedmuscle"):
    """One sentence: which values of `name` differ from the reference, by how much, and which do not show it."""
    rows = effects(measured, reference, method)
    others = rows[rows["label"] != _label(reference)]
    said = [(verdict((row.mean, row.low, row.high)), f"{row.label} {interval_text((row.mean, row.low, row.high))}")
            for row in others.itertuples()]
    parts = [f"{word} with {', '.join(text for found, text in said if found == word)}"
             for word in ("higher", "lower", "no difference shown", "one seed: no interval") if word in dict(said)]
    own = rows[rows["label"] == _label(reference)].iloc[0]
    return (f"{METHODS[method].label}'s Delta is {interval_text((own.own_mean, own.own_low, own.own_high))} % with {name} "
            f"{_label(reference)}; against it, in points over {own.seeds} seed(s): {'; '.join(parts)}.")


def _label(value):
    """A value as it is, or several as one text."""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value

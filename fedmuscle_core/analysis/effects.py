"""What becomes of a federation when one thing is varied: `measure` the runs of `ablations`, then compare them.

`measure` gives one row a run; `effects` the paired differences to a reference; `effect_table` and `answer` say them in words.
Results are {(value, method): (records, history)}, as from `runs.sweep_groups`.
"""

import numpy as np
import pandas as pd

from ..experiments.statistics import (
    EFFECT,
    bytes_sent,
    delta,
    failures,
    final_scores,
    log_odds_change,
    mean_interval,
    relative_change,
    verdict,
)
from ..methods import METHODS
from .tables import interval_text, marked, seeds_text


def client_changes(results):
    """Change of every client against Local on the same seed, in percent and in log-odds; one row (value, method, seed, client).

    The Local of the same value, or the one with the value None.  What diverged is left out.  `attrs["untuned"]`
    names the setups that nobody tuned.
    """
    rows, untuned = [], set()
    for (value, method), (_, history) in results.items():
        untuned |= set(history.attrs.get("untuned", ()))
        if method != "local" and not failures(history):
            local = results.get((value, "local")) or results.get((None, "local"))
            if local is None:
                raise ValueError(f"results: got no 'local' for {value!r}, expected ({value!r}, 'local') or (None, 'local')")
            scores = final_scores(pd.concat([local[1], history]))
            changes = relative_change(scores).assign(log_odds=log_odds_change(scores)["log_odds"])
            rows.append(changes[changes["method"] != "local"].rename(columns={"value": "score"}).assign(value=_label(value)))
    if not rows:
        raise ValueError("results: got no method beside 'local' whose runs all came to an end, expected one")
    table = pd.concat(rows, ignore_index=True)
    table.attrs["untuned"] = sorted(untuned)
    return table


def of_first_clients(results, count):
    """The same results, of the first `count` clients alone."""
    return {key: (records, history[history["client"] <= count]) for key, (records, history) in results.items()}


def measure(results):
    """One row a run, Local left out, in the order of the keys; `attrs` as of `client_changes`.

    Columns: value (a number, or text), method, seed; delta, worst, improved, worst_third as from `statistics.delta`; log_odds:
    mean over clients; loss: last contrastive loss, mean over clients, in nats; kib: KiB up and down a client and round;
    seconds: wall time of the run.
    Where a run diverged, all of its value and method are nan, and a further column `diverged` says on which seeds, and where.
    """
    failed = {key: text for key, (_, history) in results.items() for method, text in failures(history).items()
              if method != "local"}
    changes, rows = client_changes(results), []
    for (value, method), (records, history) in results.items():
        if method == "local":
            continue
        if text := failed.get((value, method)):
            rows += [{"value": _label(value), "method": method, "seed": seed, "diverged": text}
                     for seed in sorted(history["seed"].unique())]
            continue
        mine = changes[(changes["value"] == _label(value)) & (changes["method"] == method)]
        summary = delta(mine).set_index("seed")
        odds = mine.groupby("seed")["log_odds"].mean()
        sent = bytes_sent(history).groupby("seed").mean() / 1024
        losses = history[(history["metric"] == "contrastive_loss") & (history["round"] == history["round"].max())]
        losses = losses.groupby("seed")["value"].mean()
        seconds = {record["settings"]["seed"]: record["wall_seconds"] for record in records}
        for seed in summary.index:
            rows.append({"value": _label(value), "method": method, "seed": seed, **summary.loc[seed].drop("method"),
                         "log_odds": odds[seed], "loss": losses.get(seed, np.nan), "kib": sent[seed], "seconds": seconds[seed]})
    table = pd.DataFrame(rows)
    table.attrs = changes.attrs
    return table


def effects(measured, reference, method="fedmuscle"):
    """Every value of `method` against its value `reference`, paired over the seeds both have: one row each, as numbers.

    A difference of gains: where Local has the value, too, each is against a Local of its own.
    Student-t intervals, not adjusted for the number of rows.  Columns: label; mean, low, high of the difference in log-odds;
    own_mean, own_low, own_high of the value's Delta in percent; seeds.  Of a value that diverged all are nan; the reference
    must not.
    """
    mine = measured[measured["method"] == method]
    failed = diverged(mine)
    wide, own = (mine.pivot(index="seed", columns="value", values=column) for column in ("log_odds", "delta"))
    if any(isinstance(value, str) for value in wide):
        wide = wide[[value for value in measured["value"].unique() if value in wide]]       # as planned; numbers: ascending
    reference, rows = _label(reference), []
    if reference not in wide:
        raise ValueError(f"reference: got {reference!r}, expected one of {list(wide.columns)}")
    if reference in failed:
        raise ValueError(f"reference: {method!r} with {reference!r} {failed[reference]}; expected one that came to an end")
    for value in wide.columns:
        if value in failed:
            rows.append((value, *[np.nan] * 6, 0))
            continue
        difference = (wide[value] - wide[reference]).dropna()
        rows.append((value, *((0.0, np.nan, np.nan) if value == reference else mean_interval(difference)),
                     *mean_interval(own[value].dropna()), len(difference)))
    table = pd.DataFrame(rows, columns=["label", "mean", "low", "high", "own_mean", "own_low", "own_high", "seeds"])
    table.attrs = measured.attrs
    return table


def between(measured, value, reference, method="fedmuscle"):
    """(mean, low, high) of the difference in log-odds of `value` to `reference`, paired over seeds, as of `effects`; None where
    one of them was not run or diverged, or both are the same."""
    mine = measured[measured["method"] == method]
    if _label(value) == _label(reference) or not {_label(value), _label(reference)} <= set(mine["value"]) - set(diverged(mine)):
        return None
    rows = effects(mine[mine["value"].isin([_label(value), _label(reference)])], reference, method).set_index("label")
    return tuple(rows.loc[_label(value), ["mean", "low", "high"]])


def diverged(measured):
    """{value: "diverged on ..."} of the values of one method that `measure` found so."""
    return dict(measured.dropna(subset="diverged")[["value", "diverged"]].values) if "diverged" in measured else {}


def effect_table(measured, reference, name="value", method="fedmuscle"):
    """`effects` as text: one row a value of what is called `name`; whether an EFFECT of this size was shown."""
    rows, reference, failed = [], _label(reference), diverged(measured[measured["method"] == method])
    for row in effects(measured, reference, method).itertuples():
        same, found = row.label == reference, (row.mean, row.low, row.high)
        rows.append({name: row.label, marked("Delta (%)", measured): failed.get(row.label) or interval_text(
            (row.own_mean, row.own_low, row.own_high)),
                     f"minus {reference} (log-odds)": "-" if same else interval_text(found, 2),
                     "shown": "-" if same else verdict(found, EFFECT), "seeds": row.seeds})
    return pd.DataFrame(rows)


def answer(measured, reference, name, method="fedmuscle"):
    """One sentence: which values of `name` differ from the reference, by how much, and which do not show it."""
    rows, reference, said = effects(measured, reference, method), _label(reference), {}
    failed = diverged(measured[measured["method"] == method])
    for row in rows[rows["label"] != reference].itertuples():
        found = (row.mean, row.low, row.high)
        said.setdefault(verdict(found, EFFECT), []).append(f"{row.label} {interval_text(found, 2)}")
    parts = [f"{word} with {', '.join(said[word])}"
             for word in ("higher", "lower", "no difference", "too few seeds", "one seed: no interval") if word in said]
    parts += [f"with {value} it {text}" for value, text in failed.items()]
    own = rows[rows["label"] == reference].iloc[0]
    interval = interval_text((own.own_mean, own.own_low, own.own_high))
    against = f"; against it, in log-odds over {seeds_text(int(own.seeds))}: {'; '.join(parts)}" if parts else ""
    return f"{marked(METHODS[method].label, measured)}'s Delta is {interval} % with {name} {reference}{against}."


def _label(value):
    """A value as it is, or several as one text."""
    return ", ".join(map(str, value)) if isinstance(value, tuple) else value

"""Tuning with the same budget for every method, on validation samples and seeds of its own:
`python -m fedmuscle_core.experiments.tuning`.

Twelve configurations a method, all combinations of its `grid`, in three heats: all on the first tuning seed, the better third
on the second as well, the better two on the third.  Where the one chosen lies at an end of the three or more values of a field,
the next value beyond is tried on all seeds, if settings accept it, up to EXTENSIONS times a method.  Local comes first; every
method then has its choice of what the method's own grid leaves open.

A configuration's score is the mean over clients and seeds of the change in log-odds of the best validation score over rounds
against that of tuned Local (of Local itself: at its defaults); -inf where a run diverged.  Chosen is the best of those with
most seeds.  Every public domain is tuned for by itself.
"""

import argparse
import itertools
import math
import sys
from statistics import mean

import numpy as np
import pandas as pd

from ..checks import positive_int
from ..methods import METHODS, Local, method_named, of_group
from ..methods.sharing import Sharing
from ..paths import results
from .build import check
from .choices import CHOSEN_BY, domain_of, path_to_write, read, tried_fields
from .forecast import as_text, estimate
from .processes import affordable, stoppable
from .runs import missing_runs, sweep
from .settings import Settings
from .setups import setup_named
from .statistics import SCORE_LIMITS, failures
from .store import check_writable, write_atomically

FOLDER = results("mini") / "tuning"
HEATS = (1.0, 1 / 3, 1 / 6)     # share of the configurations that each further seed is spent on
EXTENSIONS = 2


def tune(setup, methods=None, public_domain=None, workers=1, progress=True):
    """Tune the methods of a setup with a public domain, write and return the rows of the table that are about them.

    methods: those of `tuned_methods` if None.  public_domain: the setup's own if None.  Heat by heat, each one sweep: finished
    runs are kept.
    """
    setup = setup_named(setup)
    methods = tuned_methods(setup) if methods is None else tuple(name for name in methods if name != Local.name)
    domain = public_domain or domain_of(setup)
    check_writable(path_to_write().parent)

    def race(wanted, reference):
        if progress:
            print(forecast(setup, wanted, domain, workers))
        return compete(setup, wanted, domain, reference, workers, progress)

    sweep(settings_for(setup, Local.name, {}, domain, setup.tuning_seeds), FOLDER, workers, progress)
    local = race({Local.name: configurations(Local.name)}, None)
    shared = best(local, Local.name)
    if shared is None:
        raise ValueError(f"tuning: {Local.name!r} diverged with all settings that were tried, expected one that did not")
    reference = histories(setup, Local.name, shared, domain)
    rows = local + race({method: configurations(method, shared) for method in methods}, reference)
    return write_rows(setup, domain, rows)


def tuned_methods(setup):
    """Names of the methods that are tuned for a setup, Local left out."""
    tunes = setup_named(setup).tunes
    return tuple(name for name in (of_group(tunes) if isinstance(tunes, str) else tunes) if name != Local.name)


def configurations(method, shared=None):
    """The combinations of a method's grid, each {field: value}, with what is `shared` and not its own."""
    grid = method_named(method).grid
    return [with_tied(method, {**(shared or {}), **dict(zip(grid, values, strict=True))})
            for values in itertools.product(*grid.values())]


def with_tied(method, values):
    """The values with those that follow another."""
    tied = {name: round(values[other] * factor, 8) for name, (other, factor) in method_named(method).tied.items()
            if other in values}
    return values | tied


def compete(setup, wanted, domain, reference, workers, progress):
    """Rows {method, fields, seeds, score} of all configurations `wanted`, {method: list}, after the heats and extensions."""
    seeds, tried = setup.tuning_seeds, {}

    def run(entries):
        """Score (method, values, number of seeds) and keep the rows."""
        sweep([one for method, values, count in entries for one in settings_for(setup, method, values, domain, seeds[:count])],
              FOLDER, workers, progress)
        for method, values, count in entries:
            tried[method, tuple(sorted(values.items()))] = {
                "method": method, **values, "seeds": count, "score": scored(setup, method, values, domain, count, reference)}

    def ranked(method, count):
        rows = [row for (name, _), row in tried.items() if name == method and row["seeds"] == count
                and row["score"] > -math.inf]
        return sorted(rows, key=lambda row: -row["score"])

    for count in range(1, len(seeds) + 1):
        share = HEATS[min(count, len(HEATS)) - 1]
        entries = []
        for method, several in wanted.items():
            kept = math.ceil(share * len(several))
            chosen = several if count == 1 else [fields_of(row) for row in ranked(method, count - 1)[:kept]]
            entries += [(method, values, count) for values in chosen]
        run(entries)
    for _ in range(EXTENSIONS):
        further = []
        for method in wanted:
            known = [fields_of(row) for row in tried.values() if row["method"] == method]
            chosen = best(tried.values(), method)
            further += [(method, values, len(seeds)) for values in (beyond(method, chosen, known) if chosen else ())
                        if values not in known and acceptable(setup, method, values, domain)]
        if not further:
            break
        run(further)
    return list(tried.values())


def beyond(method, chosen, several):
    """Configurations one value further, for every field of the grid of which `chosen` has an end of three or more values."""
    found = []
    for name, values in method_named(method).grid.items():
        known = sorted({values_of[name] for values_of in several} | set(values))
        if len(known) < 3:
            continue
        if chosen[name] == known[-1] and known[-2] > 0:
            found.append((name, known[-1] ** 2 / known[-2]))
        elif chosen[name] == known[0] > 0:
            found.append((name, known[0] ** 2 / known[1]))
    whole = {name for name, value in chosen.items() if isinstance(value, int)}
    return [with_tied(method, {**chosen, name: max(1, round(value)) if name in whole else float(f"{value:.6g}")})
            for name, value in found]


def acceptable(setup, method, values, domain):
    """Whether settings accept such values."""
    try:
        check(*settings_for(setup, method, values, domain, setup.tuning_seeds[:1]))
    except ValueError:
        return False
    return True


def best(rows, method):
    """{field: value} of the best row of `method` among those with most seeds that did not diverge; None where all did."""
    rows = [row for row in rows if row["method"] == method and row["score"] > -math.inf]
    return fields_of(max(rows, key=lambda row: (row["seeds"], row["score"]))) if rows else None


def fields_of(row):
    return {name: value for name, value in row.items() if name not in ("method", "seeds", "score")}


def settings_for(setup, method, values, domain, seeds):
    """One `Settings` a tuning seed, without test samples, and without measurements that no score needs."""
    needless = {"measure_gradients": False} if issubclass(METHODS[method], Sharing) else {}
    base = Settings.of(setup, method, **setup.settings | {"test_size": 0, "public_domain": domain} | needless | values)
    return [base.replace(seed=seed) for seed in seeds]


def histories(setup, method, values, domain, count=None):
    """[history] of the stored runs of a configuration, a tuning seed each."""
    wanted = settings_for(setup, method, values, domain, setup.tuning_seeds[:count])
    return [sweep([settings], FOLDER, progress=False)[1] for settings in wanted]


def scored(setup, method, values, domain, count, reference):
    """The score of a configuration on the first `count` tuning seeds."""
    if reference is None:
        reference = histories(setup, Local.name, {}, domain, count)
    found = histories(setup, method, values, domain, count)
    return mean(validation_log_odds(*both) for both in zip(found, reference, strict=False))


def validation_log_odds(history, reference):
    """Mean over clients of the change in log-odds of the best validation score over rounds; -inf where the run diverged."""
    for text in failures(reference).values():
        raise ValueError(f"tuning: Local {text}; expected a reference that came to an end")
    if failures(history):
        return -math.inf

    def best_log_odds(table):
        best = table[table["split"] == "validation"].groupby("client")["value"].max().clip(*SCORE_LIMITS) / 100
        return np.log(best / (1 - best))
    return float((best_log_odds(history) - best_log_odds(reference)).mean())


def forecast(setup, wanted, domain, workers):
    """One line: how many runs the heats of `wanted`, {method: configurations}, will compute at most, and how long it takes."""
    seeds, runs = setup.tuning_seeds, []
    for method, several in wanted.items():
        for count, seed in enumerate(seeds, 1):
            kept = math.ceil(HEATS[min(count, len(HEATS)) - 1] * len(several))
            runs += [one for values in several[:kept] for one in settings_for(setup, method, values, domain, [seed])]
    missing = missing_runs(runs, FOLDER)
    return (f"tuning {', '.join(wanted)} on {setup.name} with {domain}: {len(runs)} runs, {len(missing)} of them to be "
            f"computed, about {as_text(estimate(missing, FOLDER, workers))} with {workers} worker(s)")


def write_rows(setup, domain, rows):
    """Put rows into the table, instead of those of the same setup, domain and methods; returns them as a table."""
    named = [{"setup": setup.name, "public_domain": domain if METHODS[row["method"]].uses_public else "", **fields_of(row),
              "method": row["method"], "seeds": " ".join(map(str, setup.tuning_seeds[:row["seeds"]])), "by": CHOSEN_BY,
              "score": round(row["score"], 4)} for row in rows]
    ours, before = pd.DataFrame(named), read(path_to_write())
    if before is not None:
        replaced = {(row["setup"], row["public_domain"], row["method"]) for row in named}
        keys = zip(before["setup"], before["public_domain"].fillna(""), before["method"], strict=True)
        kept = before[[key not in replaced for key in keys]]
        table = pd.concat([kept, ours], ignore_index=True)
    else:
        table = ours
    order = ["setup", "public_domain", "method", *tried_fields(table), "seeds", "by", "score"]
    places = {name: place for place, name in enumerate(METHODS)}
    usual = {name: value for method in METHODS for name, value in Settings.of(method=method).flat().items()}
    table = table.astype({name: "Int64" for name in tried_fields(table) if type(usual.get(name)) is int})
    table = table[order].sort_values(["setup", "public_domain", "method", "seeds", "score"], kind="stable", key=lambda column: (
        column.map(places) if column.name == "method" else column.map(str) if column.name != "score" else column),
        ascending=[True, True, True, True, False])
    write_atomically(path_to_write(), table.to_csv(index=False, lineterminator="\n"))
    return ours


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setup", default="embedded1")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="default: those that the setup names")
    parser.add_argument("--public-domain", help="default: the setup's")
    parser.add_argument("--workers", type=int, default=1)
    args = parser.parse_args(argv)
    with stoppable("finished runs are kept, and the last state of the runs under way: the same command goes on"):
        try:
            workers = affordable(positive_int("workers", args.workers))
            print(tune(args.setup, args.methods, args.public_domain, workers).to_string(index=False))
        except ValueError as error:
            parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What tuning chose: tables, one a setup, that `tuning` writes and settings are made from.

Those that come with the package are in `tuned/`; without a clone around it, new ones go below the runs folder, and count first.
A setup is given, or named; it has the table of the setup that it is `tuned_as`.
"""

import math

import pandas as pd

from ..paths import CLONE, TUNED, runs
from .settings import Settings
from .setups import SETUPS, setup_named

AT_DEFAULTS = ("paper1", "paper2", "paper_noniid")     # of the setups here, those that nobody tuned


def table_path(setup):
    """Where the tuning table of a setup is, or would be written: its own, whatever it is tuned as."""
    name = setup if isinstance(setup, str) else setup.name
    own, ours = runs("tuned") / f"{name}.csv", TUNED / f"{name}.csv"
    return ours if CLONE or ours.is_file() and not own.is_file() else own


def path_to_write(setup):
    return (TUNED if CLONE else runs("tuned")) / f"{setup}.csv"


def tuned_as(setup):
    """Name of the setup whose tuned values `setup` has: another one's that it names, or its own."""
    setup = setup_named(setup)
    return setup.tuned_as or setup.name


def is_tuned(setup):
    """Whether there is a table for the setup; without one, methods have their defaults."""
    return table_path(tuned_as(setup)).is_file()


def _table_name(setup):
    return setup if isinstance(setup, str) and setup not in SETUPS else tuned_as(setup)


def read_table(setup):
    """The tuning table that a setup has, None where nobody tuned it.

    Raises ValueError naming the file where it is gone from the package, or is none.
    """
    name = _table_name(setup)
    path = table_path(name)
    if not path.is_file():
        if name in SETUPS and name not in AT_DEFAULTS:
            raise ValueError(f"{path}: got no file, expected the tuning table of {name}, which comes with the package; "
                             f"`python -m fedmuscle_core.experiments.tuning --setup {name}` makes it anew")
        return None
    try:
        table = pd.read_csv(path)
        tried = table["delta"].astype(float).notna() & table["method"].notna()
        if not len(table) or not tried.all():
            raise ValueError(f"line {2 + tried.argmin() if len(table) else 2}: no method and delta")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: got no tuning table ({type(error).__name__}: {error}); expected columns method, delta and "
                         "fields of settings") from error
    return table


def tuned(setup, method, **fixed):
    """{field: value} of the best settings of `method` in the stored table of a setup; {} where it was not tuned.

    fixed: values of the run's settings.  Among the rows that have them, where the table tried them: e.g. tau=0.2.
    Raises ValueError for a method that was not tuned beside the others, or of which all diverged.
    """
    scores = read_table(setup)
    if scores is None:
        return {}
    fields = tried_fields(scores)
    rows = scores[scores["method"] == method]
    if rows.empty:
        known, name = sorted(scores["method"].unique()), setup if isinstance(setup, str) else setup.name
        raise ValueError(f"method: got {method!r}, expected one that was tuned for {name}: {known}")
    usual = Settings.of(method=method).flat()
    for name in sorted(set(fixed) & set(fields) & set(usual)):
        tried = rows[name].fillna(usual[name]) == fixed[name]
        rows = rows[tried] if tried.any() else rows
    if rows["delta"].max() == -math.inf:
        raise ValueError(f"{table_path(_table_name(setup))}: {method!r} diverged with all settings that were tried, expected "
                         "one that did not")
    best = rows.loc[rows["delta"].idxmax(), fields].dropna().to_dict()
    whole = {name for name, value in usual.items() if type(value) is int}     # a column with gaps was read as floats
    return {name: int(value) if name in whole else value for name, value in best.items()}


def methods_tried(setup):
    """Names of the methods in the stored table of a setup."""
    return set(_known(setup)["method"])


def tried_fields(table):
    """The columns of a tuning table that are values of settings."""
    return [name for name in table.columns if name not in ("method", "seeds", "delta")]


def tuning_table(setup):
    """The stored table of a setup for people: the chosen row of each method marked, and those that diverged; empty where a
    method has no such field."""
    table = _known(setup)
    best = table.groupby("method")["delta"].transform("max")
    table["chosen"] = (table["delta"] == best).map({True: "x", False: ""}).where(table["delta"] > -math.inf, "diverged")
    return table.astype(object).fillna("")


def choices_at_an_edge(setup):
    """[(method, field, value)] of the choices that lie at an end of the three or more values tried of a hyperparameter."""
    table, found = _known(setup), []
    for method, rows in table.groupby("method", sort=False):
        for field, value in tuned(setup, method).items():
            tried = rows[field].dropna().unique()
            if len(tried) >= 3 and value in (tried.min(), tried.max()):
                found.append((method, field, value))
    return found


def _known(setup):
    table = read_table(setup)
    if table is None:
        raise ValueError(f"{table_path(_table_name(setup))}: got no file, expected a tuning table: nobody tuned this setup")
    return table

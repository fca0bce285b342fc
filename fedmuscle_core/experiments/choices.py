"""What tuning chose: the tables of `tuned/`, one a setup, that `tuning` writes and settings are made from."""

import pandas as pd

from ..paths import TUNED
from .settings import Settings
from .setups import setup_named


def table_path(setup):
    """Where the tuning table of a setup of that name is."""
    return TUNED / f"{setup}.csv"


def tuned_as(setup):
    """Name of the setup whose tuned values `setup` has: another one's that it names, or its own."""
    setup = setup_named(setup)
    return setup.tuned_as or setup.name


def is_tuned(setup):
    """Whether there is a table for the setup; without one, methods have their defaults."""
    return table_path(tuned_as(setup)).is_file()


def tuned(setup, method, **fixed):
    """{field: value} of the best settings of `method` in the stored table of a setup's name; {} where it was not tuned.

    fixed: values of the run's settings.  Among the rows that have them, where the table tried them: e.g. tau=0.2.
    Raises ValueError for a method that was not tuned beside the others.
    """
    if not table_path(setup).is_file():
        return {}
    scores = pd.read_csv(table_path(setup))
    fields = tried_fields(scores)
    rows = scores[scores["method"] == method]
    if rows.empty:
        known = sorted(scores["method"].unique())
        raise ValueError(f"method: got {method!r}, expected one that was tuned for {setup}: {known}")
    usual = Settings.of(method=method).flat()
    for name in sorted(set(fixed) & set(fields) & set(usual)):
        tried = rows[name].fillna(usual[name]) == fixed[name]
        rows = rows[tried] if tried.any() else rows
    best = rows.loc[rows["delta"].idxmax(), fields].dropna().to_dict()
    whole = {name for name, value in usual.items() if type(value) is int}     # a column with gaps was read as floats
    return {name: int(value) if name in whole else value for name, value in best.items()}


def methods_tried(setup):
    """Names of the methods in the stored table of a setup's name."""
    return set(pd.read_csv(table_path(setup))["method"])


def tried_fields(table):
    """The columns of a tuning table that are values of settings."""
    return [name for name in table.columns if name not in ("method", "seeds", "delta")]


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

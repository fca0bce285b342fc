"""What tuning chose: one table, which `tuning` writes and settings are made from.

Its columns: setup, public_domain (none for methods that read none), method, fields of the settings, seeds, by, what the score
is ("log-odds", or "delta", of older versions), score.  The table that comes with the package is `tuned.csv`; new rows go below
the runs folder, and count first, unless `paths.commits`.  A setup is given, or named; it has the rows of the setup that it is
`tuned_as`.
"""

import math

import pandas as pd

from ..methods import METHODS
from ..paths import TUNED_TABLE, commits, runs
from .settings import Settings
from .setups import SETUPS, setup_named

AT_DEFAULTS = ("paper1", "paper2", "paper_noniid")     # of the setups here, those that nobody tuned
CHOSEN_BY = "log-odds"
ABOUT = ("setup", "public_domain", "method", "seeds", "by", "score")


def path_to_write():
    """Where new rows go."""
    return TUNED_TABLE if commits() else runs("tuned.csv")


def read_all():
    """All rows, those below the runs folder instead of the package's; None where there is no table.  ValueError naming the file
    where it is none."""
    found = [table for path in dict.fromkeys((path_to_write(), TUNED_TABLE)) if (table := read(path)) is not None]
    if len(found) == 2:
        own = set(zip(*(found[0][name].fillna("") for name in ABOUT[:3]), strict=True))
        keys = zip(*(found[1][name].fillna("") for name in ABOUT[:3]), strict=True)
        found[1] = found[1][[key not in own for key in keys]]
    return pd.concat(found, ignore_index=True) if found else None


def read(path):
    """The table in a file, None where there is none; ValueError naming the file where it is no tuning table."""
    if not path.is_file():
        return None
    try:
        table = pd.read_csv(path, dtype={"seeds": str, "public_domain": str})
        if missing := set(ABOUT) - set(table.columns):
            raise ValueError(f"no columns {sorted(missing)}")
        tried = table["score"].astype(float).notna() & table["method"].notna() & table["setup"].notna() & table["seeds"].notna()
        if not len(table) or not tried.all():
            raise ValueError(f"line {2 + tried.argmin() if len(table) else 2}: no setup, method, seeds and score")
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path}: got no tuning table ({type(error).__name__}: {error}); expected columns {', '.join(ABOUT)} "
                         "and fields of settings") from error
    return table


def tuned_as(setup):
    """Name of the setup whose tuned values `setup` has: another one's that it names, or its own."""
    setup = setup_named(setup)
    return setup.tuned_as or setup.name


def domain_of(setup):
    """Public domain of a setup where none is named."""
    return setup_named(setup).settings.get("public_domain", Settings.public_domain)


def is_tuned(setup):
    """Whether there are rows for the setup; without them, methods have their defaults."""
    table = read_all()
    return table is not None and bool((table["setup"] == _table_name(setup)).any())


def _table_name(setup):
    return setup if isinstance(setup, str) and setup not in SETUPS else tuned_as(setup)


def read_table(setup):
    """The rows that a setup has, with the columns that they use; None where nobody tuned it.

    Raises ValueError naming the file where they are gone from the package.
    """
    name, table = _table_name(setup), read_all()
    rows = None if table is None else table[table["setup"] == name]
    if rows is None or rows.empty:
        if name in SETUPS and name not in AT_DEFAULTS:
            raise ValueError(f"{TUNED_TABLE}: got no rows of {name}, expected those that come with the package; "
                             f"`python -m fedmuscle_core.experiments.tuning --setup {name}` makes them anew")
        return None
    used = [column for column in table.columns if column in ABOUT or rows[column].notna().any()]
    return rows[used].reset_index(drop=True)


def tuned(setup, method, **fixed):
    """{field: value} of the best settings of `method` in the rows of a setup; {} where it was not tuned.

    fixed: values of the run's settings.  Among the rows that have them, where any does: of the public domain, and e.g. tau=0.2;
    of those the best that were tried on most seeds.
    Raises ValueError for a method that was not tuned beside the others, or of which all diverged.
    """
    scores = read_table(setup)
    if scores is None:
        return {}
    rows = scores[scores["method"] == method]
    if rows.empty:
        known, name = sorted(scores["method"].unique()), setup if isinstance(setup, str) else setup.name
        raise ValueError(f"method: got {method!r}, expected one that was tuned for {name}: {known}")
    for domain in (fixed.get("public_domain"), *_domains(setup)):
        if (rows["public_domain"] == domain).any():
            rows = rows[rows["public_domain"] == domain]
            break
    fields, usual = tried_fields(scores), Settings.of(method=method).flat()
    for name in sorted(set(fixed) & set(fields) & set(usual)):
        tried = rows[name].fillna(usual[name]) == fixed[name]
        rows = rows[tried] if tried.any() else rows
    rows = on_most_seeds(rows)
    if rows["score"].max() == -math.inf:
        raise ValueError(f"tuned.csv: {method!r} diverged with all settings that were tried for {_table_name(setup)}, expected "
                         "one that did not")
    best = rows.loc[rows["score"].idxmax(), fields].dropna().to_dict()
    whole = {name for name, value in usual.items() if type(value) is int}     # a column with gaps was read as floats
    return {name: int(value) if name in whole else value for name, value in best.items()}


def _domains(setup):
    """Public domains whose rows a setup would have, the likeliest first: its own, that of the setup that it is tuned as."""
    known = [one for one in (setup, _table_name(setup)) if not isinstance(one, str) or one in SETUPS]
    return [domain_of(one) for one in known]


def on_most_seeds(rows):
    """Those of the rows that were tried on most seeds, without those that diverged unless all did."""
    rows = rows[rows["score"] > -math.inf] if (rows["score"] > -math.inf).any() else rows
    counts = rows["seeds"].str.split().str.len()
    return rows[counts == counts.max()]


def methods_tried(setup):
    """Names of the methods in the rows of a setup."""
    return set(_known(setup)["method"])


def tuned_for(setup):
    """[(public domain, names of methods)] that a setup was tuned for, its own domain first, with None: all of its methods."""
    table, own = read_table(setup), domain_of(setup)
    rows = [] if table is None else table[table["public_domain"].notna() & (table["public_domain"] != own)]
    others = {} if table is None else rows.groupby("public_domain")["method"].unique()
    return [(own, None), *((domain, sorted(methods)) for domain, methods in dict(others).items())]


def tried_fields(table):
    """The columns of the table that are values of settings."""
    return [name for name in table.columns if name not in ABOUT]


def tuning_table(setup, public_domain=None):
    """The rows of a setup with a public domain, its own if None, for people: the chosen row of each method marked, and those
    that diverged; empty where a method has no such field."""
    table = _known(setup)
    domains = [public_domain] if public_domain else _domains(setup)[-1:]
    if domains:
        table = table[table["public_domain"].isna() | (table["public_domain"] == domains[0])].reset_index(drop=True)
    chosen = {on_most_seeds(rows)["score"].idxmax() for _, rows in table.groupby("method")}
    table["chosen"] = ["x" if place in chosen else "" for place in table.index]
    table["chosen"] = table["chosen"].where(table["score"] > -math.inf, "diverged")
    return table.drop(columns=["setup", "public_domain", "by"]).astype(object).fillna("")


def choices_at_an_edge(setup):
    """[(method, field, value)] of the choices that lie at an end of the three or more values tried of a hyperparameter."""
    table, found = _known(setup), []
    if domains := _domains(setup):
        table = table[table["public_domain"].isna() | (table["public_domain"] == domains[-1])]
    for method, rows in table.groupby("method", sort=False):
        for field, value in tuned(setup, method).items():
            if field in METHODS[method].tied:
                continue
            tried = rows[field].dropna().unique()
            if len(tried) >= 3 and value in (tried.min(), tried.max()):
                found.append((method, field, value))
    return found


def chosen_table(*setups):
    """What was chosen in each setup, for people, a row a setup and method: method (its label), chosen ("tau = 0.1, ..", with *
    where it lies at an end of what was tried), tuning seeds (on how many), score."""
    rows = []
    for setup in setups:
        table, ends = tuning_table(setup), {(method, field) for method, field, _ in choices_at_an_edge(setup)}
        for row in table[table["chosen"] == "x"].to_dict("records"):
            values = [f"{field} = {row[field]:g}{'*' * ((row['method'], field) in ends)}" for field in tried_fields(table)
                      if field != "chosen" and row[field] != ""]
            rows.append({"setup": setup if isinstance(setup, str) else setup.name, "method": METHODS[row["method"]].label,
                         "chosen": ", ".join(values), "tuning seeds": len(row["seeds"].split()), "score": row["score"]})
    return pd.DataFrame(rows).drop(columns=[] if len(setups) > 1 else "setup")


def _known(setup):
    table = read_table(setup)
    if table is None:
        raise ValueError(f"{TUNED_TABLE}: got no rows of {_table_name(setup)}, expected some: nobody tuned this setup")
    return table

"""All stored runs as tables of competitors, by which the numbers that sum up a federation can be held against one another.

A table is what shares clients, private data, rounds and local passes, and so a Local; a competitor is a method with its
hyperparameters.
"""

import pandas as pd

from ..experiments.choices import tuned
from ..experiments.runs import find
from ..experiments.settings import Settings, field_names
from ..experiments.statistics import NUMBERS, failures, final_scores, flips, overall_numbers, verdict
from ..methods import Local

OWN = ("method", "seed", "local_lr", "local_batch_size", "public_domain", "public_size", "absence", "bad_uploads")


def competitors(wanted):
    """{table: {competitor: [`Settings`, a seed each]}} of a list of `Settings`, those without test samples left out.

    A table is called by its setup and what its runs do not have as the setup does, a competitor by its method's name and what
    the runs of that method in the table differ in.
    """
    tables = {}
    for settings in dict.fromkeys(one.canonical() for one in wanted if one.test_size):
        usual, own = Settings.of(settings.setup, "local").flat(), {*OWN, *field_names(type(settings.method))}
        unusual = [f"{name} {value}" for name, value in settings.flat().items() if name not in own and value != usual[name]]
        methods = tables.setdefault(", ".join([settings.setup.name, *unusual]), {})
        methods.setdefault(settings.method.name, []).append(settings)
    return {name: labelled(methods) for name, methods in tables.items()}


def labelled(methods):
    """{competitor: [`Settings`]} of {method: [`Settings`]}."""
    found = {}
    for method, several in methods.items():
        if method == Local.name:                                              # of several rates the tuned one
            values = tuned(several[0].setup, method)
            several = [one for one in several if values.items() <= one.flat().items()] or several
        flats = [settings.flat() for settings in several]
        differ = [name for name in flats[0] if name != "seed" and len({str(flat[name]) for flat in flats}) > 1]
        for settings, flat in zip(several, flats, strict=True):
            found.setdefault(", ".join([method, *(f"{name} {flat[name]}" for name in differ)]), []).append(settings)
    return found


def stored_numbers(table, folder):
    """`statistics.overall_numbers` of a table's competitors as far as they are stored and came to an end, on the seeds that
    Local has; None without Local or another."""
    scores = {}
    for competitor, several in table.items():
        histories = [found[1] for settings in several if (found := find(settings, folder))]
        if histories and not failures(history := pd.concat(histories)):
            scores[competitor] = final_scores(history).assign(method=competitor)
    if "local" not in scores or len(scores) < 2:
        return None
    every = pd.concat(scores.values(), ignore_index=True)
    return overall_numbers(every[every["seed"].isin(scores["local"]["seed"])])


def disagreements(numbers, first="delta"):
    """{other number: (pairs of competitors that it orders otherwise than `first`, those of them of which both differences are
    shown)}; Local is none.  numbers: as from `overall_numbers`."""
    numbers = numbers[numbers["method"] != "local"]
    found = {other: flips(numbers, first, other) for other in NUMBERS if other != first}
    return {other: (len(rows), sum(shown(row) for row in rows.itertuples())) for other, rows in found.items()}


def shown(row):
    """Whether both differences of a row of `flips` leave out 0."""
    return {verdict(row.first), verdict(row.second)} == {"higher", "lower"}

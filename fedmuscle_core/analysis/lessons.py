"""What a notebook ends with: written sentences whose words follow from the numbers behind them."""

from IPython.display import Markdown

from ..experiments.statistics import EFFECT, verdict
from .tables import interval_text


def says(interval, higher, lower, neither, unit, digits=1):
    """One sentence: `higher` or `lower` where the interval (mean, low, high) leaves out 0 on that side, else `neither`; then
    the numbers with their unit, and, in log-odds, whether they exclude an EFFECT.  None where `interval` is None or its mean is
    nan: there are no such runs, and nothing can be said."""
    if interval is None or interval[0] != interval[0]:
        return None
    found = verdict(interval, EFFECT if "log-odds" in unit else None)
    excluded = {"no difference": f", {EFFECT} is excluded", "too few seeds": f", too few seeds to exclude {EFFECT}"}
    words = {"higher": higher, "lower": lower}.get(found, neither)
    return f"{words} ({interval_text(interval, digits)} {unit}{excluded.get(found, '')})."


def learned(*sentences):
    """Sentences as a list that a notebook shows; those that are None are left out."""
    return Markdown("\n".join(f"- {sentence}" for sentence in sentences if sentence is not None))

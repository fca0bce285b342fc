"""The parameters of notebooks, checked in the first cell after theirs: `check(globals(), "profile", "seeds", "workers")`."""

from ..checks import positive_int
from .profiles import check_profile, profile_seeds

OURS = {"In", "Out", "exit", "quit", "open", "get_ipython"}                    # what IPython puts beside them
MARK = "_parameters_checked"      # names are looked at once: when the cell is run again, there are others beside them
FORMS = {
    "seeds": "a list of different whole numbers: `papermill -y \"seeds: [0, 1]\"`, `fedmuscle reproduce -p seeds \"[0, 1]\"`",
    "workers": "a whole number of at least 1: `-p workers 2`",
    "seed": "a whole number: `-p seed 0`",
}


def check(namespace, *known):
    """ValueError, before anything else runs, for a parameter that the notebook does not know or a value of another form.

    namespace: the notebook's `globals()`, where at the first call nothing but its parameters is defined; known: their names.
    """
    shell = namespace["get_ipython"]() if "get_ipython" in namespace else None
    theirs = OURS | set(getattr(shell, "user_ns_hidden", ()))                 # those of IPython and of its startup files
    given = {name for name in namespace if not name.startswith("_") and name not in theirs}
    if MARK not in namespace and (unknown := sorted(given - set(known) - {"check"})):
        raise ValueError(f"parameters: got unknown {unknown}, expected some of {sorted(known)}")
    for name in known:
        try:
            _rule(name, namespace[name])
        except ValueError as error:
            if name not in FORMS:
                raise
            raise ValueError(f"{name}: got {namespace[name]!r}, expected {FORMS[name]}") from error
    namespace[MARK] = True


def _rule(name, value):
    if name == "profile":
        check_profile(value)
    elif name == "seeds":
        profile_seeds("quick", value)
    elif name == "seed":
        positive_int(name, value, least=0)
    elif name == "workers":
        positive_int(name, value)

"""Parameters of notebooks: what papermill may hand over, and the sentence that names the right form."""

from types import SimpleNamespace

import pytest

from fedmuscle_core.experiments.parameters import check

GOOD = {"profile": "mini", "seeds": [], "workers": 2, "In": [], "_": 1, "get_ipython": print, "check": check}


def test_good_ones_pass():
    check(dict(GOOD), "profile", "seeds", "workers")
    check(GOOD | {"seeds": [3, 4]}, "profile", "seeds", "workers")
    check({"profile": "quick", "seed": 0}, "profile", "seed")
    shell = SimpleNamespace(user_ns_hidden={"np": 1})                                  # of a startup file
    check({"profile": "quick", "np": 1, "get_ipython": lambda: shell}, "profile")


def test_the_cell_may_be_run_again_when_others_have_defined_names():
    notebook = dict(GOOD)
    check(notebook, "profile", "seeds", "workers")
    notebook |= {"np": 1, "workers": 3}
    check(notebook, "profile", "seeds", "workers")
    with pytest.raises(ValueError, match="workers: got 0"):
        check(notebook | {"workers": 0}, "profile", "seeds", "workers")


@pytest.mark.parametrize(("changes", "message"), [
    ({"seeds": "[0,1]"}, r"seeds: got '\[0,1\]', expected a list of different whole numbers: `papermill -y"),
    ({"seeds": 3}, "seeds: got 3, expected a list of different whole numbers"),
    ({"seeds": [1, 1]}, r"seeds: got \[1, 1\], expected a list of different"),
    ({"seeds": [0.5]}, r"seeds: got \[0.5\]"),
    ({"workers": "two"}, "workers: got 'two', expected a whole number of at least 1"),
    ({"workers": 0}, "workers: got 0"), ({"profile": "small"}, "profile: got 'small', expected one of"),
    ({"seedz": [1]}, r"parameters: got unknown \['seedz'\], expected some of \['profile', 'seeds', 'workers'\]"),
])
def test_others_are_refused_with_the_right_form(changes, message):
    with pytest.raises(ValueError, match=message):
        check(GOOD | changes, "profile", "seeds", "workers")


def test_a_seed_is_a_whole_number():
    with pytest.raises(ValueError, match="seed: got 'one', expected a whole number: `-p seed 0`"):
        check({"seed": "one"}, "seed")

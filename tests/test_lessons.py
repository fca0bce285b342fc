"""Sentences at the end of a notebook: their words follow from the numbers."""

import pytest

from fedmuscle_core.analysis import lessons

WORDS = ("It helps", "It harms", "Not shown to help")


@pytest.mark.parametrize(("interval", "sentence"), [
    ((5.04, 1.0, 9.0), "It helps (+5.0 [+1.0, +9.0] %)."), ((-5.0, -9.0, -1.0), "It harms (-5.0 [-9.0, -1.0] %)."),
    ((5.0, -1.0, 11.0), "Not shown to help (+5.0 [-1.0, +11.0] %)."),
    ((5.0, float("nan"), float("nan")), "Not shown to help (+5.0 %)."),                # one seed has no interval
])
def test_words_follow_from_the_interval(interval, sentence):
    assert lessons.says(interval, *WORDS, "%") == sentence


def test_in_log_odds_it_is_said_whether_an_effect_is_excluded():
    for interval, end in (((0.0, -0.05, 0.05), ", 0.1 is excluded)."), ((0.0, -0.2, 0.2), ", too few seeds to exclude 0.1)."),
                          ((0.3, 0.1, 0.5), "+0.50] in log-odds).")):
        assert lessons.says(interval, *WORDS, "in log-odds", 2).endswith(end)


def test_what_was_not_run_is_left_out():
    assert lessons.says(None, *WORDS, "%") is None and lessons.says((float("nan"),) * 3, *WORDS, "%") is None
    assert lessons.learned("One.", None, "Two.").data == "- One.\n- Two."

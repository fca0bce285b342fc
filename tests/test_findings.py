"""Sentences of the page of results follow from what was measured."""

import pytest

from fedmuscle_core.analysis import findings


@pytest.mark.parametrize(("times", "verdict"), [(1.3, "is not reached"), (2.1, "is reached")])
def test_the_goal_of_twice_as_fast_is_said_as_it_was_measured(times, verdict):
    text = findings.setup_run_sentence({
        "seconds": {"as it is": [(5.0, 4.0), (6.0, 4.5), (7.0, 5.0)]}, "share_of_passes": 0.8,
        "ratios": {"as it is": 1.0, "images in the usual format": times, "private sets as before 0.8": 3.0}})
    assert "takes 6.0 s" in text and f"the goal, {verdict}: 80 % of a round" in text and "make it 1.25 times faster" in text
    assert f"images in the usual format {times:.2f} times as long; private sets as before 0.8 3.00 times" in text


def test_hours_of_runs_are_added_up(tmp_path):
    for name, seconds in (("one", (3600, 1800)), ("other", (1800,))):
        (tmp_path / f"{name}.jsonl").write_text("".join(f'{{"wall_seconds": {value}}}\n' for value in seconds))
    assert findings.hours_stored(tmp_path) == 2

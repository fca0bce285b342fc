"""Two processes at the same work: nothing is torn or lost, and the results are those of one."""

import random
import signal
import time

import nbformat
from faults.children import forked, script
from faults.notebooks import PRINTS
from faults.small_runs import SEED, WANTED, contents, stored_lines
from faults.test_kills import sweep_in_child

from fedmuscle_core.experiments.store import stored_runs


def test_two_sweeps_of_the_same_runs_at_once(tmp_path, folder, reference, told, fault):
    """They begin together, keep states of the same runs, and each may be the first to store one."""
    for number in range(3):
        place = folder / str(number)
        place.mkdir()
        with fault("two processes: sweep", number):
            children = [forked(tmp_path / f"said{number}-{one}", sweep_in_child, place, 0.003 * one) for one in range(2)]
            assert [child.wait() for child in children] == [0, 0], [child.said() for child in children]
            assert contents(place, WANTED) == reference and len(stored_runs(place)) == len(WANTED)
            assert len(stored_lines(place)) <= 2 * len(WANTED)
            assert sorted(path.name for path in place.iterdir() if path.suffix != ".lock") == ["small.jsonl"]


def test_one_of_two_sweeps_of_the_same_runs_is_killed(tmp_path, folder, reference, told, fault):
    moments = random.Random(SEED)
    for number in range(3):
        place, moment = folder / str(number), moments.uniform(0, 0.5)
        place.mkdir()
        with fault("two processes: one of two sweeps is killed", f"{moment:.2f} s"):
            killed, other = (forked(tmp_path / f"said{number}-{one}", sweep_in_child, place, 0.003) for one in range(2))
            time.sleep(moment)
            killed.send(signal.SIGKILL)
            killed.wait()
            assert other.wait() == 0, other.said()
            assert contents(place, WANTED) == reference


def test_two_reproduce_at_once(tmp_path, folder, reference, told, fault):
    (folder / "90_first.py").write_text(PRINTS)
    with fault("two processes: reproduce"):
        runs = str(tmp_path / "runs")
        children = [script(tmp_path / f"said{number}", "fedmuscle", folder, "reproduce", "--only", "90", FEDMUSCLE_RUNS=runs)
                    for number in range(2)]
        assert [child.wait(300) for child in children] == [0, 0], [child.said() for child in children]
        made = tmp_path / "runs" / "quick"
        assert contents(made / "results", WANTED) == reference
        assert nbformat.read(made / "90_first.ipynb", 4).cells[-1].outputs[0].text == "quick\n"
        left = {path.name for path in made.rglob("*") if path.is_file() and path.suffix != ".lock"}
        assert left == {"90_first.ipynb", "small.jsonl"}

"""kill -9 loses no finished run, at most one round of the others, and the results are those of an undisturbed run."""

import random
import re
import signal
import time
import warnings

import nbformat
import psutil
import pytest
from faults.children import cut_off, forked, killed_at, script
from faults.notebooks import WAITS
from faults.small_runs import SEED, WANTED, contents, settings, stored_lines, tune, use

from fedmuscle_core.experiments.runs import run, sweep


def sweep_in_child(folder, slow=0.0, every=0.0):
    use(told=print, slow=slow, every=every)
    sweep(WANTED, folder, progress=False)


def check_survived(one, folder, said, told, reference, wanted=WANTED, repeated=1):
    """A sweep of `folder` after the fault `one` keeps what is there, computes at most `repeated` finished rounds again and ends
    with the results of `reference`.

    said: what the killed process told; told: what this process tells."""
    before = stored_lines(folder)
    done = {tuple(line.split()) for line in said.splitlines() if re.fullmatch(r"\S+-seed\d (\d+|stored)", line)}
    finished = [run for run, what in done if what == "stored"]
    one.lost_runs = len([run for run in finished if not any(f'"run":"{run}"' in line for line in before)])
    told.clear()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        sweep(wanted, folder, progress=False)
    assert all(str(folder) in str(each.message) for each in warned)
    assert stored_lines(folder)[:len(before)] == before and len(stored_lines(folder)) == len(wanted)
    one.repeated_rounds = len(done & {tuple(text.split()) for text in told})
    assert contents(folder, wanted) == reference and one.lost_runs == 0 and one.repeated_rounds <= repeated


def until_not_killed(tmp_path, function, points=None):
    """(point, folder, what it said) of children that are killed at the first, second, .. change of a file, or at the `points`
    of them, until one comes through."""
    for number in points or range(1, 10 ** 6):
        place = tmp_path / f"point{number}"
        place.mkdir()
        child = forked(tmp_path / f"said{number}", killed_at, number, place, function, place)
        code = child.wait()
        assert code in (0, -signal.SIGKILL), child.said()
        if code == 0:
            return
        yield number, place, child.said()


def test_a_sweep_may_be_killed_at_every_change_of_a_file(tmp_path, told, reference, fault):
    number = 0
    for number, place, said in until_not_killed(tmp_path, sweep_in_child):
        with fault("kill -9 at a change of a file: sweep", number) as one:
            check_survived(one, place, said, told, reference)
    assert number > 20


@pytest.mark.parametrize("every", [0.0, 1e9], ids=["state", "stored line"])
def test_a_sweep_may_be_killed_in_the_middle_of_a_write(tmp_path, told, undisturbed, reference, fault, every):
    """No file becomes larger than `size`, then the kernel ends the process.  States are several times as large as all lines."""
    for size in random.Random(SEED).sample(range(1, undisturbed.stat().st_size - 100), 8):
        place = tmp_path / str(size)
        place.mkdir()
        child = forked(tmp_path / f"said{size}", cut_off, size, sweep_in_child, place, 0.0, every)
        assert child.wait() == -signal.SIGXFSZ, child.said()
        with fault("kill in the middle of a write: sweep", size) as one:
            check_survived(one, place, child.said(), told, reference, repeated=1 if every == 0 else 9)


def test_a_sweep_may_be_killed_at_any_moment(tmp_path, told, reference, fault):
    moments = random.Random(SEED)
    began = time.perf_counter()
    assert forked(tmp_path / "whole", sweep_in_child, tmp_path / "undisturbed", 0.01).wait() == 0
    duration = time.perf_counter() - began
    for number in range(8):
        place, moment = tmp_path / str(number), moments.uniform(0, duration)
        place.mkdir()
        child = forked(tmp_path / f"said{number}", sweep_in_child, place, 0.01)
        time.sleep(moment)
        child.send(signal.SIGKILL)
        child.wait()
        with fault("kill -9 at any moment: sweep", f"{moment:.2f} of {duration:.2f} s") as one:
            check_survived(one, place, child.said(), told, reference)


def test_a_run_killed_again_and_again_comes_to_its_end(tmp_path, folder, told, reference, fault):
    """Each process gets as far as its twelfth change of a file: six of them tell whether it may write at all."""
    code, kills, said = None, 0, ""
    while code != 0:
        assert kills < 30, "no progress"
        child = forked(tmp_path / f"said{kills}", killed_at, 12, folder, sweep_in_child, folder)
        code, said = child.wait(), said + child.said()
        kills += 1
        with fault("kill -9 again and again: sweep", kills):
            assert code in (0, -signal.SIGKILL), child.said()
    assert kills > 4 and contents(folder, WANTED) == reference


def test_a_tuning_may_be_killed(tmp_path, told, fault, monkeypatch):
    expected = tune(tmp_path / "undisturbed", monkeypatch.setattr)
    lines = stored_lines(tmp_path / "undisturbed" / "tuning")
    points = [1, *random.Random(SEED).sample(range(2, 5 * len(lines)), 4), 5 * len(lines), 10 ** 6]
    for number, place, said in until_not_killed(tmp_path, lambda place: (use(told=print), tune(place)), points):
        with fault("kill -9 at a change of a file: tuning", number) as one:
            before = stored_lines(place / "tuning")
            finished = [line.removesuffix(" stored") for line in said.split("\n") if line.endswith(" stored")]
            one.lost_runs = len([run for run in finished if not any(f'"run":"{run}"' in line for line in before)])
            assert not (place / "tuned.csv").exists()
            assert tune(place, monkeypatch.setattr) == expected and one.lost_runs == 0
            assert stored_lines(place / "tuning")[:len(before)] == before
            assert len(stored_lines(place / "tuning")) == len(lines)


def test_a_run_with_parked_clients_may_be_killed(tmp_path, told, fault):
    """It begins anew, whatever it left in the folder."""
    wanted = settings("fedmuscle", refresh="round", rounds=2)
    run(wanted, tmp_path / "undisturbed", progress=False)
    expected = contents(tmp_path / "undisturbed", [wanted])

    def parked(place):
        use(told=print)
        run(wanted, place, progress=False, parked=place / "clients")

    points = [*random.Random(SEED).sample(range(1, 60), 8), 10 ** 6]
    for number, place, said in until_not_killed(tmp_path, parked, points):
        with fault("kill -9 at a change of a file: parked clients", number) as one:
            told.clear()
            run(wanted, place, progress=False, parked=place / "clients")
            one.repeated_rounds = len({text for text in said.split("\n") if text[-1:].isdigit()} & set(told))
            assert contents(place, [wanted]) == expected


def test_a_sweep_of_two_workers_may_be_killed_and_so_may_a_worker(tmp_path, folder, told, reference, fault):
    """First the sweep, then one of its workers, each at a moment after the first round that they play."""
    moments = random.Random(SEED)
    for victim in ("sweep", "worker"):
        place = folder / victim
        child = script(tmp_path / victim, "sweep", place, 2, slow=0.05)
        child.wait_for("-seed0 1")
        family, moment = child.family(), moments.uniform(0, 1)
        time.sleep(moment)
        with fault(f"kill -9 at any moment: {victim} of two workers", f"{moment:.2f} s") as one:
            if victim == "sweep":
                child.send(signal.SIGKILL)
            else:
                next(worker for worker in family if "spawn_main" in " ".join(worker.cmdline())).kill()
            code, (_, alive) = child.wait(), psutil.wait_procs(family, timeout=60)
            assert len(family) >= 2 and not alive
            if victim == "worker" and code == 0:                              # it had nothing to do
                assert contents(place, WANTED) == reference
            elif victim == "worker":
                assert code == 1 and re.search(r"1 of \d runs failed \(small .* seed \d", child.said()), child.said()
            check_survived(one, place, child.said(), told, reference, repeated=2)


def at_a_notebook(tmp_path, folder):
    """`fedmuscle reproduce` in the midst of a notebook's cell."""
    (folder / "91_second.py").write_text(WAITS)
    runs = tmp_path / "runs"
    child = script(tmp_path / "said", "fedmuscle", folder, "reproduce", FEDMUSCLE_RUNS=str(runs))
    child.until(lambda: (folder / "process").exists() or child.ended(), 120)
    return child


def check_given_again(tmp_path, folder):
    """There is no half of the notebook, and the next `fedmuscle reproduce` gives it whole."""
    runs = tmp_path / "runs"
    assert not list((runs / "quick").glob("*.ipynb"))
    (folder / "go").touch()
    again = script(tmp_path / "again", "fedmuscle", folder, "reproduce", FEDMUSCLE_RUNS=str(runs))
    assert again.wait() == 0, again.said()
    assert nbformat.read(runs / "quick" / "91_second.ipynb", 4).cells[2].outputs[0].text == "quick\n"


def test_reproduce_may_be_killed_while_a_notebook_runs(tmp_path, folder, fault):
    """Its kernel notices and ends; the next one gives the notebook whole."""
    child = at_a_notebook(tmp_path, folder)
    with fault("kill -9: reproduce, a notebook"):
        family = child.family()
        assert family
        child.send(signal.SIGKILL)
        child.wait()
        (folder / "go").touch()                                               # a cell under way comes to its end
        assert not psutil.wait_procs(family, timeout=60)[1]
        check_given_again(tmp_path, folder)

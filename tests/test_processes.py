"""Jobs in processes: the same answers with any number of workers, none lost."""

import operator
import os
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import pytest

from fedmuscle_core.experiments import processes
from fedmuscle_core.experiments.processes import in_processes


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_answered_whatever_the_number_of_workers(workers):
    jobs = [(number, 2) for number in range(6)]
    assert sorted(in_processes(operator.pow, jobs, workers)) == [(job, job[0] ** 2) for job in jobs]
    here = [process == os.getpid() for _, process in in_processes(os.getpid, [()] * 3, workers)]
    assert here == [workers == 1] * 3


def test_a_killed_worker_costs_the_jobs_under_way_alone():
    jobs = [(f"{number}; import time; time.sleep(0.1)",) for number in range(5)]
    jobs.insert(1, ("import os; os._exit(1)",))
    found = dict(in_processes(exec, jobs, 2))
    lost = [job for job, result in found.items() if result is not None]
    assert set(found) == set(jobs) and jobs[1] in lost and len(lost) <= 2
    assert all(isinstance(found[job], BrokenProcessPool) for job in lost)


def test_a_worker_killed_between_two_jobs_costs_none(monkeypatch):
    pools = []

    class Breaks(ProcessPoolExecutor):
        """Whose first submit finds it broken."""

        def submit(self, *arguments):
            pools.append(self)
            if len(pools) == 1:
                raise BrokenProcessPool("a worker is gone")
            return super().submit(*arguments)

    monkeypatch.setattr(processes, "ProcessPoolExecutor", Breaks)
    jobs = [(number, 2) for number in range(3)]
    assert sorted(in_processes(operator.pow, jobs, 2)) == [(job, job[0] ** 2) for job in jobs] and len(set(pools)) == 2


def test_after_an_interrupt_no_other_job_is_started(tmp_path):
    jobs = [(f"open({str(tmp_path / str(number))!r}, 'w').close()",) for number in range(12)]
    running = in_processes(exec, jobs, 2)
    next(running)
    running.close()
    assert 1 <= len(list(tmp_path.iterdir())) <= 2


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_reaches_the_caller(workers):
    with pytest.raises(ZeroDivisionError):
        list(in_processes(operator.truediv, [(1, 0)], workers))

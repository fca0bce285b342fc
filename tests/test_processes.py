"""Jobs in processes: the same answers with any number of workers, none lost."""

import operator
import os

import pytest

from fedmuscle_core.processes import in_processes


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_answered_whatever_the_number_of_workers(workers):
    jobs = [(number, 2) for number in range(6)]
    assert sorted(in_processes(operator.pow, jobs, workers)) == [(job, job[0] ** 2) for job in jobs]
    here = [process == os.getpid() for _, process in in_processes(os.getpid, [()] * 3, workers)]
    assert here == [workers == 1] * 3


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_reaches_the_caller(workers):
    with pytest.raises(ZeroDivisionError):
        list(in_processes(operator.truediv, [(1, 0)], workers))

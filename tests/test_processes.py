"""Jobs in processes: the same answers with any number of workers, none lost, no process left behind."""

import operator
import os
import signal
import subprocess
import sys
import threading
import time

import nbformat
import psutil
import pytest
from jupyter_client.manager import KernelManager

from fedmuscle_core.experiments.processes import GRACE, LIMIT, in_processes, tell

SOON = 15        # seconds: three times what it takes at most where the machine has nothing else to do
ENDLESS = "import pathlib; pathlib.Path({!r}).touch()\nwhile True: pass"


def test_workers_end_before_the_command_does_and_it_within_five_seconds():
    assert 0 < GRACE < LIMIT < 5


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_answered_whatever_the_number_of_workers(workers):
    jobs = [(number, 2) for number in range(6)]
    assert sorted(in_processes(operator.pow, jobs, workers)) == [(job, job[0] ** 2) for job in jobs]
    here = [process == os.getpid() for _, process in in_processes(os.getpid, [()] * 3, workers)]
    assert here == [workers == 1] * 3


def test_a_killed_worker_costs_its_own_job_alone_and_its_end_is_said():
    ends = {"os._exit(7)": "exit status 7", "os.kill(os.getpid(), 15)": "exit status 1",
            "os.kill(os.getpid(), 9)": "killed by SIGKILL; if memory ran out, take fewer workers"}
    killed = {(f"import os; {code}",): said for code, said in ends.items()}
    jobs = [(f"{number}; import time; time.sleep(0.1)",) for number in range(4)]
    found = dict(in_processes(exec, [jobs[0], *killed, *jobs[1:]], 2))
    assert set(found) == {*jobs, *killed} and all(found[job] is None for job in jobs)
    assert all(isinstance(found[job], RuntimeError) and said in str(found[job]) for job, said in killed.items())


def told_twice(number):
    tell(number)
    tell(-number)
    return number


@pytest.mark.parametrize("workers", [1, 2])
def test_jobs_tell_how_they_go_while_they_are_under_way(workers):
    heard = []
    jobs = [(1,), (2,), (3,)]
    assert sorted(in_processes(told_twice, jobs, workers, heard.append)) == [(job, *job) for job in jobs]
    assert sorted(heard) == [-3, -2, -1, 1, 2, 3]
    assert len(list(in_processes(told_twice, jobs, workers))) == 3                     # nobody listens
    tell(1)


def test_a_worker_killed_between_two_jobs_costs_none():
    seen = []
    for _, worker in in_processes(os.getpid, [()] * 5, 2):
        psutil.Process(worker).kill()
        psutil.Process(worker).wait()
        seen.append(worker)
    assert len(seen) == len(set(seen)) == 5


STUBBORN = """
class Stubborn(Exception):
    def __init__(self, text, *, code):
        super().__init__(text)
"""


def test_an_error_reaches_the_caller_also_one_that_cannot_be_pickled(tmp_path, monkeypatch):
    for workers in (1, 2):
        with pytest.raises(ZeroDivisionError):
            list(in_processes(operator.truediv, [(1, 0)], workers))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stubborn.py").write_text(STUBBORN)
    with pytest.raises(RuntimeError, match="Stubborn: no"):
        list(in_processes(exec, [("import stubborn; raise stubborn.Stubborn('no', code=1)",)], 2))


def wait_until(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "did not happen"
        time.sleep(0.02)


def test_an_interrupt_ends_the_jobs_under_way_and_starts_no_other(tmp_path):
    """As in a notebook, whose process goes on."""
    paths, before = [tmp_path / str(number) for number in range(6)], psutil.Process().children()
    began = []

    def interrupt():
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        began.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        list(in_processes(exec, [(ENDLESS.format(str(path)),) for path in paths], 2))
    assert time.monotonic() - began[0] < SOON and len(list(tmp_path.iterdir())) == 2
    thread.join()
    left = [child for child in psutil.Process().children() if child not in before]
    assert all("resource_tracker" in " ".join(child.cmdline()) for child in left)
    assert dict(in_processes(operator.neg, [(1,), (2,)], 2)) == {(1,): -1, (2,): -2}


STOPPED = """
import sys
from pathlib import Path
from fedmuscle_core.experiments.processes import in_processes, stoppable
if __name__ == "__main__":
    function, jobs = {job}
    with stoppable("all is kept"):
        Path({ready!r}).touch()
        list(in_processes(function, jobs, {workers}))
"""


def stop(tmp_path, job, workers, ready, number):
    """(exit status, stderr, seconds, processes that are left) of a script that runs `job`, (function, jobs) as code, and gets
    the signal as from a terminal, it and its workers, once the files `ready` are there."""
    script, begun = tmp_path / "script.py", tmp_path / "begun"
    script.write_text(STOPPED.format(job=job, workers=workers, ready=str(begun)))
    process = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: all(path.exists() for path in [begun, *ready]))
    family = psutil.Process(process.pid).children(recursive=True)
    clock = time.monotonic()
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    seconds = time.monotonic() - clock
    return process.returncode, err, seconds, psutil.wait_procs(family, timeout=60)[1]


@pytest.mark.parametrize(("workers", "number", "status"), [(1, signal.SIGINT, 130), (2, signal.SIGINT, 130),
                                                           (2, signal.SIGTERM, 143)])
def test_a_stopped_command_says_one_sentence_and_leaves_no_process(tmp_path, workers, number, status):
    paths = [tmp_path / str(each) for each in range(workers)]
    jobs = [(ENDLESS.format(str(path)),) for path in paths]
    code, err, seconds, left = stop(tmp_path, f"exec, {jobs!r}", workers, paths, number)
    assert (code, err.strip(), left) == (status, "fedmuscle: stopped; all is kept", []) and seconds < SOON


def test_a_command_stopped_while_its_workers_start_says_no_more(tmp_path):
    code, err, _, left = stop(tmp_path, "exec, [('pass',)] * 9999", 4, [], signal.SIGINT)
    assert (code, err.strip(), left) == (130, "fedmuscle: stopped; all is kept", [])


@pytest.mark.parametrize("workers", [1, 2])
def test_stopped_notebooks_leave_no_kernel(tmp_path, workers):
    """Also a kernel that is in the midst of a cell, and what that cell has started in processes."""
    jobs, ready = [], [tmp_path / f"inner{number}" for number in range(2)]
    inner = [(ENDLESS.format(str(path)),) for path in ready]
    cell = f"from fedmuscle_core.experiments.processes import in_processes\nlist(in_processes(exec, {inner!r}, 2))"
    for number in range(workers):
        path = tmp_path / f"{number}.ipynb"
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
        nbformat.write(notebook, path)
        jobs.append((path, tmp_path / f"{number}.executed.ipynb", tmp_path, {}))
    job = f"__import__('fedmuscle_core.commands.kernels', fromlist=['execute']).execute, [{', '.join(map(code_of, jobs))}]"
    code, err, seconds, left = stop(tmp_path, job, workers, ready, signal.SIGINT)
    assert (code, left) == (130, []) and seconds < SOON
    assert err.splitlines().count("fedmuscle: stopped; all is kept") == 1 and "Traceback" not in err, err


def code_of(job):
    *paths, values = job
    return f"({', '.join(f'Path({str(path)!r})' for path in paths)}, {values!r})"


def test_an_interrupted_kernel_can_be_used_on(tmp_path):
    paths = [tmp_path / str(number) for number in range(2)]
    jobs = [(ENDLESS.format(str(path)),) for path in paths]
    manager = KernelManager(kernel_name="python3", transport="ipc", connection_file=str(tmp_path / "kernel.json"))
    manager.start_kernel()
    client = manager.blocking_client()
    try:
        client.start_channels()
        client.wait_for_ready(timeout=60)
        asked = client.execute("import psutil\nfrom fedmuscle_core.experiments.processes import in_processes\n"
                               f"for found in in_processes(exec, {jobs!r}, 2): pass", stop_on_error=False)
        wait_until(lambda: all(path.exists() for path in paths))
        clock = time.monotonic()
        manager.interrupt_kernel()
        while (reply := client.get_shell_msg(timeout=60))["parent_header"]["msg_id"] != asked:
            pass
        assert reply["content"]["ename"] == "KeyboardInterrupt" and time.monotonic() - clock < SOON
        code = "[' '.join(child.cmdline()) for child in psutil.Process().children()]"
        reply = client.execute_interactive("pass", user_expressions={"left": code}, timeout=60)["content"]
        assert reply["user_expressions"]["left"]["data"]["text/plain"].count("spawn_main") == 0
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

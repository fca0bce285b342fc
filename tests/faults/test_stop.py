"""Ctrl-C, SIGTERM and a kernel's interrupt end everything without waiting for runs under way, in one sentence, and what is
finished is kept.

Runs under way would take minutes: each of their messages takes one.
"""

import os
import random
import shutil
import signal
import socket
import time

import psutil
import pytest
from faults.children import TESTS, forked, script
from faults.notebooks import WAITS
from faults.small_runs import SEED, WANTED, contents, stored_lines
from faults.test_kills import at_a_notebook, check_given_again, check_survived, sweep_in_child
from jupyter_client.manager import KernelManager

PATIENCE = 45     # seconds: ten times what is usual on a machine that is busy, far less than a run takes
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
SOON = 15      # seconds, beside other tests


def check_stopped(child, number):
    """A child that gets a signal, SIGINT with all its processes as from a terminal, ends in time with all of them, and says
    one sentence."""
    family, began = child.family(), time.monotonic()
    os.killpg(child.pid, number) if number == signal.SIGINT else child.send(number)
    code = child.wait(PATIENCE)
    _, alive = psutil.wait_procs(family, timeout=max(1, PATIENCE - (time.monotonic() - began)))
    assert not alive, [process.cmdline() for process in alive]
    said = [line for line in child.said().splitlines() if line.startswith("fedmuscle: ")]
    assert code == STATUS[number] and len(said) == 1 and "stopped; " in said[0], child.said()
    assert "Traceback" not in child.said(), child.said()


@pytest.mark.parametrize("number", STATUS, ids=["SIGINT", "SIGTERM"])
def test_a_sweep_may_be_stopped_at_any_moment(tmp_path, told, reference, fault, number):
    moments = random.Random(SEED)
    for count in range(5):
        place, moment = tmp_path / f"{number}-{count}", moments.uniform(0, 1.2)
        place.mkdir()
        child = forked(place.with_suffix(".said"), sweep_in_child, place, 0.01)
        time.sleep(moment)
        child.send(number)
        with fault(f"{number.name} at any moment: sweep", f"{moment:.2f} s") as one:
            assert child.wait(PATIENCE) in (0, 1, -number)
            check_survived(one, place, child.said(), told, reference)


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 1), (signal.SIGINT, 2)],
                         ids=["SIGTERM", "SIGINT with two workers"])
def test_reproduce_may_be_stopped_while_runs_are_computed(tmp_path, folder, undisturbed, told, reference, fault, number,
                                                          workers):
    """One run is stored, two are under way or about to be."""
    for name in ("90_first.py", "91_second.py"):
        (folder / name).write_text(WAITS)
    results = tmp_path / "runs" / "quick" / "results"
    results.mkdir(parents=True)
    (results / "small.jsonl").write_text(undisturbed.read_text().split("\n")[0] + "\n")
    child = script(tmp_path / "said", "fedmuscle", folder, "reproduce", "--workers", workers, slow=60,
                   FEDMUSCLE_RUNS=str(tmp_path / "runs"))
    child.wait_for(" begins")
    with fault(f"{number.name}: reproduce, runs") as one:
        check_stopped(child, number)
        check_survived(one, results, child.said(), told, reference)


def test_reproduce_may_be_stopped_while_a_notebook_runs(tmp_path, folder, fault):
    child = at_a_notebook(tmp_path, folder)
    with fault("SIGINT: reproduce, a notebook"):
        check_stopped(child, signal.SIGINT)
        check_given_again(tmp_path, folder)


def test_tuning_may_be_stopped(tmp_path, folder, fault):
    child = script(tmp_path / "said", "tune", folder, slow=60)
    child.wait_for(" begins")
    with fault("SIGINT: tuning"):
        check_stopped(child, signal.SIGINT)
        assert not list(folder.glob("*.csv"))


def test_verifying_may_be_stopped(tmp_path, folder, undisturbed, fault):
    results = tmp_path / "runs" / "quick" / "results"
    results.mkdir(parents=True)
    shutil.copy(undisturbed, results)
    child = script(tmp_path / "said", "fedmuscle", folder, "verify", "--profile", "quick", slow=60,
                   FEDMUSCLE_RUNS=str(tmp_path / "runs"))
    child.wait_for(" begins")
    with fault("SIGTERM: verify"):
        check_stopped(child, signal.SIGTERM)
        assert (results / "small.jsonl").read_bytes() == undisturbed.read_bytes()


def test_a_download_may_be_stopped(tmp_path, folder, fault):
    """Of a server that takes the question and does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        child = script(tmp_path / "said", "fedmuscle", folder, "data", "fetch", "--yes", "remote", FEDMUSCLE_DATA=str(tmp_path),
                       FAULTS_URL=f"http://127.0.0.1:{server.getsockname()[1]}/a.zip")
        server.settimeout(120)
        with server.accept()[0], fault("SIGINT: data fetch"):
            check_stopped(child, signal.SIGINT)


def printed(client, asked):
    """What a cell printed, until it ended."""
    while (message := client.get_iopub_msg(timeout=60))["content"].get("execution_state") != "idle" or (
            message["parent_header"]["msg_id"] != asked):
        if message["msg_type"] == "stream" and message["parent_header"]["msg_id"] == asked:
            yield message


def test_a_sweep_in_a_kernel_may_be_interrupted_and_goes_on_there(tmp_path, folder, reference, fault):
    manager = KernelManager(kernel_name="python3", transport="ipc", connection_file=str(tmp_path / "kernel.json"))
    manager.start_kernel(env=os.environ | {"PYTHONPATH": str(TESTS)})
    client = manager.blocking_client()
    client.start_channels()
    code = f"from faults import scripts, small_runs\nsmall_runs.use(slow=0.2)\nscripts.sweep_into({str(folder)!r}, 1)"
    try:
        client.wait_for_ready(timeout=120)
        for kind in ("error", "ok"):
            asked = client.execute(code, stop_on_error=False)
            end = time.monotonic() + 120
            while kind == "error" and not list(folder.glob("*.state.pt")):
                assert time.monotonic() < end, "nothing was computed"
                time.sleep(0.02)
            with fault(f"interrupted kernel: {'stops' if kind == 'error' else 'goes on'}"):
                if kind == "error":
                    manager.interrupt_kernel()
                begun = time.monotonic()
                while (reply := client.get_shell_msg(timeout=120))["parent_header"]["msg_id"] != asked:
                    pass
                assert reply["content"]["status"] == kind, reply["content"]
                assert kind == "ok" or reply["content"]["ename"] == "KeyboardInterrupt" and time.monotonic() - begun < SOON
                text = "".join(message["content"]["text"] for message in printed(client, asked))
                assert ("runs are stored in" in text and "run this again, and it goes on" in text) == (kind == "error")
            code = code.replace("slow=0.2", "slow=0.0")
        assert contents(folder, WANTED) == reference and len(stored_lines(folder)) == len(WANTED)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)

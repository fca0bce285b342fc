"""What `fedmuscle flower init` writes, played on this machine: a SuperLink and three SuperNodes, TLS, a key each.  Run by `make
test-flower`; skipped without the extra [flower]."""

import importlib.util
import os

import pandas as pd
import psutil
import pytest

pytest.importorskip("flwr", reason="the extra [flower] is not installed")

from fedmuscle_core.benchmarks.deployment import Deployment, free_ports  # noqa: E402
from fedmuscle_core.engines.flower.init import node_key, write  # noqa: E402
from fedmuscle_core.experiments.runs import one_thread  # noqa: E402

HEARTBEAT = """import flwr.common.constant
flwr.common.constant.HEARTBEAT_DEFAULT_INTERVAL = 10    # not 30: a node that was killed counts as there for two of them
"""
LONG = 400           # seconds that a busy machine may need for what takes a quiet one twenty


@pytest.fixture(scope="module")
def deployment(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deployment") / "d"
    (folder.parent / "quick").mkdir()
    (folder.parent / "quick" / "sitecustomize.py").write_text(HEARTBEAT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder.parent / "quick"))
        with Deployment(folder) as found:
            yield found


@pytest.fixture(scope="module")
def app(deployment):
    """The app as a module of this process."""
    spec = importlib.util.spec_from_file_location("federated", deployment.folder / "app" / "federated.py")
    module = importlib.util.module_from_spec(spec)
    with one_thread():
        spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def again(deployment):
    """(history, events) of a run whose client ben is killed in the middle of the message of round 1, and started again."""
    deployment.play("again", 2, LONG)
    deployment.wait_for("asked", 5, "ben", LONG)
    deployment.kill("ben")
    deployment.start_node("ben")
    return deployment.played(LONG), deployment.events()


def test_a_node_killed_and_started_again_in_time_changes_no_bit(again, app):
    history, events = again
    with one_thread():
        whole = app.federation([app.client(name) for name in app.CLIENTS]).fit(2, progress=False)
    pd.testing.assert_frame_equal(history, whole, check_exact=True)
    assert list(events.query("client == 'ben' and message == 5")["event"]) == ["asked", "asked", "answered"]
    assert list(events.query("client == 'anna' and message == 5")["event"]) == ["asked", "answered"]
    assert set(events["event"]) == {"there", "asked", "answered"}


def test_a_node_that_stays_away_is_absent_by_name_and_takes_part_again_when_it_is_back(deployment, again):
    times = again[1].query("message not in (0, 5)").groupby("message")["time"]
    deployment.play("absent", 4, max(10.0, 2 * (times.max() - times.min()).max()))     # patience as this machine needs
    deployment.wait_for("asked", 5, "cleo", LONG)
    deployment.kill("cleo")
    deployment.wait_for("absent", 5, "cleo", LONG)
    deployment.start_node("cleo")
    there = deployment.played(2 * LONG).query("split == 'validation'").groupby("client")["round"].agg(list)
    assert there["anna"] == there["ben"] == list(range(5))
    assert 1 not in there["cleo"] and 4 in there["cleo"]
    assert "client cleo is absent: no answer within" in deployment.log("absent")


def test_a_node_whose_key_was_not_registered_does_not_get_in(deployment):
    nodes = deployment.folder / "nodes"
    (nodes / "stranger").mkdir()
    for name in ("start.sh", "ca.crt"):
        (nodes / "stranger" / name).write_text((nodes / "anna" / name).read_text())
    write(nodes / "stranger" / "node.key", node_key()[0], secret=True)
    deployment.ports["stranger"] = free_ports(1)[0]
    deployment.start_node("stranger")
    deployment.wait_until(lambda: "Failed to activate SuperNode" in deployment.log("stranger"), "it got in", LONG)
    deployment.kill("stranger")


def test_nothing_is_left_of_it(deployment):
    """Last: no process, and nothing of Flower's in the home folder."""
    deployment.__exit__()
    left = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and str(deployment.folder) in str(process.environ()) + str(process.cmdline()):
                left.append(process.cmdline())
        except psutil.Error:
            continue
    assert not left and not (deployment.folder / "user" / ".flwr").exists()

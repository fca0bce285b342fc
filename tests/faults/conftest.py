"""Faults are counted: `with fault("kind") as one:` is a fault, survived where the block ends well.  A table of them ends the
session; `--save-faults FILE` writes it as JSON."""

import contextlib
import json
from collections import defaultdict
from pathlib import Path

import psutil
import pytest
from faults import small_runs
from faults.children import end

from fedmuscle_core.experiments.runs import sweep
from fedmuscle_core.experiments.store import environment, now

COLUMNS = ("tried", "survived", "lost_runs", "repeated_rounds")
counted = defaultdict(lambda: dict.fromkeys(COLUMNS, 0))


class Fault:
    """lost_runs: finished ones that are not there any more; repeated_rounds: finished ones that were computed again."""

    lost_runs = repeated_rounds = 0


@pytest.fixture
def fault(request):
    """Context manager (kind, *details for people) of one fault."""
    @contextlib.contextmanager
    def one_fault(kind, *details):
        found, survived = Fault(), 0
        try:
            yield found
            survived = 1
        except BaseException as error:
            error.add_note(f"fault: {kind} {' '.join(map(str, details))} (seed {small_runs.SEED})")
            raise
        finally:
            request.node.user_properties.append(("fault", [kind, 1, survived, found.lost_runs, found.repeated_rounds]))

    return one_fault


@pytest.fixture(autouse=True)
def no_orphans():
    """No process of a test may be left after it."""
    before = set(psutil.Process().children(recursive=True))
    yield
    left = [process for process in psutil.Process().children(recursive=True) if process not in before]
    end(left)
    assert not left, "processes were left"


@pytest.fixture
def folder(tmp_path):
    """An empty one, of the path of which nothing else is."""
    (tmp_path / "folder").mkdir()
    return tmp_path / "folder"


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """The file of the runs of small_runs.WANTED without any fault."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        small_runs.use(patch.setattr)
        sweep(small_runs.WANTED, folder, progress=False)
    return folder / "small.jsonl"


@pytest.fixture(scope="session")
def reference(undisturbed):
    """Their results."""
    return small_runs.contents(undisturbed.parent, small_runs.WANTED)


@pytest.fixture
def told(monkeypatch):
    """Runs are small; the list of what they tell, see `small_runs.use`."""
    said = []
    small_runs.use(monkeypatch.setattr, said.append)
    return said


def pytest_addoption(parser):
    parser.addoption("--save-faults", metavar="FILE", help="write how many faults were tried and survived as JSON")


def pytest_runtest_logreport(report):
    if report.when == "call":
        for name, value in report.user_properties:
            if name == "fault":
                kind, *numbers = value
                for column, number in zip(COLUMNS, numbers, strict=True):
                    counted[kind][column] += number


def pytest_terminal_summary(terminalreporter, config):
    if not counted:
        return
    total = {column: sum(row[column] for row in counted.values()) for column in COLUMNS}
    terminalreporter.section("faults")
    for kind, row in sorted(counted.items()) + [("all", total)]:
        terminalreporter.line(f"{kind:52} {row['tried']:4} tried {row['survived']:4} survived {row['lost_runs']:2} runs lost "
                              f"{row['repeated_rounds']:4} rounds computed again")
    if path := config.getoption("--save-faults", None):
        found = {"date": now(), "versions": environment(), "seed": small_runs.SEED, **total}
        found["kinds"] = dict(sorted(counted.items()))
        Path(path).write_text(json.dumps(found, indent=1) + "\n")

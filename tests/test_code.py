"""The hash of a run's code: what decides a result changes it, words do not."""

from pathlib import Path

from fedmuscle_core.experiments import code
from fedmuscle_core.experiments.runs import run

SOURCE = '"""A module."""\nX = "kept"\n\n\ndef f(x):\n    """Doubles."""\n    return 2 * x  # twice\n'


def test_comments_and_docstrings_do_not_count_and_everything_else_does():
    assert code.without_docstrings('class A:\n    """Only this."""\n') == "class A:\n    pass"
    same = 'X = "kept"\n\ndef f(x):\n    "Another."\n    return 2 * x\n'
    assert code.without_docstrings(SOURCE) == code.without_docstrings(same)
    for other in (SOURCE.replace("2 * x", "3 * x"), SOURCE.replace("kept", "lost"), SOURCE.replace("f(x)", "f(y)")):
        assert code.without_docstrings(other) != code.without_docstrings(SOURCE)


def test_what_decides_a_result_is_hashed_and_what_shows_it_is_not():
    names = {path.relative_to(code.PACKAGE).as_posix() for path in code.deciding_modules()}
    assert names >= {"losses.py", "tuple_sum.py", "client.py", "federation.py", "methods/fedmuscle.py", "engines/in_process.py",
                     "networks/client_network.py", "world/scenes.py", "world/real/splits.py", "experiments/build.py"}
    assert not any(name.startswith(("analysis", "commands", "benchmarks", "engines/flower")) for name in names)
    assert all(Path(code.PACKAGE, name).is_file() for name in names)


def test_it_is_in_the_record_of_a_run_and_follows_the_code(tiny, tmp_path, monkeypatch):
    record, _ = run(tiny(method="local", rounds=1), tmp_path, progress=False)
    assert record["code"] == code.code_digest() and len(record["code"]) == 10
    monkeypatch.setattr(code, "without_docstrings", lambda source: source + "changed")
    assert code.code_digest.__wrapped__() != record["code"]

import io
import json
import os
import re
import resource
import socket
import subprocess
import sys

import nbformat
import pytest
from found_runs import find_run, run_names
from jupyter_client.connect import LocalPortCache

from fedmuscle_core.commands import cli, reproduce
from fedmuscle_core.experiments import processes, tuning
from fedmuscle_core.experiments.runs import run
from fedmuscle_core.paths import ROOT

SOURCE = """# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% tags=["parameters"]
profile: str = "mini"
number: int = 1

# %%
assert number < 5, "too large"
print(profile, number)
"""


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """Two small notebooks instead of the real ones, and output below tmp_path."""
    for name in ("90_first", "91_second"):
        (tmp_path / f"{name}.py").write_text(SOURCE if name == "90_first" else SOURCE.replace("number", "other"))
    monkeypatch.setattr(reproduce, "NOTEBOOKS", tmp_path)
    monkeypatch.setenv("FEDMUSCLE_RUNS", str(tmp_path / "runs"))
    return tmp_path


def outputs(path):
    return "".join(output.get("text", "") for cell in nbformat.read(path, 4).cells for output in cell.get("outputs", []))


def test_every_notebook_runs_with_its_parameters_into_the_runs_folder(workplace, capsys):
    assert cli.main(["reproduce", "--profile", "quick", "-p", "number", "3"]) == 0
    assert outputs(workplace / "runs" / "quick" / "90_first.ipynb") == "quick 3\n"
    assert outputs(workplace / "runs" / "quick" / "91_second.ipynb") == "quick 1\n"
    said = capsys.readouterr().out
    assert "2 of 2 notebooks done" in said and str(workplace / "runs" / "quick") in said and " s  done" in said
    assert sorted(path.name for path in (workplace / "runs" / "quick").iterdir()) == ["90_first.ipynb", "91_second.ipynb"]


def test_a_failed_notebook_does_not_stop_the_others_and_is_named(workplace, capsys):
    assert cli.main(["reproduce", "-p", "number", "7"]) == 1
    said = capsys.readouterr().out
    assert "FAILED" in said and "AssertionError: too large" in said and "1 of 2 notebooks done" in said
    assert outputs(workplace / "runs" / "quick" / "91_second.ipynb") == "quick 1\n"
    failed = workplace / "runs" / "quick" / "90_first.failed.ipynb"
    assert "too large" in failed.read_text() and "*.failed.ipynb" in said
    assert cli.main(["reproduce", "-p", "number", "2", "--only", "90"]) == 0 and not failed.exists()
    assert cli.main(["reproduce", "-p", "number", "7", "--only", "90"]) == 1 and failed.exists()
    assert outputs(failed.with_name("90_first.ipynb")) == "quick 2\n"         # the good one is still there


@pytest.mark.parametrize("size", [2_000, 30_000])
def test_on_a_full_disk_the_earlier_copy_stays(workplace, capsys, size):
    """Before the notebook is written, and in the midst of its copy."""
    (workplace / "90_first.py").write_text(SOURCE.replace("print(profile, number)", "print(number * 'x')").replace("< 5", ""))
    assert cli.main(["reproduce", "--only", "90", "-p", "number", "10"]) == 0
    folder, (_, hard) = workplace / "runs" / "quick", resource.getrlimit(resource.RLIMIT_FSIZE)
    before = (folder / "90_first.ipynb").read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))                   # of a file; the error is that of a full disk
    try:
        assert cli.main(["reproduce", "--only", "90", "-p", "number", "100_000"]) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert "FAILED  OSError: " in capsys.readouterr().out
    assert (folder / "90_first.ipynb").read_bytes() == before and [path.name for path in folder.iterdir()] == ["90_first.ipynb"]


def test_two_reproductions_of_one_folder_do_not_disturb_each_other(workplace, monkeypatch, capsys):
    """The second begins and ends while the first has a notebook under way."""
    execute, began = reproduce.execute, []

    def meanwhile(*arguments):
        monkeypatch.setattr(reproduce, "execute", execute)
        began.append(reproduce.reproduce("quick", parameters={"number": "3"}, force=True))
        return execute(*arguments)
    monkeypatch.setattr(reproduce, "execute", meanwhile)
    assert reproduce.reproduce("quick", parameters={"number": "3"}, force=True) == 0 and set(began) == {0}
    folder = workplace / "runs" / "quick"
    assert sorted(path.name for path in folder.iterdir()) == ["90_first.ipynb", "91_second.ipynb"]
    assert outputs(folder / "90_first.ipynb") == "quick 3\n"


def test_notebooks_side_by_side_give_what_they_give_in_turn(workplace, capsys):
    assert cli.main(["reproduce", "-p", "number", "7", "--workers", "2"]) == 1
    said = capsys.readouterr().out
    assert "AssertionError: too large" in said and said.index("90_first") < said.index("91_second")
    assert outputs(workplace / "runs" / "quick" / "91_second.ipynb") == "quick 1\n"


def test_kernels_need_no_free_ports_that_another_can_take(workplace, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setattr(LocalPortCache, "find_available_port", lambda cache, ip: taken.getsockname()[1])
        assert cli.main(["reproduce", "--only", "90"]) == 0
    assert outputs(workplace / "runs" / "quick" / "90_first.ipynb") == "quick 1\n"


def test_without_the_notebooks_of_a_clone_it_says_so(workplace, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "NOTEBOOKS", workplace / "none")
    for further in ([], ["--dry-run"]):
        assert cli.main(["reproduce", *further]) == 2
        assert f"fedmuscle: notebooks: got no folder {workplace / 'none'}, expected a clone" in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "message"), [
    (["-p", "numbre", "3"], r"got unknown \['numbre'\]; the chosen notebooks know \['number', 'other', 'profile'\]"),
    (["-p", "profile", "mini"], "-p: got 'profile', which is set by --profile"),
    (["-p", "number", "[3"], r"-p number: got '\[3', expected YAML"),
    (["--only", "92"], r"--only: got \['92'\], expected the start of one of \['90_first', '91_second'\]"),
    (["--only", "90", "--only", "92"], r"--only: got \['92'\], expected the start of one of"),
    (["--only", ""], r"--only: got \[''\], expected the start of one of"),
    (["--dry-run", "-p", "numbre", "3"], r"got unknown \['numbre'\]; the chosen notebooks know"),
    (["-p", "number", "3", "-p", "number", "4"], r"-p: got \['number', 'number'\], expected each name once"),
    (["--workers", "0"], "workers: got 0"),
    (["--profile", "huge"], r"profile: got 'huge', expected one of \('quick', 'mini', 'paper'\)"),
    (["--profile", "paper", "--only", "90"], r"got \['90_first'\] with profile 'paper', expected some of \('02', "),
])
def test_bad_arguments_are_refused_before_anything_runs(workplace, capsys, arguments, message):
    assert cli.main(["reproduce", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith("fedmuscle: ") and re.search(message, err)
    assert not (workplace / "runs").exists()


def test_a_folder_that_cannot_be_written_is_named_before_anything_runs(workplace, monkeypatch, capsys):
    monkeypatch.setattr(reproduce, "execute", lambda *arguments: pytest.fail("ran"))
    (workplace / "file").touch()
    monkeypatch.setenv("FEDMUSCLE_RUNS", str(workplace / "file"))
    for further in ([], ["--force"]):
        assert cli.main(["reproduce", *further]) == 2
        assert f"{workplace / 'file' / 'quick'}: cannot be written to (Not a directory)" in capsys.readouterr().err


def test_there_is_one_worker_at_most_for_each_core_and_each_2_5_gb(monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2_000_000}.__getitem__)   # 8.2 GB
    assert [processes.affordable(workers) for workers in (1, 3)] == [1, 3] and not capsys.readouterr().out
    assert processes.affordable(1000) == 3
    assert "workers: got 1000, takes 3: one for each core (here 8) and each 2.5 GB of memory (here 8 GB)" in (
        capsys.readouterr().out)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 2000}.__getitem__)
    assert processes.affordable(2) == 1


@pytest.mark.parametrize(("arguments", "said"), [
    (["reproduce", "--wrokers", "2"], "usage: fedmuscle reproduce .*--workers .*unrecognized arguments: --wrokers 2"),
    (["data", "fetch", "--yse", "voc"], "usage: fedmuscle data fetch .*--yes.*unrecognized arguments: --yse"),
    (["reprodce"], "invalid choice: 'reprodce'.*reproduce"),
])
def test_a_mistyped_command_or_option_is_answered_with_those_there_are(capsys, arguments, said):
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    assert caught.value.code == 2 and re.search(said, capsys.readouterr().err, re.DOTALL)


def test_without_a_terminal_fetching_says_what_to_give(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert cli.main(["data", "fetch", "ag_news"]) == 2
    assert "data fetch: got no terminal to ask on, expected one, or --yes" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_no_folder_and_a_reader_that_is_gone_are_no_traceback(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path / "file"))
    assert cli.main(["data", "fetch", "--yes", "ag_news"]) == 1
    assert capsys.readouterr().err.startswith("fedmuscle: ")
    done = subprocess.run(f"{sys.executable} -m fedmuscle_core.commands.cli data list | head -c 10", shell=True, check=True,
                          capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert len(done.stdout) == 10 and not done.stderr


@pytest.mark.parametrize("arguments", [["reproduce", "--help"], ["data", "list"], ["data", "check", "voc"]])
def test_what_computes_nothing_does_not_wait_for_torch(tmp_path, arguments):
    code = f"import sys; sys.modules['torch'] = None; from fedmuscle_core.commands import cli; sys.exit(cli.main({arguments}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False,
                          env={**os.environ, "PYTHONPATH": str(ROOT), "FEDMUSCLE_DATA": str(tmp_path)})
    assert done.returncode == (2 if "check" in arguments else 0) and "Traceback" not in done.stderr, done.stderr
    assert "voc: no such folder" in done.stderr or done.stdout


def test_force_reaches_the_notebooks_and_is_gone_afterwards(workplace, capsys):
    (workplace / "90_first.py").write_text(SOURCE.replace("print(profile, number)", "import os; print(sorted(os.environ))"))
    assert cli.main(["reproduce", "--only", "90", "--force"]) == 0
    told = outputs(workplace / "runs" / "quick" / "90_first.ipynb")
    assert "FEDMUSCLE_RECOMPUTE_BEFORE" in told and "FEDMUSCLE_FIGURES" in told
    assert not {"FEDMUSCLE_RECOMPUTE_BEFORE", "FEDMUSCLE_FIGURES"} & set(os.environ)


def test_the_quickstart_trains_in_profile_quick(tmp_path, monkeypatch, capsys):
    """The real notebook through papermill, from no stored result; in the end it is said what it showed."""
    monkeypatch.setenv("FEDMUSCLE_RUNS", str(tmp_path))
    assert cli.main(["reproduce", "--profile", "quick", "--only", "00", "-p", "seeds", "[77]"]) == 0
    text = json.dumps(nbformat.read(tmp_path / "quick" / "00_quickstart.ipynb", 4))
    assert "of 3 clients none shown above training alone, none below" in text                  # on one seed
    made = run_names(tmp_path / "quick" / "results", "quickstart")
    assert sorted(name.split("-")[0] for name in made if name.endswith("-seed77")) == ["fedmuscle", "local"]
    assert (tmp_path / "quick" / "figures" / "00_quickstart.png").exists()
    last = capsys.readouterr().out.split("00_quickstart trained to the end:\n")[1].strip().splitlines()
    assert len(last) == 5 and re.fullmatch(r"- .* \([+-][\d.]+ % Delta, 1 seed\)\.", last[0]), last


def test_what_notebooks_of_profile_quick_prove_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("FEDMUSCLE_RUNS", str(tmp_path))
    assert reproduce._summarise([("02_setup1", 1.0, None), ("03_alpha", 1.0, "broke")], "quick", tmp_path) == 1
    assert capsys.readouterr().out.endswith("quick proves that they run, and nothing else.\n")
    assert reproduce._summarise([("02_setup1", 1.0, None)], "mini", tmp_path) == 0
    assert "proves" not in capsys.readouterr().out


def test_planned_runs_are_computed_together_before_the_notebooks(tiny, tmp_path, monkeypatch):
    """`--force` on "mini" tunes the plan's setups first; the runs of all chosen notebooks make one sweep."""
    calls = []
    monkeypatch.setattr(reproduce, "PLANS", {"04": lambda profile, seeds: [tiny(seed=seed) for seed in seeds or (0, 1)],
                                             "05": lambda profile, seeds: [tiny(seed=5)],
                                             "06": lambda profile, seeds: [tiny(setup="embedded2")]})
    monkeypatch.setattr(reproduce, "results", lambda profile: tmp_path)
    monkeypatch.setattr(tuning, "tune", lambda setup, methods, domain, workers: calls.append(
        ("tune", setup.name, methods, domain, workers)))
    monkeypatch.setattr(reproduce, "sweep", lambda wanted, *_, progress: calls.append([one.seed for one in wanted]))
    reproduce.compute("mini", ["01", "04", "05"], workers=2)
    reproduce.compute("mini", ["04"], seeds=[7], workers=2, force=True)
    reproduce.compute("quick", ["04"], force=True)
    reproduce.compute("mini", ["01"], force=True)
    reproduce.compute("mini", ["06"], force=True)
    assert calls == [[0, 1, 5], ("tune", "tiny", None, "single", 2), [7], [0, 1], ("tune", "embedded2", None, "pairs", 1), [0]]


def test_runs_whose_data_are_not_here_are_said_and_neither_tuned_nor_computed(tiny, tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path))
    monkeypatch.setattr(reproduce, "PLANS", {"15": lambda profile, seeds: [tiny(), tiny(setup="photos1", method="local")]})
    monkeypatch.setattr(tuning, "tune", lambda setup, methods, domain, workers: calls.append(setup.name))
    monkeypatch.setattr(reproduce, "sweep", lambda wanted, *_, progress: calls.extend(one.setup.name for one in wanted))
    reproduce.compute("mini", ["15"], force=True)
    assert calls == ["tiny", "tiny"]
    assert "1 runs need real data or backbones that are not here" in capsys.readouterr().out
    monkeypatch.setattr(reproduce, "PLANS", {"15": lambda profile, seeds: [tiny(setup="photos1", method="local")]})
    reproduce.compute("mini", ["15"], force=True)                             # nothing is left: no sweep of nothing
    assert calls == ["tiny", "tiny"]
    assert reproduce.dry_run("mini", ["15"]) == 0
    assert "notebooks 15: 0 runs, 0 of them not in" in capsys.readouterr().out


def test_a_failed_run_does_not_keep_the_notebooks_from_running(tiny, monkeypatch, capsys):
    def fail(wanted, folder, workers, progress):
        raise RuntimeError("1 of 2 runs failed (tiny local seed 0); the others are stored")

    monkeypatch.setattr(reproduce, "PLANS", {"04": lambda profile, seeds: [tiny()]})
    monkeypatch.setattr(reproduce, "sweep", fail)
    reproduce.compute("quick", ["04"])
    assert "1 of 2 runs failed (tiny local seed 0)" in capsys.readouterr().out


def test_an_interrupted_force_goes_on_and_a_finished_one_begins_anew(workplace, monkeypatch, capsys):
    seen = []

    def stop(*arguments):
        seen.append(os.environ[reproduce.RECOMPUTE_BEFORE])
        raise KeyboardInterrupt

    monkeypatch.setattr(reproduce, "compute", stop)
    clock = iter(f"{year}-01-01T00:00:00+00:00" for year in range(2030, 2040))
    monkeypatch.setattr(reproduce, "now", lambda: next(clock))
    monkeypatch.setattr(reproduce, "execute", lambda *job: (0.0, "7" if 7 in job[-1].values() else None))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            reproduce.reproduce("quick", force=True)
    assert "going on with what was begun 2030" in capsys.readouterr().out
    monkeypatch.setattr(reproduce, "compute",
                        lambda *arguments: seen.append(os.environ.get(reproduce.RECOMPUTE_BEFORE, "none")))
    assert reproduce.reproduce("quick") == 0                                  # without force: leaves it to be gone on with
    assert reproduce.reproduce("quick", parameters={"number": "7"}, force=True) == 1    # anew; fails
    assert reproduce.reproduce("quick", parameters={"number": "7"}, force=True) == 1    # so it goes on
    assert reproduce.reproduce("quick", parameters={"number": "3"}, force=True) == 0
    assert reproduce.reproduce("quick", parameters={"number": "3"}, force=True) == 0    # finished: anew
    years = [begun[:4] for begun in seen]
    assert years == ["2030", "2030", "none", "2031", "2031", "2032", "2033"]
    assert reproduce.RECOMPUTE_BEFORE not in os.environ


def test_force_tunes_the_setup_whose_values_another_takes_over(monkeypatch, tiny, tmp_path):
    asked = []
    monkeypatch.setattr(reproduce, "PLANS", {"09": lambda profile, seeds: [tiny(setup="noniid"), tiny(setup="one_text")]})
    monkeypatch.setattr(reproduce, "results", lambda profile: tmp_path)
    monkeypatch.setattr(tuning, "tune", lambda setup, methods, domain, workers: asked.append(setup.name))
    monkeypatch.setattr(reproduce, "sweep", lambda *_, progress: None)
    reproduce.compute("mini", ["09"], force=True)
    assert list(dict.fromkeys(asked)) == ["embedded1", "embedded2"]


def test_a_finished_force_leaves_one_line_a_run_and_no_other_file_touched(tiny, workplace, monkeypatch):
    """Profile "mini" has results and tuning runs; what neither this nor the notebooks wrote stays as it is."""
    folder = workplace / "results"
    monkeypatch.setattr(reproduce, "results", lambda profile: folder)
    monkeypatch.setattr(tuning, "FOLDER", folder / "tuning")
    monkeypatch.setattr(tuning, "tune", lambda setup, methods, domain, workers: run(local, folder / "tuning", progress=False))
    monkeypatch.setattr(reproduce, "PLANS", {"90": lambda profile, seeds: [local]})
    local = tiny(method="local", rounds=1, test_size=0).canonical()
    run(local, folder / "tuning", progress=False)
    _, history = run(local, folder, progress=False)
    other = folder / "other.jsonl"
    other.write_text((folder / "tiny.jsonl").read_text().replace('"setup":"tiny"', '"setup":"other"') * 2)
    os.utime(other, (10 ** 9, 10 ** 9))
    before = other.read_text()
    for path in (folder / "tiny.jsonl", folder / "tuning" / "tiny.jsonl"):
        record, _ = find_run(path.parent, "tiny", local.run())
        old = path.read_text().replace(record["finished"], "2000-01-01T00:00:00+00:00")
        path.write_text(re.sub(r',"crc":"\w+"', "", old))
    assert cli.main(["reproduce", "--profile", "mini", "--only", "90", "--force"]) == 0
    for path in (folder / "tiny.jsonl", folder / "tuning" / "tiny.jsonl"):
        assert len(path.read_text().splitlines()) == 1
        record, again = find_run(path.parent, "tiny", local.run())
        assert record["finished"] > "2000-01-02" and again.equals(history)
    assert other.read_text() == before and before.count("\n") == 2

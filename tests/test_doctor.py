"""What is installed, what is missing, and what a wheel carries."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version

import pytest
from packaging.requirements import Requirement

from fedmuscle_core.commands import cli, doctor
from fedmuscle_core.paths import PACKAGE, ROOT

REMEDY = 'pip install "fedmuscle-core[reproduce]"'


def test_a_sound_installation_has_no_problem(capsys):
    assert doctor.problem() is None
    assert doctor.main() == 0
    assert "all packages are here" in capsys.readouterr().out


def test_a_mismatched_pair_is_named_with_the_remedy():
    def with_old_torch(name):
        return "2.13.0+cpu" if name == "torch" else version(name)

    for needs in ("torch (>=2.14.0)", "torch==2.15.0"):
        found = doctor.problem(with_old_torch, lambda name, needs=needs: ["numpy", needs])
        assert "needs torch" in found and "torch 2.13.0 is installed" in found and REMEDY in found
        assert "\n" not in found


def test_a_pair_that_cannot_be_imported_is_named_with_the_remedy(monkeypatch, capsys):
    def broken(name):
        raise RuntimeError("operator torchvision::nms does not exist\nand much more")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    assert doctor.main() == 1
    message = capsys.readouterr().err
    assert "does not work with torch" in message and "torchvision::nms" in message and message.count("\n") == 1


def test_missing_packages_are_named_with_the_remedy():
    def without(name):
        if name in ("papermill", "nbval"):
            raise PackageNotFoundError(name)
        return version(name)

    assert doctor.problem(without).startswith(f"missing: nbval, papermill; {REMEDY}")


def test_a_package_that_is_not_installed_is_missing_itself():
    def none(name):
        raise PackageNotFoundError(name)

    assert doctor.problem(none, none).startswith(f"missing: fedmuscle-core; {REMEDY}")


def test_the_command_refuses_to_start_on_a_broken_installation(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "problem", lambda: f"missing: nbval; {REMEDY}")
    assert cli.main(["reproduce"]) == 1
    assert capsys.readouterr().err == f"fedmuscle: missing: nbval; {REMEDY}\n"


def test_differences_from_the_lock_are_listed(tmp_path):
    locked = dict(line.split("==") for line in doctor.LOCK.read_text().splitlines() if ";" not in line)
    assert doctor.differences_from_lock(locked.get) == []
    lines = doctor.differences_from_lock(lambda name: "0.0.1" if name == "pandas" else locked[name] + "+cpu")
    assert lines == [f"pandas 0.0.1 != {locked['pandas']}"]
    assert doctor.differences_from_lock({}.get, tmp_path / "no.lock") == []


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_the_doctor_imports_nothing_it_checks(name):
    code = f"import sys, fedmuscle_core.commands.doctor as d; d.problem(); sys.exit({name!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the clone."""
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, copy / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in ("data", "notebooks", "tests"):
        (copy / name).mkdir()
        (copy / name / "a.py").touch()
    subprocess.run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "dist", "."],
                   cwd=copy, check=True, capture_output=True)
    return next((copy / "dist").glob("*.whl"))


def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*")
                     if path.is_file() and "__pycache__" not in path.parts}
    assert {"csv", "safetensors", "mplstyle", "py"} <= {name.rsplit(".")[-1] for name in names}
    assert wheel.stat().st_size < 4 * 2 ** 20


def test_the_doctor_needs_the_core_and_the_extra_reproduce_of_the_wheel(wheel):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    with zipfile.ZipFile(wheel) as files:
        metadata = files.read(next(name for name in files.namelist() if name.endswith("/METADATA"))).decode()
    lines = [line.removeprefix("Requires-Dist: ") for line in metadata.splitlines() if line.startswith("Requires-Dist: ")]
    assert len(lines) == len(project["dependencies"]) + sum(map(len, extras.values()))
    assert doctor.needed(lambda name: lines) == sorted(Requirement(line).name for line in
                                                       [*project["dependencies"], *extras["reproduce"]])


@pytest.mark.parametrize("where", ["clone", "wheel"])
def test_where_results_go(where, wheel, tmp_path):
    """Below the clone; without one below the folder of the process; a relative FEDMUSCLE_RUNS counts from there, also in a
    process that it starts elsewhere."""
    here, moved, site = tmp_path / "here", tmp_path / "here" / "out", tmp_path / "site"
    here.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    code = ("import os; from fedmuscle_core import paths as p; print(p.results('mini'), p.figures('mini'), p.runs('quick'),"
            " p.BACKBONES, os.environ.get('FEDMUSCLE_RUNS'), p.written_beside(p.results('mini')), sep='\\n')")

    def said(**variables):
        variables["PYTHONPATH"] = str(ROOT if where == "clone" else site)
        done = subprocess.run([sys.executable, "-c", code], cwd=here, env=variables, check=True, capture_output=True, text=True)
        return done.stdout.splitlines()

    backbones = "fedmuscle_core/networks/pretrained"
    if where == "clone":
        stored, runs = f"{ROOT}/data/results", f"{ROOT}/data/runs"
        assert said() == [stored, f"{runs}/mini/figures", f"{runs}/quick", f"{ROOT}/{backbones}", "None", f"{runs}/own"]
        assert said(FEDMUSCLE_RUNS="out")[:3] == [stored, f"{moved}/mini/figures", f"{moved}/quick"]
        assert said(FEDMUSCLE_COMMIT="1")[1:] == [f"{ROOT}/figures", *said()[2:5], stored]
    else:
        runs = here / "data" / "runs"
        stored = f"{runs}/mini/results"
        assert said() == [stored, f"{runs}/mini/figures", f"{runs}/quick", f"{site}/{backbones}", "None", stored]
        assert said(FEDMUSCLE_COMMIT="1") == said()
        assert said(FEDMUSCLE_RUNS="out")[:3] == [f"{moved}/mini/results", f"{moved}/mini/figures", f"{moved}/quick"]
    assert said(FEDMUSCLE_RUNS="out")[4] == str(moved)

from importlib.metadata import PackageNotFoundError, version

import pytest

from fedmuscle_core.commands import doctor


def test_a_sound_installation_has_no_problem(capsys):
    assert doctor.problem() is None
    assert doctor.main() == 0
    assert "all packages are here" in capsys.readouterr().out


def test_a_mismatched_pair_is_named_with_the_remedy():
    def with_old_torch(name):
        return "2.13.0+cpu" if name == "torch" else version(name)

    for needs in ("torch (>=2.14.0)", "torch==2.15.0"):
        found = doctor.problem(with_old_torch, lambda name, needs=needs: ["numpy", needs])
        assert "needs torch" in found and "torch 2.13.0 is installed" in found and "make setup" in found
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

    assert doctor.problem(without).startswith("missing: papermill, nbval; run `make setup`")


def test_the_command_refuses_to_start_on_a_broken_installation(monkeypatch, capsys):
    from fedmuscle_core.commands import cli
    monkeypatch.setattr(doctor, "problem", lambda: "missing: nbval; run `make setup`")
    assert cli.main(["reproduce"]) == 1
    assert capsys.readouterr().err == "fedmuscle: missing: nbval; run `make setup`\n"


def test_differences_from_the_lock_are_listed():
    locked = dict(line.split("==") for line in (doctor.ROOT / "requirements.lock").read_text().splitlines() if ";" not in line)
    assert doctor.differences_from_lock(locked.get) == []
    lines = doctor.differences_from_lock(lambda name: "0.0.1" if name == "pandas" else locked[name] + "+cpu")
    assert lines == [f"pandas 0.0.1 != {locked['pandas']}"]


@pytest.mark.parametrize("name", ["torch", "transformers"])
def test_the_doctor_imports_nothing_it_checks(name):
    import subprocess
    import sys
    code = f"import sys, fedmuscle_core.commands.doctor as d; d.problem(); sys.exit({name!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Check what would be released: `make release`.

Builds the wheel, installs it with the extra [reproduce] into a fresh environment of each Python that is here, away from the
clone, and there runs the README's snippets, `fedmuscle doctor` and a short run of the quickstart's setup.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("python3.11", "python3.12", "python3.13")
RUN = """
from fedmuscle_core import Settings, run
from fedmuscle_core.experiments.profiles import profile_settings
settings = profile_settings("quick", "quickstart", "fedmuscle", [20], num_peers=2)[0]
record, history = run(settings, "runs", progress=False)
assert len(history[history["split"] == "test"]) == 3, history
print("trained", record["run"])
"""


def snippets():
    """The Python of the README."""
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S))


def call(*command, **options):
    """A command whose failure ends the check."""
    done = subprocess.run(list(map(str, command)), check=False, **options)
    if done.returncode:
        sys.exit(f"release: got status {done.returncode} of {' '.join(map(str, command))}")


def check(python, wheel, folder):
    """Install the wheel with `python` in `folder` and use it."""
    call(python, "-m", "venv", folder / "env")
    inside = folder / "env" / "bin" / "python"
    call(inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{wheel}[reproduce]")
    for code in (snippets(), RUN):
        call(inside, "-c", code, cwd=folder)
    call(folder / "env" / "bin" / "fedmuscle", "doctor", cwd=folder)


def main():
    found = [path for name in PYTHONS if (path := shutil.which(name))]
    if not found:
        sys.exit(f"release: got none of {', '.join(PYTHONS)}, expected one")
    with tempfile.TemporaryDirectory() as folder:
        call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
        (wheel,) = Path(folder).glob("*.whl")
        for python in found:
            place = Path(folder) / Path(python).name
            place.mkdir()
            check(python, wheel, place)
            print(f"{wheel.name} works with {Path(python).name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

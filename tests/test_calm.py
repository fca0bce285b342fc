"""Ordinary use leaves git clean: jupytext, papermill, and a notebook opened, run and saved in JupyterLab."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time

import pytest

from fedmuscle_core.paths import ROOT

if not (ROOT / ".git").exists():
    pytest.skip("no git repository", allow_module_level=True)
NOTEBOOK = "21_many_machines"                   # trains for seconds and draws a figure


@pytest.fixture
def clone(tmp_path):
    """A repository of its own with the files as they are here, in which nobody commits runs and figures."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():
            (tmp_path / "clone" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / "clone" / name)
    by = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init"], ["add", "--all"], [*by, "commit", "--message", "as it is"]):
        subprocess.run(["git", *command], cwd=tmp_path / "clone", capture_output=True, check=True)
    return tmp_path / "clone"


@pytest.fixture
def variables(clone):
    """Environment of a process that has the clone's package."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("FEDMUSCLE_")}
    return found | {"PYTHONPATH": str(clone), "IPYTHONDIR": str(clone.parent / "ipython"), "OMP_NUM_THREADS": "1"}


def changed(clone):
    return subprocess.run(["git", "status", "--porcelain"], cwd=clone, check=True, capture_output=True, text=True).stdout


def figure(clone):
    return clone / "data" / "runs" / "mini" / "figures" / f"{NOTEBOOK}.png"


def test_jupytext_and_papermill_change_nothing(clone, variables):
    for paths in (sorted((clone / "notebooks").glob("*.ipynb")), sorted((clone / "notebooks").glob("*.py"))):
        subprocess.run([sys.executable, "-m", "jupytext", "--quiet", "--sync", *paths], cwd=clone, env=variables, check=True)
    assert changed(clone) == ""
    command = [sys.executable, "-m", "papermill", f"notebooks/{NOTEBOOK}.ipynb", clone.parent / "out.ipynb", "-p", "seed", "1"]
    subprocess.run(command, cwd=clone, env=variables, check=True, capture_output=True)
    assert changed(clone) == ""
    assert figure(clone).is_file()


@contextlib.contextmanager
def lab(clone, variables):
    """Address of a JupyterLab with the settings of `make lab`."""
    log = clone.parent / "lab.log"
    with log.open("w") as file:
        server = subprocess.Popen([
            sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--port=0", f"--config={clone}/docs/lab.py",
            "--LabApp.expose_app_in_browser=True", f"--ServerApp.root_dir={clone}/notebooks"],
            cwd=clone, env=variables, stdout=file, stderr=subprocess.STDOUT)
    try:
        for _ in range(300):
            if found := re.search(r"http://127\.0\.0\.1:\d+/lab\?token=\w+", log.read_text()):
                yield found[0]
                return
            time.sleep(0.2)
        pytest.fail(log.read_text())
    finally:
        server.terminate()
        server.wait(20)


def test_a_session_of_jupyterlab_changes_nothing(clone, variables):
    pytest.importorskip("jupyterlab", reason="the extra [lab] is not installed: `make lab`")
    sync_api = pytest.importorskip("playwright.sync_api", reason="the extra [book] is not installed: `make book`")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if not chromium:
        pytest.skip("no Chromium is installed; the variable CHROMIUM names one")
    ready = "jupyterapp.shell.currentWidget?.sessionContext?.kernelDisplayStatus == 'idle'"
    with lab(clone, variables) as address, sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(address.replace("/lab?", f"/lab/tree/{NOTEBOOK}.ipynb?"))
        page.wait_for_function(f"() => window.jupyterapp && {ready}", timeout=120_000)
        page.evaluate("jupyterapp.commands.execute('notebook:run-all-cells')")
        page.evaluate("jupyterapp.commands.execute('docmanager:save')")
        page.wait_for_function("() => !jupyterapp.shell.currentWidget.context.model.dirty", timeout=60_000)
        browser.close()
    assert changed(clone) == "" and figure(clone).is_file()

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
    """A clone of the last commit, in which nobody commits runs and figures."""
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", f"file://{ROOT}", tmp_path / "clone"], check=True)
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

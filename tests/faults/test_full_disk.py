"""A full disk costs what does not fit, which is named; what is there stays whole, and with room again the rest is computed."""

import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from faults.children import Disk, Limit, forked
from faults.small_runs import SEED, WANTED, contents, stored_lines, use

from fedmuscle_core.analysis import plots
from fedmuscle_core.experiments.runs import sweep

FULL = r"(No space left on device|File too large)"


@pytest.fixture(params=[Disk, Limit], ids=["disk", "limit"])
def kind(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tried")
    if forked(folder.with_suffix(".said"), request.param, folder).wait():
        pytest.skip("mounting is not allowed here; the disk is a limit of the files' size")
    return request.param


def in_child(tmp_path, function, *arguments):
    """What a child says whose function asserts what should be."""
    child = forked(tmp_path / "said", function, *arguments)
    assert child.wait() == 0, child.said()
    return child.said()


def sweep_on(kind, folder, size, every, reference):
    """A sweep without room for all, then one with it."""
    use(every=every, told=print)
    disk = kind(folder)
    disk.room(size)
    try:
        sweep(WANTED, folder, progress=False)
    except RuntimeError as error:
        print("failed:", error)
        assert re.search(FULL, str(error)) and f"{folder}/small.jsonl" in str(error)
        named = re.search(r"of \d runs failed \((.*?)\)", str(error))[1].split(", ")
        assert len(named) == len(WANTED) - len(stored_lines(folder))
    before, kept = stored_lines(folder), contents(folder, WANTED)
    assert len(before) == len(kept) and all(reference[run] == found for run, found in kept.items())
    assert not list(folder.glob("*.part")), "halves are left"
    disk.room()
    sweep(WANTED, folder, progress=False)
    assert stored_lines(folder)[:len(before)] == before and contents(folder, WANTED) == reference


@pytest.mark.parametrize("size", [1024, 4096])
def test_stored_runs_are_those_that_fit_and_the_others_are_named(tmp_path, folder, reference, fault, kind, size):
    with fault("full disk: stored runs", kind.__name__, size):
        assert "failed: " in in_child(tmp_path, sweep_on, kind, folder, size, 1e9, reference)


@pytest.mark.parametrize("size", [20_480, 40_960])
def test_a_run_goes_on_where_its_state_does_not_fit(tmp_path, folder, reference, fault, kind, size):
    with fault("full disk: states", kind.__name__, size):
        said = in_child(tmp_path, sweep_on, kind, folder, size, 0.0, reference)
        assert re.search(rf"warning: {folder}/small-\S+: .*{FULL}.*the run goes on", said) and "failed: " not in said
        assert len(re.findall(" stored$", said, re.M)) == len(WANTED)


def figure_on(kind, folder, size):
    """A larger figure and table over those that are there."""
    plots.figures = lambda profile: folder
    fig, axes = plt.subplots()
    table = pd.DataFrame({"value": range(5000)})
    axes.imshow(np.random.default_rng(SEED).random((400, 400)))
    disk = kind(folder)
    plots.save_figure(plt.figure(figsize=(1, 1)), table[:10], "drawn", "quick")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    disk.room(size)
    try:
        plots.save_figure(fig, table, "drawn", "quick")
        raise AssertionError("it fits")
    except OSError as error:
        assert re.search(FULL, str(error)) and f"{folder}/drawn." in str(error), error
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    disk.room()
    plots.save_figure(fig, table, "drawn", "quick")
    assert len(pd.read_csv(folder / "drawn.csv")) == len(table)


@pytest.mark.parametrize("size", [12_288, 49_152])
def test_figures_and_their_tables_stay_as_they_were(tmp_path, folder, fault, kind, size):
    with fault("full disk: figures", kind.__name__, size):
        in_child(tmp_path, figure_on, kind, folder, size)

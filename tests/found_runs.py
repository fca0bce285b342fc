"""Stored runs by name."""

from pathlib import Path

from fedmuscle_core.experiments import store


def find_run(folder, setup, run):
    """(record, history) of the run with that name; None where there is none."""
    lines = store.find_lines(folder, setup, run)
    return store.load(lines[0]) if lines else None


def run_names(folder, setup):
    """Names of the stored runs of a setup, in the order of their lines."""
    return list(store._lines(Path(folder) / f"{setup}.jsonl"))

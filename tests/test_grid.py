"""The grid of notebook 17: what is known of each client, and what it gained."""

import numpy as np
import pandas as pd
import pytest

from fedmuscle_core.analysis import advice
from fedmuscle_core.experiments import grid
from fedmuscle_core.experiments.setups import GRID_NETWORKS, GRID_SIZES, SETUPS
from fedmuscle_core.federation import COLUMNS


def test_no_client_is_in_two_kinds_of_networks_of_the_grid():
    for sizes in GRID_SIZES:
        several = [SETUPS[f"grid_{networks}_{sizes}"].clients for networks in GRID_NETWORKS]
        for place in zip(*several, strict=True):
            assert len(set(place)) == len(place)


def test_observations_hold_what_was_known_and_what_was_gained():
    """Two cells of one setup; FedMuscle wins half of what is missing, SimCLR loses."""
    cells = [("weak", "few", "tiny_imagenet", photos, 3e-5) for photos in (128, 900)]
    setup = SETUPS["grid_weak_few"]

    def played(method, score):
        rows = [(method, client, task, "accuracy", "test", 8, 10, score, 0) for client, task in enumerate(setup.tasks, 1)]
        return [{"settings": {"setup": setup.name}}], pd.DataFrame(rows, columns=COLUMNS)

    results = {(("weak", "few"), "local"): played("local", 50.0)}
    for cell in cells:
        results |= {(cell, "fedmuscle"): played("fedmuscle", 75.0), (cell, "simclr"): played("simclr", 40.0)}
    strengths = {"resnet_medium": 0.4, "vit_small": 0.3, "resnet_small": 0.2}
    mismatches = {cell[:4]: dict.fromkeys(range(1, 7), -0.01 if cell[3] == 128 else 0.5) for cell in cells}
    table = grid.observations(results, strengths, mismatches)
    assert len(table) == 12 and set(table["federation"]) == {"weak networks, few labels"} and set(advice.FEATURES) < set(table)
    assert table["fedmuscle"].tolist() == pytest.approx([np.log(3)] * 12) and table["simclr"].max() < 0
    assert table["lead"].tolist() == (table["fedmuscle"] - table["simclr"]).tolist() and table.attrs["left_out"] == []
    first = table.iloc[0]
    assert (first["labels"], first["own"], first["photos"], first["mismatch"]) == (10 / 20, 0.4, 128, 0.0)
    assert first["peers"] == pytest.approx((0.3 + 0.2 + 0.4 + 0.3 + 0.2) / 5) and table["mismatch"].max() == 0.5
    marker = results[cells[0], "simclr"][1].head(1).assign(split="diverged", value=np.nan)
    results[cells[0], "simclr"] = results[cells[0], "simclr"][0], marker
    table = grid.observations(results, strengths, mismatches)
    assert len(table) == 6 and table.attrs["left_out"] == [cells[0]]


def test_missing_measurements_are_named_with_the_command_that_makes_them(tmp_path, monkeypatch):
    monkeypatch.setattr(grid, "MISMATCHES", tmp_path / "grid_mismatch.csv")
    with pytest.raises(ValueError, match=r"grid_mismatch.csv: got no such file, expected .*experiments.grid"):
        grid.observed(tmp_path)

"""The rule of thumb of notebook 17, on gains that follow a known law."""

import numpy as np
import pandas as pd
import pytest

from fedmuscle_core.analysis import advice
from fedmuscle_core.experiments.setups import GRID_NETWORKS, GRID_SIZES, SETUPS
from fedmuscle_core.federation import COLUMNS


@pytest.fixture(scope="module")
def table():
    """Clients of a grid whose gain grows with the peers' lead over their own network and falls with the rate."""
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"labels": rng.uniform(1, 100, 240), "own": rng.uniform(0.2, 0.8, 240),
                         "peers": rng.uniform(0.2, 0.8, 240), "photos": rng.integers(64, 1024, 240),
                         "mismatch": rng.uniform(0, 1, 240),
                         "rate": 10 ** rng.uniform(-5, -3, 240), "networks": np.repeat(["weak", "mixed", "strong"], 80),
                         "sizes": np.tile(np.repeat(["few", "some", "many", "all"], 20), 3)})
    own, peers = (np.log(rows[name] / (1 - rows[name])) for name in ("own", "peers"))
    rows["fedmuscle"] = 0.5 * (peers - own) - 0.2 * (np.log10(rows["rate"]) + 4)
    rows["simclr"] = 0.1 + rng.normal(0, 0.3, 240)
    return rows.assign(lead=rows["fedmuscle"] - rows["simclr"])


def test_a_law_is_found_and_noise_is_not(table):
    rule = advice.fit(table)
    known, noise = rule["gains"]["fedmuscle"], rule["gains"]["simclr"]
    assert known["error"] < 0.05 < known["plain"] and known["sign"] > 0.95
    assert noise["error"] == pytest.approx(0.3, abs=0.05) and noise["error"] > 0.9 * noise["plain"]


def test_advice_follows_the_rule(table):
    rule, usual = advice.fit(table), {"labels": 10, "photos": 500, "mismatch": 0.5, "rate": 1e-4}
    weak, strong = (advice.advise(own=own, peers=peers, rule=rule, **usual) for own, peers in ((0.3, 0.7), (0.7, 0.3)))
    assert weak["fedmuscle"][0] == pytest.approx(0.5 * 2 * np.log(7 / 3), abs=0.05) == -strong["fedmuscle"][0]
    assert weak["sentence"].startswith("align") and strong["sentence"].startswith("do not count") and weak["outside"] == []
    assert weak["lead"][0] == pytest.approx(weak["fedmuscle"][0] - weak["simclr"][0], abs=0.05)
    far = advice.advise(own=0.3, peers=0.7, rule=rule, **usual | {"photos": 5000, "labels": 0.5})
    assert far["outside"] == ["labels", "photos"]
    assert far["sentence"].endswith("(a guess: labels, photos beyond what the rule was fitted on)")


@pytest.mark.parametrize(("aligned", "alone", "lead", "said"), [
    ((0.5, 0.1), (0.1, 0.2), (0.4, 0.1), "align: the others"),
    ((0.3, 0.1), (0.3, 0.1), (0.0, 0.1), "learn from public data, with"),
    ((-0.3, 0.1), (-0.2, 0.1), (-0.1, 0.2), "leave it"), ((0.05, 0.1), (0.0, 0.1), (0.05, 0.1), "do not count"),
    ((-0.3, 0.1), (0.05, 0.1), (-0.35, 0.1), "do not count"), ((0.25, 0.2), (-0.05, 0.3), (0.3, 0.4), "align: a gain"),
    ((0.0, 0.1), (0.3, 0.1), (-0.3, 0.4), "learn from public data by yourself: of"),
    ((0.2, 0.1), (0.6, 0.1), (-0.4, 0.1), "learn from public data by yourself: alignment")])
def test_what_is_said_follows_from_gains_and_errors(aligned, alone, lead, said):
    assert advice.sentence({"fedmuscle": aligned, "simclr": alone, "lead": lead}).startswith(said)


def test_no_client_is_in_two_kinds_of_networks_of_the_grid():
    for sizes in GRID_SIZES:
        several = [SETUPS[f"grid_{networks}_{sizes}"].clients for networks in GRID_NETWORKS]
        for place in zip(*several, strict=True):
            assert len(set(place)) == len(place)


def test_the_rule_of_hardly_any_penalty_is_least_squares_on_products(table):
    """Fitted by hand: a constant, six columns, their squares and products."""
    rule = advice.fit(table, penalties=[1e-9])
    values = advice.transformed(table)
    products = np.stack([values[:, first] * values[:, second] for first in range(6) for second in range(first, 6)], 1)
    columns = np.c_[np.ones(len(values)), values, products]
    for gain, found in advice.predict(rule, values).items():
        by_hand = columns @ np.linalg.lstsq(columns, table[gain], rcond=None)[0]
        assert found == pytest.approx(by_hand, abs=1e-6)


@pytest.mark.parametrize(("changes", "message"), [
    ({"own": 1.0}, "own: got 1.0"), ({"peers": 0}, "peers: got 0"), ({"labels": 0}, "labels: got 0"),
    ({"photos": 1.5}, "photos: got 1.5"), ({"mismatch": -0.1}, "mismatch: got -0.1"), ({"rate": 0}, "rate: got 0")])
def test_what_cannot_be_is_named(changes, message):
    usual = {"labels": 10, "own": 0.5, "peers": 0.5, "photos": 500, "mismatch": 0.5, "rate": 1e-4}
    with pytest.raises(ValueError, match=message):
        advice.advise(**usual | changes, rule={})


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
    table = advice.observations(results, strengths, mismatches)
    assert len(table) == 12 and set(table["federation"]) == {"weak networks, few labels"} and set(advice.FEATURES) < set(table)
    assert table["fedmuscle"].tolist() == pytest.approx([np.log(3)] * 12) and table["simclr"].max() < 0
    assert table["lead"].tolist() == (table["fedmuscle"] - table["simclr"]).tolist() and table.attrs["left_out"] == []
    first = table.iloc[0]
    assert (first["labels"], first["own"], first["photos"], first["mismatch"]) == (40 / 20, 0.4, 128, 0.0)
    assert first["peers"] == pytest.approx((0.3 + 0.2 + 0.4 + 0.3 + 0.2) / 5) and table["mismatch"].max() == 0.5
    marker = results[cells[0], "simclr"][1].head(1).assign(split="diverged", value=np.nan)
    results[cells[0], "simclr"] = results[cells[0], "simclr"][0], marker
    table = advice.observations(results, strengths, mismatches)
    assert len(table) == 6 and table.attrs["left_out"] == [cells[0]]

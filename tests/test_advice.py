"""The rule of thumb of notebook 17, on gains that follow a known law."""

import numpy as np
import pandas as pd
import pytest

from fedmuscle_core.analysis import advice


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
    assert weak["sentence"].startswith("align") and strong["sentence"].startswith("do not align: harm")
    assert weak["outside"] == []
    assert weak["lead"][0] == pytest.approx(weak["fedmuscle"][0] - weak["simclr"][0], abs=0.05)
    far = advice.advise(own=0.3, peers=0.7, rule=rule, **usual | {"photos": 5000, "labels": 0.5})
    assert far["outside"] == ["labels", "photos"]
    assert far["sentence"].endswith("(a guess: labels, photos beyond what the rule was fitted on)")


@pytest.mark.parametrize(("aligned", "alone", "lead", "said"), [
    ((0.5, 0.1), (0.1, 0.2), (0.4, 0.1), "align: the others"),
    ((0.3, 0.1), (0.3, 0.1), (0.0, 0.1), "learn from public data, with"),
    ((-0.3, 0.1), (-0.2, 0.1), (-0.1, 0.2), "leave it"),
    ((0.05, 0.1), (0.0, 0.1), (0.05, 0.1), "do not count"),
    ((-0.3, 0.1), (0.05, 0.1), (-0.35, 0.1), "do not align: harm"),
    ((0.05, 0.1), (-0.3, 0.1), (0.35, 0.1), "do not learn from public data by yourself: harm"),
    ((0.25, 0.2), (-0.05, 0.3), (0.3, 0.4), "align: a gain"),
    ((0.0, 0.1), (0.3, 0.1), (-0.3, 0.4), "learn from public data by yourself: of"),
    ((0.2, 0.1), (0.6, 0.1), (-0.4, 0.1), "learn from public data by yourself: alignment")])
def test_what_is_said_follows_from_gains_and_errors(aligned, alone, lead, said):
    assert advice.sentence({"fedmuscle": aligned, "simclr": alone, "lead": lead}).startswith(said)


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


def test_a_missing_rule_is_named_with_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(advice, "RULE", tmp_path / "advice.json")
    advice.stored_rule.cache_clear()
    with pytest.raises(ValueError, match=r"advice.json: got no rule, expected .*fedmuscle_core.analysis.advice"):
        advice.advise(10, 0.5, 0.5, 500, 0.5, 1e-4)

"""The solvable federation: closed forms against playing it step by step, on both sides of the limit."""

import math

import numpy as np
import pytest

from fedmuscle_core.analysis.stability import (
    contraction,
    largest_rate,
    play,
    resting_gap,
    spread,
    squared_spread,
    turning_curvatures,
    turning_federation,
)

TWO = {"local_rate": 0.1, "contrastive_rate": 0.05, "local_steps": 5, "contrastive_steps": 8, "h": 0.7, "c": 1.3}


def rhos(values, num_clients=2, num_peers=1):
    return (contraction(values["local_rate"], values["h"], values["local_steps"]),
            contraction(values["contrastive_rate"], values["c"] * spread(num_clients, num_peers), values["contrastive_steps"]))


def test_two_clients_come_to_rest_where_the_formula_says():
    path = play([1.0, -0.5], 200, **TWO)
    gaps, (rho_local, rho_contrast) = path[:, :, 0] - path[:, :, 1], rhos(TWO)
    assert gaps[-1, 1] == pytest.approx(resting_gap(1.5, rho_local, rho_contrast))
    assert gaps[-1, 1] - gaps[-1, 0] == pytest.approx((1 - rho_contrast) * gaps[-1, 1])        # the tug of war
    assert gaps[5, 1] == pytest.approx(rho_local * rho_contrast * gaps[4, 1] + (1 - rho_local) * 1.5)
    assert path[-1, 1].mean() == pytest.approx(0.25)                          # the mean stays


def test_with_all_peers_every_difference_shrinks_by_the_same_factor():
    values, optima = TWO | {"contrastive_rate": 0.02}, np.array([1.0, -0.5, 0.3, 2.0])
    path, (rho_local, rho_contrast) = play(optima, 300, **values), rhos(values, 4, 3)
    wanted = optima.mean() + resting_gap(optima - optima.mean(), rho_local, rho_contrast)
    assert np.allclose(path[-1, 1], wanted)


def test_peers_drawn_at_random_shrink_differences_by_that_factor_on_average():
    values = TWO | {"contrastive_steps": 1, "local_steps": 0}
    optima = np.array([1.0, -0.5, 0.3, 2.0])
    ends = np.mean([play(optima, 1, num_peers=2, seed=seed, **values)[0, 0] for seed in range(4000)], axis=0)
    _, rho = rhos(values, 4, 2)
    assert np.allclose(ends - optima.mean(), rho * (optima - optima.mean()), atol=0.01)


@pytest.mark.parametrize(("num_clients", "share"), [(2, 0.98), (2, 1.02), (5, 0.98), (5, 1.02)])
def test_above_the_largest_rate_the_contrastive_phase_drives_clients_apart(num_clients, share):
    rate = share * largest_rate(1.3, num_clients, num_clients - 1)
    path = play(np.linspace(-1, 1, num_clients), 1, local_rate=0.0, contrastive_rate=rate, local_steps=1, contrastive_steps=400,
                c=1.3)
    assert (np.ptp(path[0, 0]) < 1) == (share < 1)


@pytest.mark.parametrize(("num_clients", "num_peers"), [(6, 1), (5, 2), (5, 4), (24, 3)])
def test_drawn_peers_spread_clients_more_and_the_largest_rate_is_where_that_begins(num_clients, num_peers):
    rng = np.random.default_rng(0)
    for share in (0.6, 0.9, 1.1):
        rate = share * largest_rate(1.3, num_clients, num_peers)
        factors = []
        for seed in range(1500):
            before = rng.normal(size=num_clients)
            after = play(before, 1, local_rate=0.0, contrastive_rate=rate, local_steps=1, contrastive_steps=1, c=1.3,
                         num_peers=num_peers, seed=seed)[0, 0]
            factors.append((after.var(), before.var()))
        after, before = np.mean(factors, axis=0)
        wanted = squared_spread(rate, 1.3, num_clients, num_peers)
        assert after / before == pytest.approx(wanted, rel=0.06) and (wanted < 1) == (share < 1)
    assert largest_rate(1.3, num_clients, num_clients - 1) == pytest.approx(2 / (1.3 * num_clients))


def test_local_phases_can_hold_what_the_contrastive_phase_alone_would_not():
    values = TWO | {"contrastive_rate": 1.01 * largest_rate(1.3), "contrastive_steps": 3}
    path, (rho_local, rho_contrast) = play([1.0, -0.5], 400, **values), rhos(values)
    assert abs(rho_contrast) > 1 > abs(rho_local * rho_contrast)
    assert path[-1, 1, 0] - path[-1, 1, 1] == pytest.approx(resting_gap(1.5, rho_local, rho_contrast))
    with pytest.raises(ValueError, match="rho_local, rho_contrast: got 0.9, -1.2, expected a product below 1"):
        resting_gap(1.0, 0.9, -1.2)


def test_the_tug_of_war_ends_with_the_rate():
    rates = 0.05 / np.arange(1, 401)
    falling, constant = (play([1.0, -0.5], 400, **TWO | {"contrastive_rate": rate}) for rate in (rates, 0.05))
    def moved(path):
        return np.abs(np.diff(path[:, 1] - path[:, 0]))[-1, 0]
    assert moved(falling) < 0.02 * moved(constant)


ALONE = {"local_rate": 1e-12, "local_steps": 1, "contrastive_steps": 8}


def test_the_curvatures_of_the_turning_federation_by_hand():
    """Of log(1 + exp(-sqrt(2) cos w)) at 0; of InfoNCE on eight points by differences."""
    h, c = turning_curvatures()
    assert h == pytest.approx(math.sqrt(2) / (1 + math.exp(math.sqrt(2))))
    angles = [math.pi * place / 4 for place in range(8)]

    def loss(turn):
        return math.log(sum(math.exp(math.cos(turn - angle) / 0.5) for angle in angles)) - math.cos(turn) / 0.5
    assert c == pytest.approx((loss(1e-4) + loss(-1e-4) - 2 * loss(0.0)) / 1e-8, rel=1e-4)


@pytest.mark.parametrize("num_clients", [2, 3])
@pytest.mark.parametrize("share", [0.1, 0.9, 0.97, 1.03])
def test_the_real_federation_contracts_and_breaks_where_the_formula_says(num_clients, share):
    _, c = turning_curvatures(num_clients - 1)
    rate = share * largest_rate(c, num_clients, num_clients - 1)
    optima = 1e-2 * np.linspace(-1, 1, num_clients)
    path = turning_federation(optima, 1, contrastive_rate=rate, **ALONE)
    measured = np.ptp(path[0]) / np.ptp(optima)
    assert measured == pytest.approx(abs(contraction(rate, c * spread(num_clients, num_clients - 1), 8)), rel=0.01, abs=1e-4)
    assert (measured < 1) == (share < 1) and path[0].mean() == pytest.approx(0, abs=1e-5)


def test_the_real_federation_comes_to_rest_where_the_formula_says():
    (h, c), optima = turning_curvatures(), (-0.02, 0.02)
    values = {"local_rate": 0.4, "local_steps": 3, "contrastive_steps": 4}
    for share in (0.01, 0.05, 0.9):
        rate = share * largest_rate(c)
        path = turning_federation(optima, 30, contrastive_rate=rate, **values)
        wanted = resting_gap(0.04, contraction(0.4, h, 3), contraction(rate, c * spread(2, 1), 4))
        assert path[-1, 1] - path[-1, 0] == pytest.approx(wanted, rel=0.01)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: spread(3, 3), "num_peers: got 3, expected 1 to 2 with 3 clients"),
    (lambda: largest_rate(0.0), "curvature: got 0.0"),
    (lambda: contraction(0.1, 1.0, -1), "steps: got -1"), (lambda: play([0, 1], 1, num_peers=2, **TWO), "num_peers: got 2"),
])
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

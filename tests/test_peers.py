"""Choice of peers: each policy against cases with a known answer."""

import math

import pytest
import torch

from fedmuscle_core import federation
from fedmuscle_core.experiments.runs import one_thread
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.peers import choose, credit
from fedmuscle_core.seeds import generator
from fedmuscle_core.server import choose_peers


def uploads(groups, seed=0):
    """One (16, 8) upload a client; clients of one group upload the same up to a rotation and a little noise."""
    rng = torch.Generator().manual_seed(seed)
    bases = {name: torch.randn(16, 8, generator=rng) for name in set(groups.values())}
    turned = {client: bases[name] @ torch.linalg.qr(torch.randn(8, 8, generator=rng))[0] for client, name in groups.items()}
    return {client: rows + 0.05 * torch.randn(16, 8, generator=rng) for client, rows in turned.items()}


def settings(choice, num_peers=1, setup="setup1"):
    return Settings(setup=setup, num_peers=num_peers, peer_choice=choice)


def test_random_is_the_servers_draw():
    rows = uploads(dict.fromkeys(range(1, 7), "a"))
    assert choose(settings("random", 3), rows, generator(0, "x"), {}, 1) == choose_peers(range(1, 7), 3, generator(0, "x"))


def test_held_is_one_draw_a_round():
    rows = uploads(dict.fromkeys(range(1, 7), "a"))
    draws = [[choose(settings("held", 2), rows, generator(batch), {}, round) for batch in range(3)] for round in (1, 2)]
    assert draws[0][0] == draws[0][1] == draws[0][2] != draws[1][0] == draws[1][1]


def test_similar_finds_the_twin_whatever_its_rotation():
    rows = uploads({1: "a", 2: "b", 3: "c", 4: "b", 5: "c", 6: "a"})
    assert choose(settings("similar"), rows, generator(0), {}, 1) == {1: [6], 2: [4], 3: [5], 4: [2], 5: [3], 6: [1]}


def test_task_prefers_clients_of_the_same_task_and_fills_up_at_random():
    rows = uploads(dict.fromkeys(range(1, 7), "a"))                           # Setup 1: MLC 1 to 3, IC100 4 and 5, IC10 6
    draws = [choose(settings("task", 2), rows, generator(seed), {}, 1) for seed in range(40)]
    assert all(draw[1] == [2, 3] and draw[3] == [1, 2] and 5 in draw[4] for draw in draws)
    assert {peer for draw in draws for peer in draw[4]} == {1, 2, 3, 5, 6}
    assert {peer for draw in draws for peer in draw[6]} == {1, 2, 3, 4, 5}


def test_bandit_tries_everybody_then_keeps_to_the_best_and_stays_with_it_through_a_round():
    rows, gains = uploads(dict.fromkeys(range(1, 7), "a")), {}
    for round in range(1, 6):
        chosen = choose(settings("bandit"), rows, generator(round), gains, round)
        assert chosen == choose(settings("bandit"), rows, generator(99), gains, round)
        for client, (peer,) in chosen.items():
            gains.setdefault((client, peer), []).append(10.0 if peer == client % 6 + 1 else 0.0)
    assert all(len(found) == 1 for found in gains.values()) and len(gains) == 30
    assert choose(settings("bandit"), rows, generator(0), gains, 6) == {client: [client % 6 + 1] for client in range(1, 7)}


def test_bandit_by_the_literal_formula():
    gains = {(1, 2): [0.3, 0.1], (1, 3): [0.0], (2, 1): [1.0], (2, 3): [1.0], (3, 1): [0.0], (3, 2): [0.5]}
    bounds = {2: 0.2 + math.sqrt(2 * math.log(4) / 2), 3: math.sqrt(2 * math.log(4))}
    best = max(bounds, key=bounds.get)
    rows = uploads(dict.fromkeys((1, 2, 3), "a"))
    assert choose(settings("bandit", 1, "quickstart"), rows, generator(0), gains, 4)[1] == [best]


def test_credit_is_the_standardised_relative_fall():
    gains = {}
    credit(gains, {1: [2, 3], 2: [3]}, {1: 2.0, 2: 1.0}, {1: 1.0, 2: 1.0})    # client 1 halved its loss, client 2 stood still
    assert gains == {(1, 2): [1.0], (1, 3): [1.0], (2, 3): [-1.0]}
    credit(gains, {1: [2]}, {1: 1.0}, {1: 0.5})                               # alone: nobody to compare with
    assert gains[1, 2] == [1.0, 0.0]


@pytest.mark.parametrize("choice", ["held", "similar", "task", "bandit"])
def test_every_choice_costs_the_same_bytes_but_for_the_bandits_one_number(tiny, choice):
    sent = {}
    for name in ("random", choice):
        with one_thread():
            history, _ = federation.train(federation.build(tiny(num_peers=1, peer_choice=name)), progress=False)
        sent[name] = history[history["round"] == 2]["bytes"].max()
    assert sent[choice] - sent["random"] == (4 if choice == "bandit" else 0)

"""Choice of peers: each policy against cases with a known answer."""

import math
from collections import Counter
from itertools import combinations

import pytest
import torch
from rounds import fit

from fedmuscle_core import peers
from fedmuscle_core.peers import choose_peers, credit
from fedmuscle_core.seeds import generator

SETUP_1 = {1: "mlc", 2: "mlc", 3: "mlc", 4: "ic100", 5: "ic100", 6: "ic10"}


def choose(how, uploads, rng, num_peers=1, *, gains=None, round=1, shifts=(0, 1)):
    return peers.choose(how, num_peers, uploads, rng, seed=0, round=round, tasks=SETUP_1, gains=gains or {}, shifts=shifts)


def test_shifted_peers_are_of_the_kind_that_is_given():
    """Six clients of three kinds: 1 and 4, 2 and 5, 3 and 6."""
    rows = uploads(dict.fromkeys(range(1, 7), "a"))
    draws = [choose("shifted", rows, generator(seed), shifts=(1, 0, 1)) for seed in range(30)]
    assert {draw[1][0] for draw in draws} == {2, 5} == {draw[4][0] for draw in draws}      # kind 0 by kind 1
    assert {draw[2][0] for draw in draws} == {5} and {draw[5][0] for draw in draws} == {2}             # kind 1 by its own
    assert {draw[3][0] for draw in draws} == {1, 4}                                        # kind 2 by kind 0
    rows.pop(4)
    assert {choose("shifted", rows, generator(seed), shifts=(1, 0, 1))[3][0] for seed in range(9)} == {1}  # places stay
    assert set(choose("shifted", rows, generator(0), 2, shifts=(1, 0, 1))[2]) >= {5}       # more than there are of a kind


def uploads(groups, seed=0):
    """One (16, 8) upload a client; clients of one group upload the same up to a rotation and a little noise."""
    rng = torch.Generator().manual_seed(seed)
    bases = {name: torch.randn(16, 8, generator=rng) for name in set(groups.values())}
    turned = {client: bases[name] @ torch.linalg.qr(torch.randn(8, 8, generator=rng))[0] for client, name in groups.items()}
    return {client: rows + 0.05 * torch.randn(16, 8, generator=rng) for client, rows in turned.items()}


def test_peers_are_other_clients_without_repetition_and_do_not_depend_on_the_order_of_clients():
    chosen = choose_peers([3, 1, 2, 5, 4], 3, generator(0, "peers"))
    assert sorted(chosen) == [1, 2, 3, 4, 5]
    for client, found in chosen.items():
        assert client not in found and len(set(found)) == 3 and found == sorted(found)
    assert chosen == choose_peers([1, 2, 3, 4, 5], 3, generator(0, "peers"))
    assert chosen != choose_peers([1, 2, 3, 4, 5], 3, generator(1, "peers"))


def test_every_set_of_peers_is_equally_likely():
    rng, draws = generator(0, "peers"), 6000
    seen = Counter(tuple(choose_peers(range(1, 6), 2, rng)[1]) for _ in range(draws))
    assert set(seen) == set(combinations([2, 3, 4, 5], 2))
    assert all(abs(count - draws / 6) < 5 * (draws / 6) ** 0.5 for count in seen.values())


@pytest.mark.parametrize("num_peers", [0, 3, 4])
def test_impossible_numbers_of_peers_are_refused(num_peers):
    with pytest.raises(ValueError, match=rf"num_peers: got {num_peers}, expected 1 to 2 with 3 clients"):
        choose_peers([1, 2, 3], num_peers, generator(0))


def test_random_is_the_servers_draw():
    rows = uploads(dict.fromkeys(range(1, 7), "a"))
    assert choose("random", rows, generator(0, "x"), 3) == choose_peers(range(1, 7), 3, generator(0, "x"))


def test_as_many_peers_as_there_are_where_fewer_are_there():
    rows = uploads({2: "a", 4: "a", 5: "b"})
    assert all(choose(how, rows, generator(0), 3) == {2: [4, 5], 4: [2, 5], 5: [2, 4]} for how in peers.PEER_CHOICES)


def test_held_is_one_draw_a_round():
    rows = uploads(dict.fromkeys(range(1, 7), "a"))
    draws = [[choose("held", rows, generator(batch), 2, round=round) for batch in range(3)] for round in (1, 2)]
    assert draws[0][0] == draws[0][1] == draws[0][2] != draws[1][0] == draws[1][1]


def test_similar_finds_the_twin_whatever_its_rotation():
    rows = uploads({1: "a", 2: "b", 3: "c", 4: "b", 5: "c", 6: "a"})
    assert choose("similar", rows, generator(0)) == {1: [6], 2: [4], 3: [5], 4: [2], 5: [3], 6: [1]}


def test_task_prefers_clients_of_the_same_task_and_fills_up_at_random():
    rows = uploads(dict.fromkeys(range(1, 7), "a"))                           # Setup 1: MLC 1 to 3, IC100 4 and 5, IC10 6
    draws = [choose("task", rows, generator(seed), 2) for seed in range(40)]
    assert all(draw[1] == [2, 3] and draw[3] == [1, 2] and 5 in draw[4] for draw in draws)
    assert {peer for draw in draws for peer in draw[4]} == {1, 2, 3, 5, 6}
    assert {peer for draw in draws for peer in draw[6]} == {1, 2, 3, 4, 5}


def test_bandit_finds_the_best_of_many_peers_within_a_few_rounds():
    """Of 24 clients one is worth more to all others; eight rounds are fewer than there are peers to try."""
    rows, gains, rng = {client: torch.zeros(2, 2) for client in range(1, 25)}, {}, generator(0, "gains")
    for round in range(1, 9):
        chosen = choose("bandit", rows, generator(round), gains=gains, round=round)
        assert chosen == choose("bandit", rows, generator(99), gains=gains, round=round)       # one choice a round
        for client, (peer,) in chosen.items():
            gains.setdefault((client, peer), []).append(3.0 * (peer == 7) + 0.3 * torch.randn((), generator=rng).item())
    assert sum(peer == 7 for (peer,) in chosen.values()) > 20
    assert {peer for _, peer in gains} == set(range(1, 25))                   # after everybody was tried by somebody


def test_bandit_by_the_literal_formula():
    gains = {(1, 2): [0.3, 0.1], (1, 3): [0.0], (2, 1): [1.0], (2, 3): [1.0], (3, 1): [0.0], (3, 2): [0.5]}
    bounds = {2: 0.2 + math.sqrt(2 * math.log(4) / 2), 3: math.sqrt(2 * math.log(4))}
    best = max(bounds, key=bounds.get)
    rows = uploads(dict.fromkeys((1, 2, 3), "a"))
    assert choose("bandit", rows, generator(0), gains=gains, round=4)[1] == [best]
    gains.pop((1, 3))                                                         # as others found it: 1.0, once
    assert choose("bandit", rows, generator(0), gains=gains, round=4)[1] == [3]
    gains.pop((2, 3))                                                         # nobody has had it
    assert choose("bandit", rows, generator(0), gains=gains | {(1, 2): [9.0]}, round=4)[1] == [3]


def test_credit_is_the_standardised_relative_fall():
    gains = {}
    credit(gains, {1: [2, 3], 2: [3]}, {1: 2.0, 2: 1.0}, {1: 1.0, 2: 1.0})    # client 1 halved its loss, client 2 stood still
    assert gains == {(1, 2): [1.0], (1, 3): [1.0], (2, 3): [-1.0]}
    credit(gains, {1: [2]}, {1: 1.0}, {1: 0.5})                               # alone: nobody to compare with
    assert gains[1, 2] == [1.0, 0.0]


def test_every_choice_costs_the_same_bytes_but_for_the_bandits_one_number(tiny):
    sent = {}
    for choice in peers.PEER_CHOICES:
        shifts = {"shifts": (1,)} if choice == "shifted" else {}
        history, _ = fit(tiny(num_peers=1, peer_choice=choice, **shifts))
        sent[choice] = history[history["round"] == 2]["bytes"].max()
    assert {choice: sent[choice] - sent["random"] for choice in sent} == dict.fromkeys(peers.PEER_CHOICES, 0) | {"bandit": 4}

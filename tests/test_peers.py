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


def users_of_the_best(speeds, rounds, worth=0.1, noise=0.03, best=7, num_peers=1, seed=0):
    """How many clients have the best peer in each round, and the bandit's `gains`; speeds: the fall of each client's loss
    without it, which is three times that in the first round and less and less later."""
    rng, gains, found = generator(seed, "losses"), {}, []
    rows, before = {client: torch.zeros(2, 2) for client in speeds}, dict.fromkeys(speeds, 1.0)
    for round in range(1, rounds + 1):
        chosen = choose("bandit", rows, generator(round), num_peers, gains=gains, round=round)
        assert chosen == choose("bandit", rows, generator(99), num_peers, gains=gains, round=round)     # one choice a round
        assert all(client not in several and len(set(several)) == num_peers for client, several in chosen.items())
        falls = {client: speed + 0.3 / round + worth * (best in chosen[client]) + noise * torch.randn((), generator=rng).item()
                 for client, speed in speeds.items()}
        after = {client: loss * (1 - falls[client]) for client, loss in before.items()}
        if round > 1:
            credit(gains, chosen, before, after)
        before = after
        found.append(sum(best in several for several in chosen.values()))
    return found, gains


@pytest.mark.parametrize("slowest", [0.2, 0.0], ids=["one speed", "speeds of their own"])
@pytest.mark.parametrize("num_peers", [1, 3])
def test_the_bandit_settles_on_the_best_peer_whatever_the_speeds_of_the_clients(slowest, num_peers):
    speeds = {client: slowest + (0.2 - slowest) * client / 24 for client in range(1, 25)}
    for seed in range(3):
        users, gains = users_of_the_best(speeds, 8, num_peers=num_peers, seed=seed)
        assert users[0] <= 2 * num_peers + 1 and min(users[-3:]) >= 20        # of the 23 who can
        assert max(gains["theta"], key=gains["theta"].get) == 7


def test_where_peers_do_not_matter_the_bandit_holds_on_to_none():
    users, gains = users_of_the_best(dict.fromkeys(range(1, 25), 0.1), 20, worth=0.0)
    assert max(users) < 12 and max(map(abs, gains["theta"].values())) < 0.03


def test_credit_by_normal_equations_written_out():
    """Least squares of all effects at once, penalised as the docstring says, by a solver that does not know about parts."""
    gains, falls = {}, []
    played = ({1: [2, 3], 2: [3, 4], 3: [1, 4], 4: [1, 2]}, {1: [4, 2], 2: [1, 3], 4: [3, 1]},
              {1: [3, 4], 2: [4, 1], 3: [2, 1]})
    for round, used in enumerate(played):
        now = {client: 0.1 * client - 0.05 * round * len(peers) + 0.02 * peers[0] ** 2 for client, peers in used.items()}
        falls += [(round, client, used[client], fall) for client, fall in now.items()]
        credit(gains, used, dict.fromkeys(used, 2.0), {client: 2.0 * (1 - fall) for client, fall in now.items()})
    x, y = torch.zeros(len(falls), 11, dtype=torch.float64), torch.tensor([fall for *_, fall in falls], dtype=torch.float64)
    for row, (round, client, several, _) in zip(x, falls, strict=True):
        for column in (client - 1, 4 + round, *(6 + peer for peer in several)):
            row[column] = 1
    penalty = torch.diag(torch.tensor([1e-9] * 7 + [1.0] * 4, dtype=torch.float64))
    inverse = torch.linalg.inv(x.T @ x + penalty)
    effects = inverse @ x.T @ y
    rest = y @ (y - x @ effects) / (len(falls) - (4 + 3 - 1))
    for peer in range(1, 5):
        assert gains["theta"][peer] == pytest.approx(effects[6 + peer].item(), abs=1e-6)
        assert gains["times"][peer] == pytest.approx(1 / inverse[6 + peer, 6 + peer].item(), rel=1e-5)
    assert gains["sigma"] == pytest.approx(math.sqrt(rest.item()), rel=1e-5)


def test_a_first_round_says_nothing_of_peers_and_the_bandit_tries_each_as_often():
    gains, rows = {}, uploads(dict.fromkeys(range(1, 7), "a"))
    credit(gains, {1: [2], 2: [1], 3: [1]}, dict.fromkeys((1, 2, 3), 1.0), {1: 0.2, 2: 0.9, 3: 0.5})
    assert "theta" not in gains and len(gains["falls"]) == 3
    served = Counter(peer for (peer,) in choose("bandit", rows, generator(0), gains=gains, round=2).values())
    assert max(served.values()) <= 2 and len(served) >= 5


def test_the_bandit_by_the_literal_bounds():
    """Two clients ask one after the other: what the first is served counts for the second."""
    gains = {"theta": {1: 0.0, 2: 0.3, 3: 0.2, 4: -9.0}, "times": {1: 4.0, 2: 2.0, 3: 5.0, 4: 9.0}, "sigma": 0.2}
    def bound(peer, more):
        return gains["theta"][peer] + 0.2 * math.sqrt(2 * math.log(3) / (gains["times"][peer] + more))
    found = choose("bandit", uploads(dict.fromkeys((1, 2, 3, 4), "a")), generator(0), gains=gains, round=3)
    assert bound(2, 2) > max(bound(1, 0), bound(3, 0))                        # whatever the order
    assert {client: found[client] for client in (1, 3, 4)} == {1: [2], 3: [2], 4: [2]} and found[2] in ([1], [3])


def test_every_choice_costs_the_same_bytes_but_for_the_bandits_one_number(tiny):
    sent = {}
    for choice in peers.PEER_CHOICES:
        shifts = {"shifts": (1,)} if choice == "shifted" else {}
        history, _ = fit(tiny(num_peers=1, peer_choice=choice, **shifts))
        sent[choice] = history[history["round"] == 2]["bytes"].max()
    assert {choice: sent[choice] - sent["random"] for choice in sent} == dict.fromkeys(peers.PEER_CHOICES, 0) | {"bandit": 4}


def test_among_many_clients_peers_are_different_others_and_all_alike():
    clients = range(10, 210)
    counts = dict.fromkeys(clients, 0)
    for seed in range(30):
        chosen = choose_peers(clients, 5, torch.Generator().manual_seed(seed))
        assert all(len(set(some)) == 5 and client not in some and some == sorted(some) for client, some in chosen.items())
        for some in chosen.values():
            for peer in some:
                counts[peer] += 1
    assert sum(counts.values()) == 30 * 200 * 5 and min(counts.values()) > 100 and max(counts.values()) < 200     # 150 expected
    assert choose_peers(range(80), 79, torch.Generator().manual_seed(0))[3] == [*range(3), *range(4, 80)]

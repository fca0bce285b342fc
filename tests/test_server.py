from collections import Counter
from itertools import combinations

import pytest

from fedmuscle_core.seeds import generator
from fedmuscle_core.server import choose_peers


def test_peers_are_other_clients_without_repetition_and_do_not_depend_on_the_order_of_clients():
    chosen = choose_peers([3, 1, 2, 5, 4], 3, generator(0, "peers"))
    assert sorted(chosen) == [1, 2, 3, 4, 5]
    for client, peers in chosen.items():
        assert client not in peers and len(set(peers)) == 3 and peers == sorted(peers)
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

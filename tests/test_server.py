"""What the server knows of its clients, who is there, and which replies it accepts."""

import warnings

import pytest
import torch

from fedmuscle_core.exchange import Stage, expect
from fedmuscle_core.server import Server

LIKE = {"state": torch.zeros(3)}
GOOD = {"state": torch.ones(3)}


def server(count=6, **fields):
    return Server(0, cards={name: {"task": f"task {name}", "public_size": 20} for name in range(count, 0, -1)}, **fields)


def stage(check=lambda client, reply: expect(reply, LIKE)):
    return Stage("hand_in", [1, 2, 3], lambda client: {}, check)


def test_what_clients_registered_is_known_in_the_order_of_their_names():
    found = server(3)
    assert found.clients == [1, 2, 3] and found.public_size == 20
    assert list(found.known("task").items()) == [(1, "task 1"), (2, "task 2"), (3, "task 3")]


def test_clients_miss_the_share_of_rounds_that_absence_says():
    rounds = [server(absence=0.3).present(round) for round in range(1, 1001)]
    for client in range(1, 7):
        assert sum(client in present for present in rounds) / 1000 == pytest.approx(0.7, abs=0.06)    # 4 standard deviations
    assert server().present(1) == [1, 2, 3, 4, 5, 6]
    assert rounds[:20] == [server(absence=0.3).present(round) for round in range(1, 21)]
    assert rounds != [Server(1, 0.3, cards=server().cards).present(round) for round in range(1, 1001)]


def test_who_is_there_does_not_depend_on_who_else_takes_part():
    few, many = (Server(0, 0.5, cards=dict.fromkeys(range(1, count))) for count in (4, 9))
    for round in range(1, 20):
        assert few.present(round) == [client for client in many.present(round) if client < 4]


@pytest.mark.parametrize("bad_uploads", ["raise", "skip"])
def test_good_replies_come_back_sorted_by_client(bad_uploads):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = server(bad_uploads=bad_uploads).accepted(stage(), {3: GOOD, 1: GOOD})
    assert list(found) == [1, 3] and found[1] is GOOD


BAD = {
    "not a mapping": ([torch.ones(3)], "got list, expected a message"),
    "nothing": (None, "got NoneType, expected a message"),
    "shape": ({"state": torch.ones(2)}, r"got 'state' as float32 of shape \(2,\)"),
    "missing": ({}, "got nothing as 'state'"),
}


@pytest.mark.parametrize(("bad", "message"), BAD.values(), ids=BAD)
def test_a_bad_reply_names_the_client_and_the_stage_or_is_left_out(bad, message):
    with pytest.raises(ValueError, match=f"client 2: hand_in: {message}"):
        server().accepted(stage(), {1: GOOD, 2: bad, 3: GOOD})
    skipping = server(bad_uploads="skip")
    for times in (1, 2):
        with pytest.warns(UserWarning, match=f"client 2 is left out of 'hand_in': {message}"):
            assert list(skipping.accepted(stage(), {1: GOOD, 2: bad, 3: GOOD})) == [1, 3]
        assert skipping.left_out == {2: times}


def test_without_a_check_any_mapping_passes():
    found = server().accepted(stage(check=None), {1: {"state": torch.full((3,), torch.nan)}})
    assert list(found) == [1]


@pytest.mark.parametrize(("fields", "message"), [
    ({"absence": 1.0}, "absence: got 1.0, expected a finite number of at least 0 and below 1"),
    ({"absence": -0.1}, "absence: got -0.1"),
    ({"absence": True}, "absence: got True"),
    ({"bad_uploads": "ignore"}, r"bad_uploads: got 'ignore', expected one of \('raise', 'skip'\)"),
])
def test_bad_fields_are_named(fields, message):
    with pytest.raises(ValueError, match=message):
        Server(0, **fields)

"""Flower moves the same messages: histories equal those of the in-process engine to the bit.  Skipped without the extra
[flower]."""

import warnings
from pathlib import Path

import pandas as pd
import pytest
import torch

pytest.importorskip("flwr", reason="the extra [flower] is not installed")

from small_clients import CLIENTS, TRAINING, federation, make_client, method  # noqa: E402

from fedmuscle_core import Centralised, FedMuscle, MFed  # noqa: E402
from fedmuscle_core.engines import flower  # noqa: E402
from fedmuscle_core.experiments.runs import one_thread  # noqa: E402
from fedmuscle_core.federation import client_state  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")       # of Flower and Ray
TRAVELLING = [("local", {}), ("simclr", {}), ("cofed", {}), ("fedhenn", {}), ("gramian", {"refresh": "round"}),
              ("pairwise", {"refresh": "round"}), ("fedmuscle", {"refresh": "round"}),
              ("fedmuscle", {"refresh": "round", "peer_choice": "bandit"}),
              *((name, {"measure_gradients": False}) for name in ("fedavg", "fedprox", "encoder_only", "matfl", "mfed")),
              ("mfed", {"share": "decoder", "measure_gradients": False})]


class Nodes(flower.Grid):
    """Flower's grid without Flower between: every message is packed, answered by a fresh client that has only its file, in
    turned order, and unpacked."""

    def __init__(self, method, folder):
        super().__init__(None, 4)
        self.method, self.folder = method, folder

    def names(self):
        self.nodes = {name: name for name in CLIENTS}
        return sorted(self.nodes, reverse=True)

    def send(self, calls):
        self.number += 1
        return {client: self.answer(client, flower.packed([self.number, mine])) for client, mine in reversed(calls.items())}

    def answer(self, name, record):
        fresh = make_client(name).join(0, TRAINING, self.method.contrastive_lr)
        return flower.unpacked(flower.reply_to(fresh, self.method, self.folder, record))


@pytest.mark.parametrize(("name", "changes"), TRAVELLING)
def test_every_method_that_travels_gives_the_same_bits(name, changes, tmp_path):
    with one_thread():
        here = federation(method(name, **changes))
        history = here.fit(2, progress=False)
        there = federation(method(name, **changes), clients=())
        again = there.fit(2, engine=Nodes(there.method, tmp_path), progress=False)
    pd.testing.assert_frame_equal(again, history, check_exact=True)
    assert there.ledger.entries == here.ledger.entries and there.alignment == here.alignment


def test_the_simulation_gives_the_same_bits_and_trains_the_clients_in_place(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))                # its processes import these clients' modules
    with one_thread():
        here, there = (federation(method("fedmuscle", refresh="round")) for _ in range(2))
        history = here.fit(2, progress=False)
    pd.testing.assert_frame_equal(there.fit(2, engine="flower", progress=False), history, check_exact=True)
    assert there.ledger.entries == here.ledger.entries
    for one, other in zip(here.clients, there.clients, strict=True):
        states = [client_state(client)["network"] for client in (one, other)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(("found", "message"), [
    (FedMuscle(num_peers=1, batch_size=8), "engine: got 'flower' with FedMuscle, .* that can travel: refresh is 'batch'"),
    (Centralised(), "Centralised, expected a method that can travel: whole networks go to the server"),
    (MFed(), "M-Fed, expected a method that can travel: measure_gradients is True")])
def test_what_cannot_travel_is_refused_by_name(found, message):
    with pytest.raises(ValueError, match=message):
        flower.connect(federation(found))


def test_messages_come_back_as_they_were_sent():
    message = [3, [["local", {"round": 2, "tell": False, "members": [[1, 2], ["a", "b"]], "nothing": None,
                              "payloads": [[torch.rand(2, 3), torch.arange(4).short()], [torch.rand(1) > 2]]}]]]
    again = flower.unpacked(flower.packed(message))
    assert again[0] == 3 and again[1][0][1]["members"] == [[1, 2], ["a", "b"]] and again[1][0][1]["nothing"] is None
    for sent, came in zip(message[1][0][1]["payloads"], again[1][0][1]["payloads"], strict=True):
        assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(sent, came, strict=True))


def test_a_late_message_is_refused_and_changes_nothing(tmp_path):
    found, client = method("local"), make_client(1)
    client.join(0, TRAINING)
    ask = flower.packed([5, [["local", {"round": 1}]]])
    first = flower.unpacked(flower.reply_to(client, found, tmp_path, ask))
    state = flower.state_path(tmp_path, client).read_bytes()
    for late in (ask, flower.packed([4, [["local", {"round": 1}]]])):
        with pytest.raises(ValueError, match="client 1: got message [45], expected one after 5: it came late"):
            flower.reply_to(client, found, tmp_path, late)
    assert flower.state_path(tmp_path, client).read_bytes() == state and first[0]["local_loss"] > 0


def test_nodes_that_fail_or_are_late_are_absent():
    """The engine over a grid of which one node raises and one never answers."""
    from flwr.app import Error, Message

    class FlowerGrid:
        def get_node_ids(self):
            return [11, 12, 13, 14]

        def push_messages(self, messages):
            self.replies = []
            for place, message in enumerate(messages):
                message.metadata.__dict__["_message_id"] = f"id{place}"
                node = message.metadata.dst_node_id
                if node == 13:
                    self.replies.append(Message(Error(code=2, reason="on fire"), reply_to=message))
                elif node != 14 or flower.unpacked(message.content)[1][0][0] == "introduce":
                    self.replies.append(Message(flower.packed([{"name": node - 10, "sum": node}]), reply_to=message))
            return [f"id{place}" for place in range(len(messages))]

        def pull_messages(self, waiting):
            return [self.replies.pop()] if self.replies else []

    engine = flower.Grid(FlowerGrid(), 4, patience=1.0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert engine.names() == [1, 2, 4]
        from fedmuscle_core.exchange import Stage
        (found,) = engine.ask([Stage("add", [1, 2, 4], lambda client: {})])
    assert found == {1: {"name": 1, "sum": 11}, 2: {"name": 2, "sum": 12}}
    texts = [str(each.message) for each in said]
    assert any("node 13 is absent: error 2: on fire" in text for text in texts)
    assert any("1 nodes are absent: no answer within 1 s" in text for text in texts)

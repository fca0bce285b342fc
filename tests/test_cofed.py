"""CoFED: who votes for what, and what is learnt from the votes."""


import pytest
import torch
import torch.nn.functional as F
from rounds import begin, play
from small_clients import CLIENTS, federation, make_client, method
from small_clients import fit as small_fit
from torch import nn

from fedmuscle_core import Client, CoFED, Network, classification, multilabel, segmentation
from fedmuscle_core.client import LocalStep
from fedmuscle_core.methods import cofed


class Answering(Network):
    """Its outputs are its inputs, in the shape that a task has."""

    def __init__(self, width, *shape):
        super().__init__(nn.Identity(), nn.Linear(width, width))
        self.shape = shape
        nn.init.eye_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def decode(self, features):
        return self.head(features).view(-1, *self.shape)


def voter(task, logits, targets, *shape):
    return Client("voter", Answering(logits.shape[1], *shape), None, task, train=(logits, targets), public=logits)


def test_a_client_votes_only_where_it_is_sure():
    logits = torch.tensor([[0.6, 0.3, 0.1], [0.45, 0.4, 0.15], [0.1, 0.1, 0.8]]).log()
    client = voter(classification(3), logits, torch.arange(3), 3)
    votes = CoFED(vote_margin=0.25).vote(client, {})["votes"]
    assert votes.tolist() == [0, -1, 2] and votes.dtype == torch.int16
    assert CoFED(vote_margin=0.04).vote(client, {})["votes"].tolist() == [0, 0, 2]


def test_it_votes_for_or_against_each_label():
    logits = torch.tensor([[4.0, -4.0, 0.1]]).repeat(3, 1)                      # yes, no, about one half
    client = voter(multilabel(3), logits, torch.ones(3, 3), 3)
    assert CoFED(vote_margin=0.3).vote(client, {})["votes"].tolist() == [[1, 0, -1]] * 3


def test_it_votes_on_every_pixel():
    logits = torch.tensor([[[[3.0, 0.0], [0.0, 0.0]], [[0.0, 0.1], [5.0, -4.0]]]])
    client = voter(segmentation(2), logits.flatten(1), torch.zeros(1, 2, 2, dtype=torch.long), 2, 2, 2)
    assert CoFED(vote_margin=0.3).vote(client, {})["votes"].tolist() == [[[0, -1], [1, 0]]]
    assert CoFED().register(client, {})["vote_shape"] == [2, 2]


def test_pseudo_labelled_samples_are_spread_over_the_steps_each_once(monkeypatch):
    client, seen = make_client(1), []
    client.seed = 0
    monkeypatch.setattr(cofed, "pseudo_loss", lambda client, inputs, labels: seen.extend(labels.tolist()) or torch.tensor(3.0))
    labels = torch.where(torch.arange(20) % 4 == 0, -1, torch.arange(20))
    extend = cofed.pseudo_labelled(client, labels, round=2)
    losses = [extend(torch.tensor(1.0), LocalStep(number, 6, None, range(8))).item() for number in range(6)]
    assert sorted(seen) == [label for label in labels.tolist() if label >= 0]
    assert losses == pytest.approx([(8 + 3 * size) / (8 + size) for size in (3, 3, 3, 2, 2, 2)])


def test_steps_without_a_pseudo_labelled_sample_are_as_they_were():
    client = make_client(1)
    client.seed = 0
    extend = cofed.pseudo_labelled(client, torch.full((20,), -1), round=2)
    assert extend(torch.tensor(1.0), LocalStep(0, 6, None, range(8))).item() == 1


def test_multi_label_pseudo_labels_count_only_where_there_was_a_vote():
    client = make_client(3)
    client.network.eval()
    inputs, labels = client.public.inputs[:2], torch.tensor([[-1, 1, -1], [0, -1, -1]])
    logits = client.network(inputs)
    by_hand = (-F.logsigmoid(logits[0, 1]) - F.logsigmoid(-logits[1, 0])) / 2
    assert cofed.pseudo_loss(client, inputs, labels).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_classes_count_only_where_there_was_a_vote():
    client = make_client(1)
    client.network.eval()
    inputs, labels = client.public.inputs[:3], torch.tensor([2, -1, 0])
    logs = client.network(inputs).log_softmax(1)
    assert cofed.pseudo_loss(client, inputs, labels).item() == pytest.approx(-(logs[0, 2] + logs[2, 0]).item() / 2, rel=1e-5)


def test_it_trains_alone_in_the_first_round_and_counts_the_bytes_of_its_votes():
    history, local = (small_fit(federation(method(name)), 2) for name in ("cofed", "local"))
    early = [table[table["round"] <= 1].drop(columns="method").reset_index(drop=True) for table in (history, local)]
    assert early[0].equals(early[1]) and not history["value"].equals(local["value"])
    sent = history[history["round"] == 2].groupby("task")["bytes"].first()
    assert sent.to_dict() == {"birds": 2 * 2 * 20, "scenes": 2 * 2 * 20 * 3}    # int16, up and down


def test_clients_of_one_label_space_get_the_labels_that_they_counted_together(monkeypatch):
    """Votes of clients 1 and 2 and of 3 and 4, those who are left out aside."""
    cast = {1: torch.full((20,), 2), 2: torch.arange(20) % 3, 3: torch.ones(20, 3), 4: torch.zeros(20, 3)}
    labels = {}
    monkeypatch.setattr(CoFED, "vote", lambda self, client, message: {"votes": cast[client.name].short()})
    monkeypatch.setattr(CoFED, "local", lambda self, client, message: labels.update({client.name: message.get("labels")}) or {
        "local_loss": 0.0})
    found = begin(federation(CoFED(vote_share=0.6)), 2)
    play(found, 1)
    assert labels == dict.fromkeys(CLIENTS)
    play(found, 2)
    agreed = torch.where(torch.arange(20) % 3 == 2, 2, -1).short()
    assert torch.equal(labels[1], agreed) and torch.equal(labels[2], agreed)
    assert torch.equal(labels[3], torch.full((20, 3), -1).short()) and torch.equal(labels[4], labels[3])


@pytest.mark.parametrize(("votes", "message"), [
    (torch.zeros(20, dtype=torch.long), r"got 'votes' as int64 of shape \(20,\), expected int16 of shape \(20,\)"),
    (torch.zeros(20), "got 'votes' as float32"),
    (torch.zeros(19).short(), r"got 'votes' as int16 of shape \(19,\)"),
    (torch.zeros(20, 1).short(), r"got 'votes' as int16 of shape \(20, 1\)"),
    (torch.full((20,), 3).short(), "got votes from 3 to 3, expected -1 to 2"),
    (torch.full((20,), -2).short(), "got votes from -2 to -2, expected -1 to 2"),
    ([0] * 20, "got list as 'votes'"),
])
def test_what_are_no_votes_is_refused(votes, message):
    card = federation(method("cofed")).server.cards[1]
    CoFED().check_votes({"votes": torch.arange(20).remainder(4).sub(1).short()}, card)
    with pytest.raises(ValueError, match=message):
        CoFED().check_votes({"votes": votes}, card)


def test_votes_on_labels_are_for_or_against():
    card = federation(method("cofed")).server.cards[3]
    with pytest.raises(ValueError, match="got votes from 0 to 2, expected -1 to 1"):
        CoFED().check_votes({"votes": 2 * torch.eye(20)[:, :3].short()}, card)


def test_clients_of_one_task_whose_votes_cannot_be_counted_together_are_refused():
    cards = {1: {"task": "pixels", "vote_shape": [8, 8], "vote_classes": 3},
             2: {"task": "birds", "vote_shape": [], "vote_classes": 3},
             3: {"task": "pixels", "vote_shape": [4, 4], "vote_classes": 3}}
    with pytest.raises(ValueError, match=r"client 3: got votes of shape and classes \(\[4, 4\], 3\) on a public sample, "
                                         r"expected \(\[8, 8\], 3\) as others"):
        method("cofed").check_cards(cards)
    method("cofed").check_cards({client: cards[client] for client in (1, 2)})

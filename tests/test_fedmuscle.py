"""FedMuscle and its ablation: what is sent, at which temperatures, and which loss it gives."""

import pytest
import torch
from literal import muscle_tuples, unit
from small_clients import make_client

from fedmuscle_core import FedMuscle, Pairwise


def draw(num_peers, batch_size=4, dim=6):
    rng = torch.Generator().manual_seed(num_peers)
    rows = unit(torch.randn(num_peers + 1, batch_size, dim, generator=rng, dtype=torch.float64))
    return rows[0], rows[1:]


def test_pairs_of_one_kind_have_the_usual_temperatures():
    plain, raised = FedMuscle(), FedMuscle(tau_cross=0.4)
    assert plain.temperatures(["image", "text"]) == (0.2, 0.15)
    assert raised.temperatures(["image", "image"]) == (0.2, 0.15)
    assert Pairwise(tau=0.3).temperatures(["image", "text"]) == (0.3, 0.3)


def test_distant_pairs_have_one_of_their_own_in_the_same_ratio():
    tau, tau_prev = FedMuscle(tau_cross=0.4).temperatures(["text", "image", "image", "text"])
    assert torch.allclose(tau[0], torch.tensor([0.2, 0.4, 0.4, 0.2], dtype=torch.float64))
    assert torch.allclose(tau_prev, torch.tensor([[0.15, 0.15, 0.3], [0.15, 0.15, 0.3], [0.3, 0.3, 0.15]], dtype=torch.float64))


@pytest.mark.parametrize("kinds", [["a"] * 3, ["a", "b", "a"], ["a", "b", "b"]])
@pytest.mark.parametrize("protocol", ["matrices", "tuples"])
@pytest.mark.parametrize("make", [FedMuscle, Pairwise])
def test_the_loss_from_what_is_served_is_the_literal_one(make, protocol, kinds):
    anchor, peers = draw(2)
    found = make(protocol=protocol, tau_cross=0.5)
    loss = found.loss(make_client(1), anchor, found.serve(peers, kinds), kinds, (1, 0))
    tau, tau_prev = found.temperatures(kinds)
    literal = muscle_tuples(anchor, peers, tau, tau_prev, learned=make is FedMuscle).mean()
    assert loss.item() == pytest.approx(literal.item(), abs=1e-12)


def test_drawn_tuples_are_named_by_client_round_and_batch():
    anchor, peers = draw(3)
    client, found = make_client(1), FedMuscle(num_samples=64)
    client.seed = 0
    where = {name: found.loss(client, anchor, (peers,), [""] * 4, name).item() for name in ((1, 0), (1, 1), (2, 0))}
    assert len(set(where.values())) == 3
    torch.rand(5)
    assert found.loss(client, anchor, (peers,), [""] * 4, (1, 1)).item() == where[1, 1]
    client.name = 2
    assert found.loss(client, anchor, (peers,), [""] * 4, (1, 1)).item() != where[1, 1]

"""FedHeNN: kernels of public batches, their mean, and the term of the local objective."""

import pytest
import torch
from literal import cka_by_definition
from rounds import begin, fit, play
from small_clients import CLIENTS, TRAINING, federation, make_client, method
from small_clients import fit as small_fit

from fedmuscle_core import FedHeNN
from fedmuscle_core.client import LocalStep, embed, public_batch

ASKED = {"round": 1}


def joined(**changes):
    """(client 1, method)"""
    return make_client(1, plain=True).join(0, TRAINING), method("fedhenn", **changes)


def test_kernels_are_those_of_the_public_batches():
    client, found = joined()
    kernels = found.kernels(client, ASKED)["kernels"]
    batches = found.batches(0, 20, 1)
    assert [len(rows) for rows in batches] == [8, 8] and len(kernels) == 2
    for kernel, rows in zip(kernels, batches, strict=True):
        rows = embed(client, client.public.inputs[rows])
        assert torch.equal(kernel, rows @ rows.T) and not kernel.requires_grad


@pytest.mark.parametrize(("steps", "carrying"), [(7, 2), (2, 2), (1, 1)])
def test_as_many_steps_carry_the_term_as_there_are_public_batches(steps, carrying):
    client, found = joined(eta=2.0)
    means, terms = [torch.eye(8)] * 2, []
    extend = found.kernel_term(client, means, 1, terms)
    losses = [extend(torch.tensor(1.0), LocalStep(number, steps, None, None)).item() for number in range(steps)]
    assert sum(loss > 1 for loss in losses) == len(terms) == carrying
    assert max(losses) == pytest.approx(1 + 2 * max(terms))


def test_the_term_is_one_minus_cka_of_the_batch_of_the_step():
    client, found = joined(eta=0.5)
    means = [torch.rand(8, 8, generator=torch.Generator().manual_seed(number)) for number in (0, 1)]
    means = [mean @ mean.T for mean in means]
    terms = []
    extend = found.kernel_term(client, means, 3, terms)
    for number, rows in enumerate(found.batches(0, 20, 3)):
        loss = extend(torch.tensor(1.0), LocalStep(number, 2, None, None))
        features = embed(client, public_batch(client, rows, False)).double()
        term = 1 - cka_by_definition(features, means[number].double())
        assert loss.item() == pytest.approx(1 + 0.5 * term.item(), rel=1e-5)
    assert len(terms) == 2


def test_everybody_gets_the_means_of_those_who_are_there(monkeypatch):
    served, sent, local, kernels = {}, {}, FedHeNN.local, FedHeNN.kernels
    monkeypatch.setattr(FedHeNN, "local", lambda self, client, message: served.update({client.name: message.get("kernels")})
                        or local(self, client, message))
    monkeypatch.setattr(FedHeNN, "kernels", lambda self, client, message: sent.setdefault(
        client.name, kernels(self, client, message)))
    found = begin(federation(method("fedhenn"), absence=0.5), 20)
    round = next(round for round in range(1, 20) if len(found.server.present(round)) == 2)
    measured = play(found, round)
    present = found.server.present(round)
    assert set(sent) == set(present) == {client for client in CLIENTS if served[client] is not None}
    for client in present:
        for number in (0, 1):
            mean = sum(sent[other]["kernels"][number] for other in present) / 2
            assert torch.allclose(served[client][number], mean)
    assert set(measured["kernel_loss"]) == set(present) and set(measured["local_loss"]) == set(CLIENTS)


def test_kernels_alone_are_exchanged():
    history = small_fit(federation(method("fedhenn")), 1)
    assert set(history[history["round"] == 1]["bytes"]) == {2 * (20 // 8) * 8 * 8 * 4}


def test_the_term_pulls_the_clients_kernels_together(tiny):
    """Against a run whose term has no weight: CKA between clients on held-out scenes is higher."""
    found = []
    for eta in (1e-6, 10.0):
        _, federation = fit(tiny(method="fedhenn", eta=eta, public_size=128))
        matrix = torch.tensor(federation.alignment["after"]["cka"])
        found.append(matrix[~torch.eye(3, dtype=bool)].mean().item())
    assert found[1] > found[0] + 0.05


@pytest.mark.parametrize(("kernels", "message"), [
    ([torch.eye(8)], "got 1 as kernels, expected 2 of them"), (None, "got NoneType as kernels, expected 2 of them"),
    (torch.ones(2, 8, 8), "got Tensor as kernels, expected 2 of them"),
    ([torch.eye(8), torch.eye(7)], r"got 'kernel 1' as float32 of shape \(7, 7\), expected float32 of shape \(8, 8\)"),
    ([torch.eye(8), None], "got NoneType as 'kernel 1'"),
])
def test_what_are_no_kernels_is_refused_with_the_client(monkeypatch, kernels, message):
    monkeypatch.setattr(FedHeNN, "kernels", lambda self, client, message: {"kernels": kernels})
    with pytest.raises(ValueError, match=f"client 1: kernels: {message}"):
        small_fit(federation(method("fedhenn")), 1)

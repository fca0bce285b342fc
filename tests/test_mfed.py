"""M-Fed: the term of the global decoder, and M-Fed without one of its parts."""

import copy

import pytest
import torch
from rounds import begin, begun, equal, play, states, vector
from small_clients import CLIENTS, TRAINING, federation, make_client, method, played

from fedmuscle_core import EncoderOnly, FedProx, MFed
from fedmuscle_core.client import LocalStep
from fedmuscle_core.methods import sharing
from fedmuscle_core.networks.client_network import num_parameters


def moved_decoder(client):
    return {name: value + 0.1 for name, value in sharing.copied(client.network.decoder()).items()}


def test_it_adds_the_loss_of_the_fixed_global_decoder():
    client = make_client(1, plain=True)
    other, data, task = moved_decoder(client), client.data["train"], client.task
    twin = copy.deepcopy(client.network)
    twin.decoder().load_state_dict(other)
    own = task.loss(client.network(data.inputs), data.targets)
    expected = own + 0.7 * task.loss(twin(data.inputs), data.targets)
    features = client.network.encode(data.inputs)
    extend = MFed(lam=0.7).term(client, other, 1 / 3)
    loss = extend(task.loss(client.network.decode(features), data.targets), LocalStep(0, 1, features, data.targets))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    first = next(client.network.encoder().parameters())
    ours = torch.autograd.grad(loss, [first, *client.network.decoder().parameters()])
    through_both = torch.autograd.grad(own, first)[0] + 0.7 * torch.autograd.grad(
        task.loss(twin(data.inputs), data.targets), next(twin.encoder().parameters()))[0]
    assert torch.allclose(ours[0], through_both, atol=1e-6)
    decoder = list(client.network.decoder().parameters())
    alone = torch.autograd.grad(task.loss(client.network(data.inputs), data.targets), decoder)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(ours[1:], alone, strict=True))    # the term leaves D_c alone


def test_the_term_copies_the_decoder_alone_and_leaves_the_client_as_it_is(monkeypatch):
    client, copies, copy_of = make_client(1, plain=True), [], copy.deepcopy
    client.network.train()
    monkeypatch.setattr(copy, "deepcopy", lambda *arguments: copies.append(copy_of(*arguments)) or copies[-1])
    MFed().term(client, moved_decoder(client), 1.0)
    fixed, = copies
    assert fixed.encoder() is client.network.encoder()
    assert all(one.requires_grad for one in client.network.parameters()) and client.network.head.training
    assert not {id(one) for one in fixed.decoder().parameters()} & {id(one) for one in client.network.parameters()}


@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter")
@pytest.mark.parametrize("kind", [MFed(), MFed(decoder_term="distance"), FedProx()])
def test_a_term_is_computed_where_the_client_works_whatever_the_device_of_what_came(kind):
    """With the device without numbers in place of an accelerator, for which the client leaves host memory."""
    client = make_client(1, plain=True, offload=True, works_on="meta").join(0, TRAINING)
    extend = kind.objective(client, {"decoder": moved_decoder(client)}, {"round": 1, "rounds": 3})
    client.network.to("meta")
    features, wanted = torch.empty(4, 6, device="meta"), torch.empty(4, dtype=torch.long, device="meta")
    loss = extend(torch.empty((), device="meta"), LocalStep(0, 1, features, wanted))
    assert loss.is_meta and loss.ndim == 0


@pytest.mark.parametrize("progress", [1 / 3, 2 / 3, 1.0])
def test_the_distance_to_the_global_decoder_weighs_more_every_round(progress):
    client = make_client(1, plain=True)
    extend = MFed(lam=0.5, decoder_term="distance").term(client, moved_decoder(client), progress)
    expected = 2 + 0.5 * progress * 0.01 * num_parameters(client.network.decoder())
    assert extend(torch.tensor(2.0), None).item() == pytest.approx(expected, rel=1e-4)


def test_it_trains_with_the_decoder_that_the_server_sent_and_with_the_weight_of_the_round(monkeypatch):
    asked, term = [], MFed.term
    monkeypatch.setattr(MFed, "term", lambda self, client, decoder, progress: asked.append(
        (progress, client.task.name, decoder)) or term(self, client, decoder, progress))
    found, _ = played("mfed", 2)
    assert [progress for progress, *_ in asked] == pytest.approx([1 / 3] * 4 + [2 / 3] * 4)
    assert all(equal(decoder, found.server.memory.decoders[task]) for _, task, decoder in asked[4:])


def test_the_term_and_its_kind_matter():
    ends = [vector(played("mfed", 2, **changes)[0].clients[0]) for changes in (
        {"lam": 0.0}, {"lam": 1.0}, {"decoder_term": "distance"})]
    assert not any(torch.equal(ends[one], ends[other]) for one, other in ((0, 1), (0, 2), (1, 2)))


def test_without_its_weight_the_term_is_gone():
    ends = [vector(played("mfed", 2, **changes)[0].clients[0]) for changes in (
        {"lam": 0.0}, {"lam": 0.0, "decoder_term": "distance"})]
    assert torch.equal(*ends)


@pytest.mark.parametrize("small", [True, False])
def test_a_frozen_encoder_stays_as_it_was_to_the_last_bit_and_decoders_learn(shared, small):
    found = begin(federation(method("mfed", share="decoder"), plain=True), 3) if small else begun(shared(share="decoder"))
    before = states(found.clients, "encoder"), states(found.clients, "decoder")
    for round in (1, 2):
        measured = play(found, round)
    after = states(found.clients, "encoder"), states(found.clients, "decoder")
    for client in CLIENTS:
        assert equal(before[0][client], after[0][client])
        assert not equal(before[1][client], after[1][client])
    assert measured["gradient_norm"] == {}


def test_without_decoder_averaging_the_term_is_gone():
    first, second = (played("mfed", 2, share="encoder", lam=lam)[0] for lam in (0.0, 1.0))
    assert all(equal(one, two) for one, two in zip(states(first.clients, "decoder").values(),
                                                   states(second.clients, "decoder").values(), strict=True))


@pytest.mark.parametrize(("sizes", "same"), [((24, 10, 24, 10), True), ((24, 10, 16, 12), False)])
def test_encoder_only_and_m_fed_without_decoders_differ_in_the_weights_of_tasks_alone(sizes, same):
    ends = []
    for found in (MFed(share="encoder"), EncoderOnly()):
        clients = [make_client(client, plain=True) for client in CLIENTS]
        found = begin(federation(found, clients), 3)
        for client, size in zip(CLIENTS, sizes, strict=True):
            found.server.cards[client]["samples"] = size
        for round in (1, 2):
            play(found, round)
        ends.append(found.server.memory.encoders[1])
    assert equal(*ends, 1e-6) == same

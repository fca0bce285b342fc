"""The methods that exchange parameters, in the real loop: who receives what, at what price, and the identities to keep."""

import copy
import math

import pytest
import separated
import torch
from literal import mean_by_loops, soft_groups_by_loops
from rounds import begin, begun, equal, play, states, vector
from small_clients import CLIENTS, TASKS, federation, images, make_client, method, network, played
from torch import nn

from fedmuscle_core import Client, FedAvg, Training
from fedmuscle_core.aggregation import Upload
from fedmuscle_core.client import evaluate
from fedmuscle_core.experiments.build import build
from fedmuscle_core.methods import METHODS, mfed, of_group, sharing
from fedmuscle_core.networks.client_network import num_parameters
from fedmuscle_core.placement import flat_optimizers

WHOLE = ("fedavg", "fedprox", "mfed", "mfed_proximal")                         # decoders travel, too
FEDERATED = [name for name in of_group("sharing") if not METHODS[name].ceiling]
SIZES = {name: size for name, (_, size) in CLIENTS.items()}



@pytest.fixture
def untrained(monkeypatch):
    """Local phases that change nothing: what clients hold after a round is what the server gave them."""
    monkeypatch.setattr(sharing, "local_phase", lambda client, round, extend: 0.0)


def scramble(found, round):
    """Every client's parameters moved by a number of its own."""
    if round == 2:
        with torch.no_grad():
            for client in found.clients:
                for parameter in client.network.parameters():
                    parameter += client.name


@pytest.mark.parametrize("name", FEDERATED)
def test_in_the_first_round_all_begin_with_the_server_s_parameters(untrained, name):
    first = states([make_client(client, plain=True) for client in CLIENTS], "encoder")
    found, _ = played(name)
    encoders, decoders = states(found.clients, "encoder"), states(found.clients, "decoder")
    assert all(equal(encoders[client], first[1]) for client in CLIENTS) and not equal(first[1], first[2])
    assert equal(decoders[1], decoders[2]) == equal(decoders[3], decoders[4]) == (name in WHOLE)
    assert not equal(decoders[1], decoders[3])


@pytest.mark.parametrize("name", FEDERATED)
def test_what_each_client_holds_after_aggregation(untrained, name):
    """Encoders and decoders of round 2 against loops over single numbers, clients of unequal size."""
    kept = {}

    def note(found, round):
        scramble(found, round)
        if round == 2:
            kept.update(encoder=states(found.clients, "encoder"), decoder=states(found.clients, "decoder"))
    found, _ = played(name, 2, note, **{"group_shift": 0.5} if name == "matfl" else {})

    def mean(part, members):
        return mean_by_loops([kept[part][client] for client in members], [SIZES[client] for client in members])
    tasks = [mean("encoder", (1, 2)), mean("encoder", (3, 4))]
    expected = {"fedavg": [tasks[0], tasks[0], tasks[1], tasks[1]], "encoder_only": [mean("encoder", CLIENTS)] * 4,
                "mfed": [mean_by_loops(tasks, [1, 1])] * 4}
    expected |= {"fedprox": expected["fedavg"], "mfed_proximal": expected["mfed"]}
    groups = soft_groups_by_loops([Upload(client, "", 1, kept["encoder"][client], None) for client in CLIENTS], 0.5).tolist()
    expected["matfl"] = [mean_by_loops(list(kept["encoder"].values()), row) for row in groups]
    encoders, decoders = states(found.clients, "encoder"), states(found.clients, "decoder")
    for client in CLIENTS:
        assert equal(encoders[client], expected[name][client - 1], 1e-5)
        if name in WHOLE:
            assert equal(decoders[client], mean("decoder", (1, 2) if client < 3 else (3, 4)), 1e-5)
        else:
            assert equal(decoders[client], kept["decoder"][client])


@pytest.mark.parametrize("rounds", [2, 3])
def test_fedavg_on_one_task_with_one_step_is_sgd_on_the_union(rounds):
    """Float64, plain SGD, the whole private set in one batch: the server's mean is the central step to 1e-10."""
    clients = []
    for name, size in ((1, 24), (2, 10), (3, 3)):
        train = images(size, name).double(), torch.arange(size) % 3
        clients.append(Client(name, network(plain=True).double(), nn.Linear(6, 3).double(), TASKS["birds"], train=train))
    found = federation(FedAvg(), clients, training=Training(local_batch_size=64, min_local_steps=1))
    for client in clients:
        (flat,) = flat_optimizers(client.network, 1.0, 1.0)[0].param_groups[0]["params"]
        client.local_optimizer = torch.optim.SGD([flat], lr=0.5)
    central = copy.deepcopy(clients[0].network).train()
    union = [torch.cat(values) for values in zip(*((client.data["train"].inputs, client.data["train"].targets)
                                                   for client in clients), strict=True)]
    optimizer, start = torch.optim.SGD(central.parameters(), lr=0.5), sharing.copied(central)
    begin(found, rounds)
    for round in range(1, rounds + 1):
        play(found, round)
        if round < rounds:
            optimizer.zero_grad()
            clients[0].task.loss(central(union[0]), union[1]).backward()
            optimizer.step()
    assert equal(found.server.memory.encoders[1], sharing.copied(central.encoder()), 1e-10)
    assert equal(found.server.memory.decoders["birds"], sharing.copied(central.decoder()), 1e-10)
    assert not equal(sharing.copied(central), start, 1e-4)


def bytes_of(client, parts):
    return sum(4 * num_parameters(getattr(client.network, part)()) for part in parts)


@pytest.mark.parametrize(("name", "share"), [*((name, "both") for name in FEDERATED), ("mfed", "encoder"), ("mfed", "decoder")])
def test_bytes_are_those_of_the_parts_that_travel(untrained, name, share):
    """Down in every round, up in every round but the first, 4 bytes a parameter; what all begin with goes up before."""
    found, _ = played(name, 3, **{"share": share} if name == "mfed" else {})
    parts = {"encoder_only": ("encoder",), "matfl": ("encoder",)}.get(name, mfed.SHARES[share])
    begun_with = {(0, 1, "up"): bytes_of(make_client(1, plain=True), sharing.PARTS),
                  (0, 3, "up"): bytes_of(make_client(3, plain=True), ["decoder"])}
    expected = dict(begun_with)
    for client in map(make_client, CLIENTS, [True] * 4):
        size = bytes_of(client, parts)
        expected |= {(round, client.name, "down"): size for round in (1, 2, 3)}
        expected |= {(round, client.name, "up"): size for round in (2, 3)}
    assert found.ledger.entries == expected


def test_bytes_of_the_package_s_networks(shared, untrained):
    """A dense decoder leaves the projection out, which no answer goes through."""
    found = begun(shared())
    play(found, 1)
    assert all(found.ledger.entries[1, client.name, "down"] == 4 * len(vector(client)) for client in found.clients)


def test_the_proximal_term_is_half_mu_times_the_squared_distance(monkeypatch):
    extends = []
    monkeypatch.setattr(sharing, "local_phase", lambda client, round, extend: extends.append((client, extend)) or 0.0)
    played("fedprox", mu=0.3)
    client, extend = extends[0]
    assert extend(torch.tensor(1.0), None).item() == 1.0                        # at what was received
    with torch.no_grad():
        for parameter in client.network.parameters():
            parameter += 0.1
    assert extend(torch.tensor(1.0), None).item() == pytest.approx(1 + 0.15 * 0.01 * len(vector(client)), rel=1e-4)


def test_fedprox_stays_closer_to_what_it_received():
    def moved(name, **fields):
        found, _ = played(name, **fields)
        start = torch.cat([value.flatten() for state in (found.server.memory.encoders[1], found.server.memory.decoders["birds"])
                           for value in state.values()])
        return (vector(found.clients[0]) - start).norm().item()
    norms = {mu: moved("fedprox", mu=mu) for mu in (0.0, 1.0, 100.0)}
    assert norms[100.0] < norms[1.0] < norms[0.0] == moved("fedavg")


def test_what_is_received_is_a_copy():
    """A client trains; neither the server's states nor another client's network move with it."""
    found, _ = played("fedavg")
    assert not equal(states(found.clients, "encoder")[1], found.server.memory.encoders[1])
    assert equal(found.server.memory.encoders[1], states([make_client(1, plain=True)], "encoder")[1])


@pytest.mark.parametrize("name", FEDERATED)
def test_a_client_of_nan_alone_is_left_out_once_and_trains_on(name):
    """In the whole loop: it is scored nan for the round in which it broke, and learns again from what it receives."""
    def ruin(found, round):
        if round == 2:
            with torch.no_grad():
                for parameter in found.clients[1].network.parameters():
                    parameter.fill_(float("nan"))
            for state in found.clients[1].local_optimizer.state.values():
                state["exp_avg"].fill_(float("nan"))
            assert math.isnan(evaluate(found.clients[1], "validation"))
    with pytest.warns(UserWarning, match="client 2 is left out of 'hand_in': got NaN or infinity in"):
        found, measured = played(name, 3, ruin, {"bad_uploads": "skip"})
    assert all(torch.isfinite(vector(client)).all() for client in found.clients)
    assert all(value == value for losses in measured for values in losses.values() for value in values.values())
    assert all(len(losses["gradient_norm"]) == 4 for losses in measured)
    assert all(evaluate(client, "validation") == evaluate(client, "validation") for client in found.clients)


@pytest.mark.parametrize("name", ["fedavg", "mfed"])
def test_skipped_it_leaves_the_round_as_if_it_were_not_there_and_starts_anew(untrained, name):
    kept = {}

    def note(found, round):
        scramble(found, round)
        if round == 2:
            with torch.no_grad():
                next(found.clients[1].network.encoder().parameters()).view(-1)[0] = float("nan")
            kept.update(states(found.clients, "encoder"))
    with pytest.warns(UserWarning, match="client 2"):
        found, _ = played(name, 2, note, {"bad_uploads": "skip"})
    others = mean_by_loops([kept[3], kept[4]], [SIZES[3], SIZES[4]])
    expected = kept[1] if name == "fedavg" else mean_by_loops([kept[1], others], [1, 1])
    encoders = states(found.clients, "encoder")
    assert equal(encoders[1], expected, 1e-5) and equal(encoders[2], expected, 1e-5) and found.server.memory.refused == [2]
    assert equal(states(found.clients, "decoder")[2], found.server.memory.decoders["birds"])
    play(found, 3)
    assert found.server.memory.refused == []


def test_where_nothing_new_comes_the_server_keeps_what_it_sent_last(untrained, monkeypatch):
    def nothing(self, client, message):
        return {}
    found, _ = played("fedavg")
    before = dict(found.server.memory.encoders)
    found.server.bad_uploads = "skip"
    monkeypatch.setattr(FedAvg, "hand_in", nothing)
    with pytest.warns(UserWarning, match="client . is left out of 'hand_in': got nothing as"):
        play(found, 2)
    assert all(equal(found.server.memory.encoders[client], before[client]) for client in CLIENTS)
    assert found.server.memory.refused == [1, 2, 3, 4]


@pytest.mark.parametrize("name", FEDERATED)
def test_who_was_not_reached_keeps_what_is_its_own(untrained, name):
    """Unlike one whose upload was bad."""
    found = federation(method(name), plain=True)
    found.connect(separated.Losing(found, [2]))
    begin(found, 3)
    for round in (1, 2):
        play(found, round)
        found.round = round
    scramble(found, 2)
    own = states(found.clients, "decoder")[2]
    assert found.server.memory.refused == []
    play(found, 3)
    assert equal(states(found.clients, "decoder")[2], own) == (name not in WHOLE)


def test_who_comes_late_takes_over_its_task_s_decoder_and_again_every_round(untrained):
    found = next(found for seed in range(50) if 2 not in (
        found := federation(method("mfed"), plain=True, seed=seed, absence=0.4)).server.present(1)
        and {1, 2} <= set(found.server.present(2)) and 2 in found.server.present(3))
    begin(found, 3)
    own = states(found.clients, "decoder")[2]
    play(found, 1)
    assert equal(states(found.clients, "decoder")[2], own)
    for round in (2, 3):
        with torch.no_grad():
            for parameter in found.clients[0].network.parameters():
                parameter += 1
        play(found, round)
        assert equal(states(found.clients, "decoder")[2], found.server.memory.decoders["birds"])


def test_how_gradients_agree_where_the_answer_is_known():
    gradients = {1: torch.tensor([3.0, 4]), 2: torch.tensor([6.0, 8]), 3: torch.tensor([-4.0, 3]),
                 4: torch.tensor([torch.nan, 1]), 5: torch.zeros(2), 6: None}
    found = sharing.gradient_agreement(gradients, {1: "edges", 2: "edges", 3: "parts", 4: "edges", 5: "parts", 6: "edges"})
    assert found["gradient_norm"] == {1: 5.0, 2: 10.0, 3: 5.0}
    assert found["gradient_cosine_edges"] == pytest.approx({1: 1.0, 2: 1.0, 3: 0.0}, abs=1e-7)
    assert found["gradient_cosine_parts"] == pytest.approx({1: 0.0, 2: 0.0}, abs=1e-7)   # 3 has nobody of its task left


def test_the_encoder_gradient_is_that_of_the_task_loss_and_leaves_training_alone():
    _, measured = played("mfed")
    client = make_client(1, plain=True)
    size = client.data["train"].size
    ours = sharing.encoder_gradient(client)
    assert all(parameter.grad is None for parameter in client.network.parameters()) and size < sharing.GRADIENT_SAMPLES
    client.task.loss(client.network(client.data["train"].inputs), client.data["train"].targets).backward()
    theirs = torch.cat([parameter.grad.flatten() for parameter in client.network.encoder().parameters()])
    assert torch.allclose(ours, theirs, atol=1e-6)
    assert measured[0]["gradient_norm"][1] == pytest.approx(ours.norm().item(), rel=1e-5)


@pytest.mark.parametrize("name", FEDERATED)
def test_measuring_gradients_changes_nothing_else(name):
    (one, measured), (other, unmeasured) = (played(name, 2, measure_gradients=measure) for measure in (True, False))
    assert all(torch.equal(vector(a), vector(b)) for a, b in zip(one.clients, other.clients, strict=True))
    assert one.ledger.entries == other.ledger.entries
    assert len(measured[0]["gradient_norm"]) == 4 and unmeasured[0]["gradient_norm"] == {}


@pytest.mark.parametrize("name", of_group("sharing"))
def test_settings_with_several_architectures_are_refused_before_training(tiny, name):
    with pytest.raises(ValueError, match="client 3: encoder: got other parameters than client 1 has"):
        build(tiny(method=name))

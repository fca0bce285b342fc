"""The methods that exchange parameters, in the real loop: who receives what, at what price, and the identities to keep."""

import copy
import math

import pytest
import torch
from literal import mean_by_loops, soft_groups_by_loops

from fedmuscle_core import federation
from fedmuscle_core.aggregation import Upload
from fedmuscle_core.client import LocalStep, evaluate
from fedmuscle_core.experiments.parked import ParkedClients
from fedmuscle_core.experiments.runs import one_thread
from fedmuscle_core.experiments.setups import SETUPS, ClientSpec
from fedmuscle_core.methods import METHODS, SHARING, centralised, fedavg, mfed, sharing
from fedmuscle_core.networks.client_network import num_parameters
from fedmuscle_core.placement import flat_optimizers

FEDERATED = [name for name in SHARING if name != "centralised"]


def states(clients, part):
    return {client.index: sharing.copied(getattr(client.model, part)()) for client in clients}


def equal(first, second, atol=0.0):
    return first.keys() == second.keys() and all(torch.allclose(first[name], second[name], rtol=0, atol=atol) for name in first)


def play(settings, rounds=1, before_round=None):
    built = federation.build(federation.check(settings))
    found = []
    with one_thread():
        for round in range(1, rounds + 1):
            if before_round:
                before_round(built, round)
            found.append(METHODS[settings.method].play_round(built, round))
    return built, found


def vector(client):
    """All that a client's answers go through, as one vector."""
    parts = (*client.model.encoder().parameters(), *client.model.decoder().parameters())
    return torch.cat([part.detach().flatten() for part in parts])


@pytest.fixture
def untrained(monkeypatch):
    """Local phases that change nothing: what clients hold after a round is what the server gave them."""
    monkeypatch.setattr(sharing, "local_phase", lambda client, settings, round, extend: 0.0)


def scramble(built, round):
    """Every client's parameters moved by a number of its own."""
    if round == 2:
        with torch.no_grad():
            for client in built.clients:
                for parameter in client.model.parameters():
                    parameter += client.index


@pytest.mark.parametrize("method", FEDERATED)
def test_in_the_first_round_all_begin_with_the_server_s_parameters(shared, untrained, method):
    built, _ = play(shared(method=method))
    encoders, decoders = states(built.clients, "encoder"), states(built.clients, "decoder")
    assert all(equal(encoders[1], encoders[index]) for index in (2, 3, 4))
    assert equal(decoders[1], decoders[2]) == equal(decoders[3], decoders[4]) == (method in ("fedavg", "fedprox", "mfed"))
    assert not equal(decoders[1], decoders[3])


@pytest.mark.parametrize("method", FEDERATED)
def test_what_each_client_holds_after_aggregation(shared, untrained, method):
    """Encoders and decoders of round 2 against loops over single numbers, clients of unequal size."""
    kept = {}

    def note(built, round):
        scramble(built, round)
        if round == 2:
            kept.update(encoder=states(built.clients, "encoder"), decoder=states(built.clients, "decoder"))
    built, _ = play(shared(method=method, group_shift=0.5), 2, note)
    sizes = {index: spec.train_size for index, spec in enumerate(SETUPS["tiny_shared"], 1)}

    def mean(part, members):
        return mean_by_loops([kept[part][index] for index in members], [sizes[index] for index in members])
    tasks = [mean("encoder", (1, 2)), mean("encoder", (3, 4))]
    expected = {"fedavg": [tasks[0], tasks[0], tasks[1], tasks[1]], "encoder_only": [mean("encoder", (1, 2, 3, 4))] * 4,
                "mfed": [mean_by_loops(tasks, [1, 1])] * 4}
    expected["fedprox"] = expected["fedavg"]
    groups = soft_groups_by_loops([Upload(index, "", 1, kept["encoder"][index], None) for index in (1, 2, 3, 4)], 0.5).tolist()
    expected["matfl"] = [mean_by_loops(list(kept["encoder"].values()), row) for row in groups]
    encoders, decoders = states(built.clients, "encoder"), states(built.clients, "decoder")
    for index in (1, 2, 3, 4):
        want = {name: value.float() for name, value in expected[method][index - 1].items()}
        assert equal(encoders[index], want, 1e-4)
        if method in ("fedavg", "fedprox"):
            want = {name: value.float() for name, value in mean("decoder", (1, 2) if index < 3 else (3, 4)).items()}
            assert equal(decoders[index], want, 1e-5)
        else:
            assert equal(decoders[index], kept["decoder"][index])               # private, or its own beside the global one
    if method == "mfed":
        assert equal(built.memory["decoders"]["edges"],
                     {name: value.float() for name, value in mean("decoder", (1, 2)).items()}, 1e-5)


@pytest.mark.parametrize("rounds", [2, 3])
def test_fedavg_on_one_task_with_one_step_is_sgd_on_the_union(shared, monkeypatch, rounds):
    """Float64, plain SGD, the whole private set in one batch: the server's mean is the central step to 1e-10."""
    monkeypatch.setitem(SETUPS, "tiny_shared", tuple(ClientSpec("edges", "segformer_medium", size) for size in (24, 10, 3)))
    settings = shared(method="fedavg", local_batch_size=64, min_local_steps=1)
    built = federation.build(federation.check(settings))
    for client in built.clients:
        client.model.double()
        (flat,) = flat_optimizers(client.model, 1.0, 1.0)[0].param_groups[0]["params"]
        client.local_optimizer = torch.optim.SGD([flat], lr=0.5)
        inputs, wanted = client.data["train"]
        client.data["train"] = (inputs.double(), wanted)
    central = copy.deepcopy(built.clients[0].model).train()
    union = [torch.cat(values) for values in zip(*(client.data["train"] for client in built.clients), strict=True)]
    optimizer = torch.optim.SGD([*central.encoder().parameters(), *central.decoder().parameters()], lr=0.5)
    start = sharing.copied(central)
    with one_thread():
        for round in range(1, rounds + 1):
            fedavg.play_round(built, round)
            if round == rounds:
                break
            optimizer.zero_grad()
            built.clients[0].task.loss(central(union[0]), union[1]).backward()
            optimizer.step()
    assert equal(built.memory["encoders"][1], sharing.copied(central.encoder()), 1e-10)
    assert equal(built.memory["decoders"]["edges"], sharing.copied(central.decoder()), 1e-10)
    assert not equal(sharing.copied(central), start, 1e-4)


@pytest.mark.parametrize(("method", "share"), [*((name, "both") for name in FEDERATED), ("mfed", "encoder"),
                                               ("mfed", "decoder")])
def test_bytes_are_those_of_the_parts_that_travel(shared, untrained, method, share):
    """Down in every round, up in every round but the first: 4 bytes a parameter."""
    built, _ = play(shared(method=method, share=share), 3)
    parts = {"encoder_only": ("encoder",), "matfl": ("encoder",)}.get(method, mfed.PARTS[share])
    for client in built.clients:
        size = 4 * sum(num_parameters(getattr(client.model, part)()) for part in parts)
        if share == "decoder":
            size = 4 * num_parameters(client.model.decoder())
        found = [(built.ledger.entries.get((round, client.index, "up"), 0), built.ledger.entries[round, client.index, "down"])
                 for round in (1, 2, 3)]
        assert found == [(0, size), (size, size), (size, size)]


def test_m_fed_adds_the_loss_of_the_fixed_global_decoder(shared):
    built, _ = play(shared())
    client, settings = built.clients[0], shared(lam=0.7)
    other = {name: value + 0.1 for name, value in sharing.copied(client.model.decoder()).items()}
    inputs, wanted = client.data["train"]
    twin = copy.deepcopy(client.model)
    twin.decoder().load_state_dict(other)
    own = client.task.loss(client.model(inputs), wanted)
    expected = own + 0.7 * client.task.loss(twin(inputs), wanted)
    features = client.model.encode(inputs)
    loss = mfed.decoder_term(client, other, settings, 1)(client.task.loss(client.model.decode(features), wanted),
                                                         LocalStep(0, 1, features, wanted))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    first = next(client.model.encoder().parameters())
    ours = torch.autograd.grad(loss, [first, *client.model.decoder().parameters()])
    through_both = torch.autograd.grad(own, first)[0] + 0.7 * torch.autograd.grad(
        client.task.loss(twin(inputs), wanted), next(twin.encoder().parameters()))[0]
    assert torch.allclose(ours[0], through_both, atol=1e-6)
    alone = torch.autograd.grad(client.task.loss(client.model(inputs), wanted), list(client.model.decoder().parameters()))
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(ours[1:], alone, strict=True))    # the term leaves D_c alone


@pytest.mark.parametrize(("round", "share_of_lam"), [(1, 1 / 3), (2, 2 / 3), (3, 1.0)])
def test_the_distance_to_the_global_decoder_weighs_more_every_round(shared, round, share_of_lam):
    built, _ = play(shared())
    client, settings = built.clients[0], shared(lam=0.5, decoder_term="distance")
    other = {name: value + 0.1 for name, value in sharing.copied(client.model.decoder()).items()}
    found = mfed.decoder_term(client, other, settings, round)(torch.tensor(2.0), None)
    assert found.item() == pytest.approx(2 + 0.5 * share_of_lam * 0.01 * num_parameters(client.model.decoder()), rel=1e-4)


def test_the_proximal_term_is_half_mu_times_the_squared_distance(shared, monkeypatch):
    extends = []
    monkeypatch.setattr(sharing, "local_phase", lambda client, settings, round, extend: extends.append((client, extend)) or 0.0)
    play(shared(method="fedprox", mu=0.3))
    client, extend = extends[0]
    assert extend(torch.tensor(1.0), None).item() == 1.0                      # at what was received
    with torch.no_grad():
        for parameter in (*client.model.encoder().parameters(), *client.model.decoder().parameters()):
            parameter += 0.1
    assert extend(torch.tensor(1.0), None).item() == pytest.approx(1 + 0.15 * 0.01 * len(vector(client)), rel=1e-4)


def test_fedprox_stays_closer_to_what_it_received(shared):
    def moved(**fields):
        built, _ = play(shared(**fields))
        start = torch.cat([value.flatten() for state in (built.memory["encoders"][1], built.memory["decoders"]["edges"])
                           for value in state.values()])
        return (vector(built.clients[0]) - start).norm().item()
    norms = {mu: moved(method="fedprox", mu=mu) for mu in (0.0, 1.0, 100.0)}
    assert norms[100.0] < norms[1.0] < norms[0.0] == moved(method="fedavg")


def test_m_fed_trains_with_the_decoder_that_the_server_sent_and_with_the_weight_of_the_round(shared, monkeypatch):
    asked = []
    term = mfed.decoder_term
    monkeypatch.setattr(mfed, "decoder_term", lambda client, decoder, settings, round: asked.append(
        (round, client.task.name, decoder)) or term(client, decoder, settings, round))
    built, _ = play(shared(), 2)
    assert [round for round, *_ in asked] == [1] * 4 + [2] * 4
    assert all(decoder is built.memory["decoders"][task] for _, task, decoder in asked[4:])
    weights = {lam: vector(play(shared(lam=lam), 2)[0].clients[0]) for lam in (0.0, 1.0)}
    assert not torch.equal(weights[0.0], weights[1.0])
    distance = vector(play(shared(decoder_term="distance"), 2)[0].clients[0])
    assert not torch.equal(distance, weights[0.0]) and not torch.equal(distance, weights[1.0])


def test_a_frozen_encoder_stays_as_it_was_to_the_last_bit_and_decoders_learn(shared):
    built = federation.build(shared(share="decoder"))
    before = states(built.clients, "encoder"), states(built.clients, "decoder")
    with one_thread():
        for round in (1, 2):
            found = mfed.play_round(built, round)
    after = states(built.clients, "encoder"), states(built.clients, "decoder")
    assert all(equal(before[0][index], after[0][index]) and not equal(before[1][index], after[1][index]) for index in after[0])
    assert found["gradient_norm"] == {}


def test_without_decoder_averaging_the_term_is_gone(shared):
    """`share` "encoder": any lam gives the same run; with one task size for all it is the encoder-only method."""
    first, second = (play(shared(share="encoder", lam=lam), 2)[0] for lam in (0.0, 1.0))
    assert all(equal(one, two) for one, two in zip(states(first.clients, "decoder").values(),
                                                   states(second.clients, "decoder").values(), strict=True))


def test_encoder_only_and_m_fed_without_decoders_differ_in_the_weights_of_tasks_alone(shared, monkeypatch):
    sizes = {"mfed": (24, 10), "encoder_only": (24, 10)}
    for others, same in (((24, 10), True), ((16, 12), False)):
        specs = [ClientSpec(task, "segformer_medium", size) for task, pair in (("edges", sizes["mfed"]), ("saliency", others))
                 for size in pair]
        monkeypatch.setitem(SETUPS, "tiny_shared", tuple(specs))
        one, two = play(shared(share="encoder"), 2)[0], play(shared(method="encoder_only"), 2)[0]
        assert equal(one.memory["encoders"][1], two.memory["encoders"][1], 1e-6) == same


def poison(built, round):
    if round == 2:
        with torch.no_grad():
            next(built.clients[1].model.encoder().parameters()).view(-1)[0] = float("nan")


@pytest.mark.parametrize("method", FEDERATED)
def test_nan_from_one_client_is_an_error_that_names_it(shared, method):
    with pytest.raises(ValueError, match="client 2: got NaN or infinity in encoder parameter"):
        play(shared(method=method), 2, poison)


@pytest.mark.parametrize("method", FEDERATED)
def test_a_client_of_nan_alone_is_left_out_once_and_trains_on(shared, method):
    """The whole loop, scores included: nan for the round in which it broke, numbers before and after."""
    def ruin(built, round):
        if round == 2:
            with torch.no_grad():
                for parameter in built.clients[1].model.parameters():
                    parameter.fill_(float("nan"))
            flat = built.clients[1].local_optimizer
            for state in flat.state.values():
                state["exp_avg"].fill_(float("nan"))
    with pytest.warns(UserWarning, match="client 2"):
        built, found = play(shared(method=method, bad_uploads="skip"), 3, ruin)
    assert [losses["left_out"] for losses in found] == [{}, {2: 1.0}, {}]
    assert all(torch.isfinite(vector(client)).all() for client in built.clients)
    assert all(value == value for losses in found for values in losses.values() for value in values.values())
    assert all(len(losses["gradient_norm"]) == 4 for losses in found)
    scores = [evaluate(client, "validation") for client in built.clients]
    assert all(score == score for score in scores)
    with torch.no_grad():
        next(built.clients[1].model.encoder().parameters()).fill_(float("nan"))
    assert math.isnan(evaluate(built.clients[1], "validation"))


@pytest.mark.parametrize("method", ["fedavg", "mfed"])
def test_skipped_it_leaves_the_round_as_if_it_were_not_there_and_starts_anew(shared, untrained, method):
    kept = {}

    def note(built, round):
        scramble(built, round)
        poison(built, round)
        if round == 2:
            kept.update(states(built.clients, "encoder"))
    with pytest.warns(UserWarning, match="client 2"):
        built, _ = play(shared(method=method, bad_uploads="skip"), 2, note)
    others = mean_by_loops([kept[3], kept[4]], [16, 12])
    expected = kept[1] if method == "fedavg" else mean_by_loops([kept[1], others], [1, 1])
    expected = {name: value.float() for name, value in expected.items()}
    found = states(built.clients, "encoder")
    assert equal(found[1], expected, 1e-5) and equal(found[2], expected, 1e-5) and built.memory["refused"] == {2}
    assert equal(states(built.clients, "decoder")[2], built.memory["decoders"]["edges"])


def test_task_identifiers_that_are_mixed_up_raise(shared):
    """Edges and saliency have decoders of one shape: only the register can tell."""
    def mix(built, round):
        built.clients[1].task, built.clients[2].task = built.clients[2].task, built.clients[1].task
    with pytest.raises(ValueError, match="client 2: got task 'saliency', expected 'edges'"):
        play(shared(), 2, lambda built, round: mix(built, round) if round == 2 else None)


def test_how_gradients_agree_where_the_answer_is_known():
    gradients = {1: torch.tensor([3.0, 4]), 2: torch.tensor([6.0, 8]), 3: torch.tensor([-4.0, 3]),
                 4: torch.tensor([torch.nan, 1]), 5: torch.zeros(2), 6: None}
    found = sharing.agreement(gradients, {1: "edges", 2: "edges", 3: "parts", 4: "edges", 5: "parts", 6: "edges"})
    assert found["gradient_norm"] == {1: 5.0, 2: 10.0, 3: 5.0}
    assert found["gradient_cosine_same"] == pytest.approx({1: 1.0, 2: 1.0})   # client 3 has nobody of its task left
    assert found["gradient_cosine_other"] == pytest.approx({1: 0.0, 2: 0.0, 3: 0.0}, abs=1e-7)


def test_the_encoder_gradient_is_that_of_the_task_loss_and_leaves_training_alone(shared):
    built, found = play(shared(rounds=1))
    client = federation.build(shared()).clients[0]
    inputs, wanted = client.data["train"]
    with one_thread():
        ours = sharing.encoder_gradient(client)
        client.task.loss(client.model(inputs), wanted).backward()
    theirs = torch.cat([parameter.grad.flatten() for parameter in client.model.encoder().parameters()])
    assert torch.allclose(ours, theirs, atol=1e-6) and len(inputs) < sharing.GRADIENT_SCENES
    assert found[0]["gradient_norm"][1] == pytest.approx(ours.norm().item(), rel=1e-5)


def test_the_centre_has_one_encoder_and_all_data(shared):
    settings = shared(method="centralised")
    built, found = play(settings)
    models = built.memory["models"]
    assert set(models) == {"edges", "saliency"} and models["edges"].encoder() is models["saliency"].encoder()
    assert {task: len(wanted) for task, (_, wanted) in built.memory["data"].items()} == {"edges": 34, "saliency": 28}
    encoders, decoders = states(built.clients, "encoder"), states(built.clients, "decoder")
    assert all(equal(encoders[1], encoders[index]) for index in encoders)
    assert equal(decoders[1], decoders[2]) and equal(decoders[3], decoders[4]) and not equal(decoders[1], decoders[3])
    scenes = built.clients[0].data["train"]
    assert built.ledger.entries[1, 1, "up"] == sum(values.numel() * values.element_size() for values in scenes)
    assert set(found[0]["local_loss"]) == {1, 2, 3, 4}
    client = built.clients[0]
    assert built.ledger.entries[1, 1, "down"] == 4 * len(vector(client))
    with one_thread():
        centralised.play_round(built, 2)
    assert (2, 1, "up") not in built.ledger.entries and built.ledger.entries[2, 1, "down"] == 4 * len(vector(client))


@pytest.mark.parametrize(("epochs", "least", "steps"), [(1, 2, 5), (2, 2, 10), (1, 12, 12)])
def test_the_centre_makes_the_steps_of_its_largest_task_at_the_tasks_own_rates(shared, monkeypatch, epochs, least, steps):
    """34 scenes of edges, at four times the rate of 6 scenes of labels."""
    sizes = (("edges", 24), ("edges", 10), ("upper", 6))
    monkeypatch.setitem(SETUPS, "tiny_shared", tuple(ClientSpec(task, "segformer_medium", size) for task, size in sizes))
    settings = shared(method="centralised", local_batch_size=8, local_epochs=epochs, min_local_steps=least)
    built = federation.build(federation.check(settings))
    built.memory.update(central := centralised.collect(built))
    assert [group["lr"] / settings.local_lr for group in central["optimizer"].param_groups] == [2.5, 4, 1]
    taken = []
    central["optimizer"].register_step_post_hook(lambda *_: taken.append(1))
    centralised.train(central, settings, 1)
    assert len(taken) == steps


def test_a_central_step_is_the_sum_of_the_tasks_losses(shared):
    """One step against AdamW over the same parameters, written out."""
    settings = shared(method="centralised", local_batch_size=64, min_local_steps=1)
    built = federation.build(federation.check(settings))
    twins = {1: copy.deepcopy(built.clients[0].model).train(), 3: copy.deepcopy(built.clients[2].model).train()}
    twins[3].representation.backbone = twins[1].representation.backbone
    data = [client.data["train"] for client in built.clients]
    union = {1: map(torch.cat, zip(*data[:2], strict=True)), 3: map(torch.cat, zip(*data[2:], strict=True))}
    scale = built.clients[0].task.lr_scale
    parameters = [*twins[1].encoder().parameters(), *twins[1].decoder().parameters(), *twins[3].decoder().parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.local_lr * scale)
    for index, (inputs, wanted) in union.items():
        built.clients[index - 1].task.loss(twins[index](inputs), wanted).backward()
    optimizer.step()
    with one_thread():
        centralised.play_round(built, 1)
    for index, twin in twins.items():
        for part in sharing.PARTS:
            assert equal(states(built.clients, part)[index], sharing.copied(getattr(twin, part)()), 1e-4)


def test_endless_batches_pass_over_everything_before_they_begin_again():
    batches = centralised.endless_batches(5, 2, torch.Generator().manual_seed(0))
    first, second = (torch.cat([next(batches) for _ in range(3)]).tolist() for _ in range(2))
    assert sorted(first) == sorted(second) == [0, 1, 2, 3, 4] and first != second


def test_parked_clients_share_as_those_in_memory_do(shared, tmp_path):
    settings = shared()
    with one_thread():
        one, _ = federation.train(federation.build(settings), progress=False)
        parked = federation.build(settings, tmp_path)
        assert isinstance(parked.clients, ParkedClients)
        two, _ = federation.train(parked, progress=False)
    assert one.equals(two)
    with pytest.raises(ValueError, match="parked: got a folder with centralised"):
        federation.build(shared(method="centralised"), tmp_path)


@pytest.mark.parametrize("method", SHARING)
def test_clients_of_several_architectures_are_refused_before_any_work(tiny, method):
    with pytest.raises(ValueError, match=f"method: got '{method}' for tiny, whose client 3 has the encoder 'vit_small'"):
        federation.check(tiny(method=method))


def test_an_unknown_task_is_named_with_its_client(shared, monkeypatch):
    specs = tuple(ClientSpec(task, "segformer_medium", 24) for task in ("edges", "depth"))
    monkeypatch.setitem(SETUPS, "tiny_shared", specs)
    with pytest.raises(ValueError, match="setup: client 2 of tiny_shared: task: got 'depth', expected one of"):
        federation.check(shared(num_peers=1))

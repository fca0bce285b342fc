"""The round loop, and what it promises for every method: separate clients, absence, bad uploads, resuming."""

import math
import pkgutil
import re
import warnings

import pandas as pd
import pytest
import separated
import torch
from rounds import begin, begun, fit, play
from small_clients import CLIENTS, TRAINING, VARIANTS, federation, make_client, method
from small_clients import fit as small_fit
from torch import nn

from fedmuscle_core import Federation, FedMuscle, Local, Settings, engines
from fedmuscle_core import client as client_module
from fedmuscle_core.alignment import alignment_matrices
from fedmuscle_core.client import evaluate, represent
from fedmuscle_core.exchange import Diverged, Stage, bytes_per_step
from fedmuscle_core.experiments.build import build
from fedmuscle_core.experiments.setups import Setup
from fedmuscle_core.federation import COLUMNS, ENGINES
from fedmuscle_core.methods import METHODS, of_group

every_variant = pytest.mark.parametrize(("name", "changes"), VARIANTS,
                                        ids=[" ".join(map(str, (name, *changes.values()))) for name, changes in VARIANTS])
# The client function whose reply the server averages, relays or counts.
UPLOADS = {"cofed": "vote", "fedhenn": "kernels", "gramian": "embed", "pairwise": "embed", "fedmuscle": "embed",
           "fedavg": "hand_in", "fedprox": "hand_in", "encoder_only": "hand_in", "matfl": "hand_in", "mfed": "hand_in"}


def same(one, other):
    """Whether two federations ended alike, to the last bit: history, bytes, alignment, parameters."""
    pd.testing.assert_frame_equal(one.history(), other.history(), check_exact=True)
    assert one.ledger.entries == other.ledger.entries
    assert one.alignment == other.alignment


def losses(history, metric, round):
    """{client: value} of what a round returned."""
    rows = history[(history["split"] == "train") & (history["metric"] == metric) & (history["round"] == round)]
    return rows.set_index("client")["value"].to_dict()


@every_variant
def test_no_method_reaches_into_a_client_beside_its_turn_and_messages_are_plain(name, changes):
    together, apart = federation(method(name, **changes)), federation(method(name, **changes))
    small_fit(together)
    small_fit(apart, engine=separated.connect(apart))
    same(together, apart)
    with pytest.raises(AttributeError):
        apart.clients[0].network                                                # noqa: B018 - it has none beside its turn


@every_variant
def test_the_order_of_clients_does_not_matter_and_neither_does_other_randomness(name, changes):
    one, other = federation(method(name, **changes)), federation(method(name, **changes), list(map(make_client, (3, 1, 4, 2))))
    small_fit(one)
    torch.rand(7)
    small_fit(other)
    same(one, other)


@every_variant
def test_another_seed_gives_another_run(name, changes):
    one, other = (small_fit(federation(method(name, **changes), seed=seed), 1)["value"] for seed in (0, 1))
    assert not one.equals(other)


@every_variant
def test_a_killed_run_goes_on_from_its_state_to_the_same_end(tmp_path, name, changes):
    """With clients that are absent now and then, so that what they missed is in the state, too."""
    whole, killed, resumed = (federation(method(name, **changes), absence=0.3) for _ in range(3))

    def kill(found):
        torch.save(found.state(), tmp_path / "state.pt")
        raise KeyboardInterrupt

    small_fit(whole)
    with pytest.raises(KeyboardInterrupt):
        small_fit(killed, after_round=kill)
    resumed.load(torch.load(tmp_path / "state.pt", weights_only=True))
    assert resumed.round == 1
    small_fit(resumed)
    same(whole, resumed)


@every_variant
def test_to_fit_again_goes_on(name, changes):
    once, twice = federation(method(name, **changes)), federation(method(name, **changes))
    small_fit(once)
    small_fit(twice, 1)
    small_fit(twice)
    one, other = (found.history()[found.history()["split"] != "test"].reset_index(drop=True) for found in (once, twice))
    if "distance" in changes.values() or name == "mfed_proximal":                # its weight is that of the round among all
        assert not one.equals(other)
        return
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    assert once.ledger.entries == twice.ledger.entries and once.alignment["after"] == twice.alignment["after"]
    tested = twice.history().query("split == 'test'").groupby("client")["round"].apply(list)
    assert tested.tolist() == [[1, 3]] * 4


@pytest.mark.parametrize("name", ["local", "fedmuscle", "mfed"])
def test_a_fit_that_was_interrupted_inside_a_round_goes_on_from_a_state_alone(monkeypatch, name):
    """Even in the middle of a step: its gradients are there, the parameters not yet changed."""
    whole, found, states, step = federation(method(name)), federation(method(name)), [], client_module.step

    def stop(optimizer, loss):
        if found.round == 1 and optimizer is found.clients[1].local_optimizer:
            loss.backward()
            raise KeyboardInterrupt
        return step(optimizer, loss)

    small_fit(whole)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(client_module, "step", stop)
        small_fit(found, after_round=lambda found: states.append(separated.copied(found.state())))
    for go_on in (lambda: small_fit(found), found.state):
        with pytest.raises(ValueError, match="round: got a federation that was interrupted in round 2"):
            go_on()
    found.load(states[0])
    small_fit(found)
    same(whole, found)


def test_nor_does_one_that_was_interrupted_before_its_first_round(monkeypatch):
    whole, found = federation(method("mfed")), federation(method("mfed"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(found.method), "hand_in", interrupted)
        small_fit(found)
    with pytest.raises(ValueError, match="round: got a federation that was interrupted in round 0"):
        small_fit(found)
    small_fit(whole, after_round=lambda whole: whole.round > 1 or found.load(separated.copied(whole.state())))
    small_fit(found)
    same(whole, found)


def interrupted(*arguments):
    raise KeyboardInterrupt


@every_variant
def test_absent_clients_exchange_nothing_and_train_locally(name, changes):
    found = federation(method(name, **changes), absence=0.5)
    history = small_fit(found, 4)
    absent = [(round, client) for round in range(1, 5) for client in set(CLIENTS) - set(found.server.present(round))]
    assert 4 <= len(absent) <= 12
    assert all(set(losses(history, "local_loss", round)) == set(CLIENTS) for round in range(1, 5))
    assert history["value"].notna().all()
    if METHODS[name].exchanges == "nothing" or METHODS[name].ceiling:
        everybody = federation(method(name, **changes))
        small_fit(everybody, 4)
        same(found, everybody)
    else:
        assert all(found.ledger.total(round, client) == 0 for round, client in absent)
        there = [(round, client) for round in range(2, 5) for client in found.server.present(round)]
        alone = {round: len(found.server.present(round)) == 1 for round in range(1, 5)}
        assert all(found.ledger.total(round, client) > 0 for round, client in there if not alone[round])


@pytest.mark.parametrize("name", of_group("aligning"))
def test_with_everybody_absent_every_method_is_local(name):
    """SimCLR exchanges nothing, so nobody is absent from it."""
    history, local = (small_fit(federation(method(one), absence=0.999)) for one in (name, "local"))
    scores = [table[table["split"] != "train"]["value"].tolist() for table in (history, local)]
    assert (scores[0] == scores[1]) == (not name.startswith("simclr"))


@every_variant
def test_a_client_that_is_not_reached_is_absent_and_comes_back(name, changes):
    """For one round: no losses, no scores, and nothing goes down to it, if what opens the round was there before; nobody else
    stops."""
    found = federation(method(name, **changes))
    history = small_fit(found, 4, engine=separated.Losing(found, [3]))
    assert history["value"].notna().all()
    trains = METHODS[name].ceiling                                              # at the centre, which has its data
    for round in range(1, 5):
        everybody = set(CLIENTS) if round != 2 or trains else set(CLIENTS) - {3}
        assert set(losses(history, "local_loss", round)) == everybody
    scored = history[history["split"] == "validation"].groupby("round")["client"].apply(list)
    assert scored.tolist() == [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 4], [1, 2, 3, 4], [1, 2, 3, 4]]
    assert (2, 3, "down") not in found.ledger.entries and "left_out" not in set(history["metric"])
    if METHODS[name].exchanges != "nothing":
        assert found.ledger.total(4, 3) > 0


@every_variant
def test_a_round_in_which_nobody_is_reached_is_lost_alone(name, changes):
    found = federation(method(name, **changes))
    history = small_fit(found, 4, engine=separated.Losing(found, CLIENTS))
    assert [set(losses(history, "local_loss", round)) for round in (1, 3, 4)] == [set(CLIENTS)] * 3
    assert history["value"].notna().all()
    assert not {(2, client, "down") for client in CLIENTS} & set(found.ledger.entries)


SPOILED = {
    "NaN": lambda value: value.float() * torch.nan,
    "infinity": lambda value: value.float() + torch.inf,
    "shape": lambda value: torch.cat([value.reshape(-1), value.reshape(-1)]),
    "dtype": lambda value: value.double(),
    "none": lambda value: None,
    "word": lambda value: "tensor",
}


def each_tensor(value, change):
    """A message with `change` made to all its tensors."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: each_tensor(part, change) for name, part in value.items()}
    return [each_tensor(part, change) for part in value] if isinstance(value, list) else value


def spoil(monkeypatch, name, change, who=2):
    """Let `who` reply `change(reply)` where it uploads."""
    kind, function = METHODS[name], UPLOADS[name]
    honest = getattr(kind, function)

    def reply(self, client, message):
        sent = honest(self, client, message)
        return change(sent) if client.name == who else sent

    monkeypatch.setattr(kind, function, reply)


def spoilt_reply(kind):
    """Function of a reply that makes it bad in one of the ways that have names."""
    return {"not a mapping": lambda reply: list(reply.values()), "nothing": lambda reply: None,
            "empty": lambda reply: {}}.get(kind) or (lambda reply: each_tensor(reply, SPOILED[kind]))


@pytest.mark.parametrize("kind", [*SPOILED, "not a mapping", "nothing", "empty"])
@pytest.mark.parametrize("name", UPLOADS)
def test_a_bad_upload_is_refused_with_the_names_of_client_and_stage(monkeypatch, name, kind):
    spoil(monkeypatch, name, spoilt_reply(kind))
    with pytest.raises(ValueError, match=rf"client 2: ({UPLOADS[name]}|round \d): got .*, expected"):
        small_fit(federation(method(name)))


@pytest.mark.parametrize("kind", ["NaN", "shape", "not a mapping"])
@pytest.mark.parametrize("name", UPLOADS)
def test_a_bad_upload_can_be_left_out(monkeypatch, name, kind):
    spoil(monkeypatch, name, spoilt_reply(kind))
    found = federation(method(name), bad_uploads="skip")
    with pytest.warns(UserWarning, match=f"client 2 is left out of '{UPLOADS[name]}': got .*, expected"):
        history = small_fit(found)
    assert history["value"].notna().all() and torch.isfinite(torch.tensor(history["value"].to_numpy())).all()
    assert all(set(losses(history, "local_loss", round)) == set(CLIENTS) for round in (1, 2, 3))
    first = 1 if UPLOADS[name] in ("embed", "kernels") else 2                  # votes and parameters travel from round 2 on
    batches = 20 // 8 if UPLOADS[name] == "embed" else 1
    assert [losses(history, "left_out", round) for round in (1, 2, 3)] == [{}] * (first - 1) + [{2: batches}] * (4 - first)
    assert all(torch.isfinite(value).all() for client in found.clients for value in client.network.state_dict().values())


@pytest.mark.parametrize("bad_uploads", ["raise", "skip"])
@pytest.mark.parametrize("name", [name for name, function in UPLOADS.items() if function == "hand_in"])
@pytest.mark.filterwarnings("ignore:client . is left out")
def test_parameters_that_nobody_can_begin_with_are_refused(monkeypatch, name, bad_uploads):
    spoil(monkeypatch, name, spoilt_reply("NaN"), who=3)
    with pytest.raises(ValueError, match="client 3: (hand_in|round 0): got .*, expected"):
        small_fit(federation(method(name), bad_uploads=bad_uploads))


@pytest.mark.parametrize("name", UPLOADS)
def test_good_uploads_leave_nobody_out(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        history = small_fit(federation(method(name), bad_uploads="skip"))
    assert "left_out" not in set(history["metric"])
    pd.testing.assert_frame_equal(history, small_fit(federation(method(name))), check_exact=True)


@pytest.mark.parametrize("name", [name for name, function in UPLOADS.items() if function in ("embed", "vote")])
def test_the_bytes_of_a_bad_upload_count_as_it_was_sent(monkeypatch, name):
    honest = federation(method(name))
    small_fit(honest, 2)
    spoil(monkeypatch, name, lambda reply: each_tensor(reply, lambda value: torch.full_like(value, -2)))
    skipping = federation(method(name), bad_uploads="skip")
    with pytest.warns(UserWarning, match="client 2 is left out"):
        small_fit(skipping, 2)
    assert skipping.ledger.entries[2, 2, "up"] == honest.ledger.entries[2, 2, "up"]
    assert (2, 2, "down") not in skipping.ledger.entries


def test_the_history_is_tidy_and_complete():
    found = federation(method("fedmuscle"), seed=3)
    history = small_fit(found, 2)
    assert list(history.columns) == COLUMNS
    assert set(history["method"]) == {"fedmuscle"} and set(history["seed"]) == {3}
    keys = history.groupby(["client", "metric", "split"])["round"].apply(list).to_dict()
    for client, (task, _) in CLIENTS.items():
        metric = "accuracy" if task == "birds" else "mAP"
        assert keys[client, metric, "validation"] == [0, 1, 2]
        assert keys[client, metric, "test"] == [2]
        assert keys[client, "contrastive_loss", "train"] == keys[client, "local_loss", "train"] == [1, 2]
        assert set(history[history["client"] == client]["task"]) == {task}
    assert history["value"].between(0, 100).all()
    assert history["round"].is_monotonic_increasing and not history.duplicated(["client", "metric", "split", "round"]).any()


def test_the_alignment_is_that_of_the_clients_representations_of_held_out_samples():
    found = federation(method("local"))
    expected = alignment_matrices([represent(client, client.held_out) for client in found.clients])
    small_fit(found, 1)
    assert found.alignment["before"] == expected != found.alignment["after"]
    assert set(found.alignment) == {"before", "after"}


@pytest.mark.parametrize("protocol", ["matrices", "tuples"])
def test_bytes_in_the_history_are_the_closed_form_to_the_byte(protocol):
    history = small_fit(federation(method("fedmuscle", protocol=protocol, contrastive_epochs=2)), 1)
    expected = 2 * (20 // 8) * sum(bytes_per_step(8, 2, 6, protocol))
    assert set(history[history["round"] == 1]["bytes"]) == {expected}
    assert set(history[history["round"] == 0]["bytes"]) == {0}


def test_a_stage_asks_its_clients_counts_both_ways_and_hands_replies_back():
    found, asked = federation(method("local")), []

    class Engine:
        def ask(self, stages):
            asked.extend((stage.function, stage.clients, list(map(stage.message_of, stage.clients))) for stage in stages)
            return [{client: {"sum": torch.ones(client), "gradient": torch.ones(9)} for client in stage.clients if client != 3}
                    for stage in stages]

    def stages():
        replies = yield Stage("add", [1, 3, 4], lambda client: {"term": torch.ones(2)}, uncounted=("gradient",))
        return list(replies)

    found.engine = Engine()
    assert found.play(stages(), 5) == [1, 4]                                    # client 3 did not answer
    assert [call[:2] for call in asked] == [("add", [1, 3, 4])]
    down = {(5, client, "down"): 8 for client in (1, 3, 4)}
    assert found.ledger.entries == down | {(5, 1, "up"): 4, (5, 4, "up"): 16}


@pytest.mark.parametrize(("name", "changes", "functions"), [
    ("local", {}, ["local", "score"]), ("simclr", {}, ["learn", "score"]), ("cofed", {}, ["local", "score", "vote"]),
    ("fedhenn", {}, ["local", "score", "kernels"]), ("mfed", {}, ["train", "score", "hand_in"]),
    ("fedmuscle", {"refresh": "round"}, ["contrast", "local", "score", "embed"])])
def test_a_round_takes_one_message_a_client(name, changes, functions):
    """What ends a round, the scores after it and what the next one opens with go together; the last round has no next."""
    found, calls = begin(federation(method(name, **changes)), 3), []
    ask = found.engine.ask
    found.engine.ask = lambda stages: calls.append([stage.function for stage in stages]) or ask(stages)
    small_fit(found, 3)
    rounds = [call for call in calls if "score" in call and len(call) > 1]
    assert rounds == [functions, functions, functions[:functions.index("score") + 1]] and not found.ahead
    openings = [call for call in calls if call not in rounds and call != ["score"] and call != ["represent"]]
    assert len(openings) == (name in ("fedhenn", "fedmuscle"))                 # of the first round alone


def test_a_client_without_splits_or_public_data_is_not_scored_or_measured():
    clients = list(map(make_client, CLIENTS))
    for client in clients[:3]:
        client.data, client.public, client.held_out = {"train": client.data["train"]}, None, None
    found = Federation(clients, Local(), training=TRAINING)
    history = small_fit(found, 1)
    assert set(history[history["split"] != "train"]["client"]) == {4} and found.alignment == {"before": {}, "after": {}}
    assert set(history[history["split"] == "train"]["client"]) == {1, 2, 3, 4}


def test_a_network_that_answers_nan_is_scored_nan_and_ends_the_run_by_name():
    found = federation(method("local"))
    small_fit(found, 1)
    with torch.no_grad():
        next(found.clients[1].network.parameters()).fill_(torch.nan)
    assert [math.isnan(evaluate(client, "validation")) for client in found.clients] == [False, True, False, False]
    with pytest.raises(Diverged, match="client 2: round 2: local loss is NaN") as error:
        small_fit(found, 2)
    assert (error.value.client, error.value.round) == (2, 2)


def four(change):
    """The four clients after `change(clients)`."""
    clients = list(map(make_client, CLIENTS))
    change(clients)
    return clients


def renamed(*names):
    def change(clients):
        for client, name in zip(clients, names, strict=True):
            client.name = name
    return change


def without_public(clients):
    clients[1].public = None


def fewer_public(clients):
    clients[2].public = clients[2].public.first(19)


@pytest.mark.parametrize("kind", [tuple, set, iter, lambda clients: {client.name: client for client in clients}.values()],
                         ids=["tuple", "set", "iterator", "values"])
def test_clients_come_in_any_iterable(kind):
    one, other = federation(method("fedmuscle")), federation(method("fedmuscle"), kind(list(map(make_client, CLIENTS))))
    for found in (one, other):
        small_fit(found, 1)
    same(one, other)


@pytest.mark.parametrize(("clients", "message"), [
    (None, "clients: got NoneType, expected a list of `Client`s"), ([1, 2], "clients: got int among them, expected `Client`s"),
    ("ab", "clients: got str among them"), (make_client(1), "clients: got Client, expected a list"),
    (iter(()), "clients: got none, expected at least one"),
])
def test_what_are_no_clients_is_refused(clients, message):
    with pytest.raises(ValueError, match=message):
        Federation(clients, method("local"))


@pytest.mark.parametrize(("change", "message"), [
    (renamed(1, 2, "2", 4), "clients: got names .* expected different ones"),
    (renamed("a", "b", "c", 4), "clients: got names .* all words or all numbers"),
    (fewer_public, "public: got {1: 20, 2: 20, 3: 19, 4: 20} samples by client, expected equally many"),
])
def test_clients_that_do_not_fit_together_are_refused_before_any_training(change, message):
    with pytest.raises(ValueError, match=message):
        federation(method("fedmuscle"), four(change))


def test_public_data_do_not_matter_where_no_method_reads_them():
    for name, change in (("local", without_public), ("fedavg", fewer_public)):
        kept, changed = (small_fit(federation(method(name), four(how)), 1) for how in (lambda clients: None, change))
        assert changed.equals(kept)


@pytest.mark.parametrize(("options", "message"), [
    ({"seed": -1}, "seed: got -1"), ({"training": {}}, "training: got {}, expected a Training"),
    ({"training": 3}, "training: got 3"),
    ({"absence": 1}, "absence: got 1"), ({"bad_uploads": "drop"}, "bad_uploads: got 'drop'"),
])
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        federation(method("local"), **options)
    with pytest.raises(ValueError, match="rounds: got 0"):
        federation(method("local")).fit(0)
    for engine in ("nope", "", 3, None):
        with pytest.raises(ValueError, match=rf"engine: got {engine!r}, expected one of \('in_process', 'flower'\)"):
            federation(method("local")).fit(1, engine=engine)


@pytest.mark.parametrize("one", ["fedmuscle", None, FedMuscle])
def test_what_is_no_method_is_refused(one):
    with pytest.raises(ValueError, match=f"method: got {re.escape(repr(one))}, expected a Method, such as FedMuscle"):
        federation(one)


def test_every_engine_has_a_name():
    assert set(ENGINES) == {module.name for module in pkgutil.iter_modules(engines.__path__)}


def other_encoder(clients):
    clients[2].network.representation = nn.Sequential(nn.Flatten(), nn.Linear(192, 6))


def other_decoder(clients):
    clients[1].network.head = nn.Sequential(nn.Linear(6, 3))


@pytest.mark.parametrize(("change", "message"), [
    (other_encoder, "client 3: encoder: got other parameters than client 1 has, expected the same names and shapes"),
    (other_decoder, "client 2: decoder: got other parameters than client 1 has, expected the same names and shapes"),
])
@pytest.mark.parametrize("name", of_group("sharing"))
def test_clients_of_several_architectures_are_refused_before_any_training(name, change, message):
    with pytest.raises(ValueError, match=f"{message}: {METHODS[name].label} exchanges them"):
        federation(method(name), four(change))
    small_fit(federation(method("fedmuscle"), four(change)), 1)


# With the networks of the package, on scenes.


def test_local_exchanges_nothing_and_methods_differ_only_in_the_contrastive_phase(tiny):
    (local, _), (muscle, _) = fit(tiny(method="local", rounds=1)), fit(tiny(method="fedmuscle", rounds=1))
    assert set(local["bytes"]) == {0}
    start = [history[history["round"] == 0]["value"].tolist() for history in (local, muscle)]
    assert start[0] == start[1]


def test_both_protocols_train_the_same_federation(tiny):
    found = [fit(tiny(protocol=protocol))[0].query("split == 'train'")["value"].to_numpy()
             for protocol in ("matrices", "tuples")]
    assert len(found[0]) == 12 and abs(found[0] - found[1]).max() < 0.01


def test_the_contrastive_phase_leaves_the_heads_alone_and_lowers_the_loss(tiny, monkeypatch):
    found = begun(tiny(contrastive_epochs=6))
    monkeypatch.setattr(METHODS["fedmuscle"], "local", lambda self, client, message: {"local_loss": 0.0})
    heads = [client.network.head.weight.clone() for client in found.clients]
    first, second = (play(found, round)["contrastive_loss"] for round in (1, 2))
    assert all(torch.equal(head, client.network.head.weight) for head, client in zip(heads, found.clients, strict=True))
    assert all(second[name] < first[name] for name in first)


def test_alignment_makes_representations_of_the_same_scene_find_each_other(tiny):
    _, found = fit(tiny(public_size=128, contrastive_epochs=3, rounds=2, test_size=0))
    before, after = (found.alignment[when]["retrieval"] for when in ("before", "after"))
    for n, m in [(0, 1), (1, 2), (2, 0)]:
        assert after[n][m] > before[n][m] + 0.02


@pytest.mark.parametrize(("change", "message"), [
    ({"method": "sage"}, "method: got 'sage', expected one of"),
    ({"setup": "setup9"}, "setup: got 'setup9', expected one of"),
    ({"tau_prev": 0.5}, "tau_prev: got 0.5, expected at most tau = 0.2"),
    ({"setup": "embedded2", "public_domain": "single"},
     r"public_domain: got 'single', expected 'pairs': clients \[9, 10\] read captions"),
    ({"public_size": 16}, "public_size: got 16, expected at least batch_size = 32"),
    ({"num_peers": 6}, "num_peers: got 6, expected 1 to 5: there are 6 clients"),
])
def test_bad_settings_are_refused_before_any_work(change, message):
    with pytest.raises(ValueError, match=message):
        build(Settings.of(**change))


def test_training_from_scratch_beats_chance():
    """Three clients, three rounds of FedMuscle: validation scores before, no better than chance, and test scores after."""
    setup = Setup("scratch", (("mlc", "resnet_small", 400), ("ic100", "vit_small", 400), ("ic10", "resnet_small", 100)))
    history, _ = fit(Settings.of(setup, num_peers=2, rounds=3, public_size=128, validation_size=200, test_size=500))
    start = history[history["round"] == 0].set_index("task")["value"]
    assert start["mlc"] < 35 and start["ic100"] < 4 and start["ic10"] < 20
    test = history[history["split"] == "test"].set_index("task")["value"]
    assert test["mlc"] > 60       # chance: 24, the share of scenes with a given digit
    assert test["ic100"] > 3      # chance: 1
    assert test["ic10"] > 25      # chance: 10

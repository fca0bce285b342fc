"""What every method says of itself, how it refuses bad hyperparameters, and how one of one's own joins them."""

import dataclasses
import importlib
import sys

import pandas as pd
import pytest
import separated
import torch
from rounds import begin, play
from small_clients import CLIENTS, federation, make_client, method
from small_clients import fit as small_fit

from fedmuscle_core import FedMuscle, Settings
from fedmuscle_core.experiments.tuning import configurations
from fedmuscle_core.method import Method, by_metric
from fedmuscle_core.methods import METHODS, method_named, of_group
from fedmuscle_core.methods.contrastive import Contrastive, WithPeers
from fedmuscle_core.methods.sharing import Sharing

NOT_POSITIVE = [0, -1, float("inf"), float("nan"), "1e-3", True]
BAD = {
    "batch_size": [0, -8, 1.5, True, "8", None], "contrastive_lr": [*NOT_POSITIVE, None], "contrastive_epochs": [0, 2.0, None],
    "contrastive_steps": [0, 2.0, "all"], "tau": [*NOT_POSITIVE, None], "num_peers": [0, 1.0, True], "augment": [1, None, "no"],
    "own_views": [1, None],
    "peer_choice": ["best", None], "refresh": ["never"], "protocol": ["post"], "tau_cross": NOT_POSITIVE, "distant": ["word"],
    "tau_prev": [*NOT_POSITIVE, None], "num_samples": [-1, 1.5, False], "eta": NOT_POSITIVE,
    "vote_margin": [-0.1, 1.0, float("nan"), "0.3"], "vote_share": [-0.1, 1.0, None], "mu": [-0.1, float("inf"), None],
    "lam": [-0.1, float("inf"), "1"], "decoder_term": ["norm", 1], "share": ["all", None], "group_shift": [-0.5, float("nan")],
    "measure_gradients": [1, None], "average": ["sum", None, 1], "budget": ["epochs", None],
    "margin": [-0.1, float("nan"), "1"],
}
FIELDS = {name: [field.name for field in dataclasses.fields(kind)] for name, kind in METHODS.items()}
PAIRS = [(name, field) for name, fields in FIELDS.items() for field in fields]


@pytest.mark.parametrize(("name", "field"), PAIRS)
def test_a_bad_hyperparameter_is_refused_by_name(name, field):
    for value in BAD[field]:
        with pytest.raises(ValueError, match=f"^{field}: got {value!r}, expected"):
            METHODS[name](**{field: value})
        with pytest.raises(ValueError, match=f"^{field}: got {value!r}, expected"):
            Settings.of(method=name, **{field: value})


def test_every_hyperparameter_is_checked():
    assert {field for _, field in PAIRS} == set(BAD)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_a_value(name):
    one, other = METHODS[name](), METHODS[name]()
    assert one == other and hash(one) == hash(other)
    for field in FIELDS[name]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, field, 1)
    with pytest.raises(TypeError):
        METHODS[name](temperature=0.2)


def test_what_is_no_method_of_its_own_is_not_among_them():
    assert not {Method, Contrastive, WithPeers, Sharing} & set(METHODS.values())
    assert all(name == kind.name and issubclass(kind, Method) for name, kind in METHODS.items())
    assert list(METHODS) == [*of_group("aligning"), *of_group("sharing"), *of_group("control")]
    assert method_named("fedmuscle") is FedMuscle
    with pytest.raises(ValueError, match=r"method: got 'sage', expected one of \('local', 'simclr'"):
        method_named("sage")


def test_people_can_tell_them_apart():
    assert len({kind.label for kind in METHODS.values()}) == len(METHODS) == 18
    assert all(kind.exchanges and kind.needs and kind.__doc__ for kind in METHODS.values())
    for group in ("aligning", "sharing"):
        colours = [METHODS[name].colour for name in of_group(group)]
        assert len(set(colours)) == len(colours) and None not in colours
    assert [name for name, kind in METHODS.items() if kind.ceiling] == ["centralised"]


def test_what_cannot_leave_the_process_says_why():
    """And what to change so that it can."""
    cures = {"measure_gradients": False, "refresh": "round"}
    stays = {name for name, kind in METHODS.items() if kind().stays}
    curable = {name for name in METHODS if set(cures) & set(FIELDS[name])}
    assert stays == curable | {"centralised"} and len(curable) == 12
    for name in curable - {"fedmuscle_views"}:                                 # which are what it is
        (field,) = set(cures) & set(FIELDS[name])
        assert field in METHODS[name]().stays and not METHODS[name](**{field: cures[field]}).stays


@pytest.mark.parametrize("name", METHODS)
def test_what_it_says_of_its_exchange_and_its_public_data_is_so(name):
    kind = METHODS[name]
    found = federation(method(name))
    small_fit(found, 2)
    assert (found.ledger.entries == {}) == (kind.exchanges == "nothing")
    if kind.exchanges == "nothing":
        assert method(name).bytes_per_round(None) == 0
    without = [make_client(client, public=None) for client in CLIENTS]
    if kind.uses_public:
        with pytest.raises(ValueError, match=rf"clients \[1, 2, 3, 4\] have no public data, expected some: {kind.label} needs"):
            federation(method(name), without)
    else:
        small_fit(federation(method(name), without), 1)


@pytest.mark.parametrize("name", METHODS)
def test_what_is_tried_in_tuning_can_be_set(name):
    settings = [Settings.of(method=name, **values) for values in configurations(name)]
    assert len(set(settings)) == len(settings) == 12
    assert set(METHODS[name].grid) | set(METHODS[name].tied) <= set(settings[0].flat())


def test_numbers_are_told_by_metric_and_tensors_are_not():
    replies = {2: {"local_loss": 0.5, "told": torch.tensor(0.5)}, 1: {"local_loss": 1, "kernel_loss": 0.2}}
    assert by_metric(replies) == {"local_loss": {1: 1, 2: 0.5}, "kernel_loss": {1: 0.2}}
    assert list(by_metric(replies)["local_loss"]) == [1, 2]


# One of one's own.


@pytest.fixture
def head_mean():
    """The class of `extra_method`, registered by being imported, for one test."""
    sys.modules.pop("extra_method", None)
    assert "head_mean" not in METHODS
    yield importlib.import_module("extra_method").HeadMean
    del METHODS["head_mean"], sys.modules["extra_method"]


def test_a_method_joins_the_others_by_being_imported(head_mean):
    assert METHODS["head_mean"] is head_mean is method_named("head_mean")
    assert of_group("sharing")[-1] == "head_mean"
    assert head_mean.colour is None and head_mean.label == "Mean of heads"


def test_its_hyperparameters_are_settings(head_mean):
    settings = Settings.of(method="head_mean", pull=0.2, tau=0.5)               # tau is of other methods: no effect
    assert settings.method == head_mean(pull=0.2) and settings.flat()["pull"] == 0.2 and "tau" not in settings.flat()
    assert settings.replace(pull=0.3).key() != settings.key() and settings.run().startswith("head_mean-")
    assert Settings.of(method=head_mean(pull=0.2)) == Settings.of(method="head_mean", pull=0.2)
    assert Settings.of(method="fedmuscle", pull=0.3) == Settings.of(method="fedmuscle")
    with pytest.raises(ValueError, match="pull: got -1"):
        settings.replace(pull=-1)


def test_it_plays(head_mean, monkeypatch):
    """As it says, and with what every method has: separate clients, absence, bytes, resuming."""
    found = begin(federation(head_mean(pull=1.0), plain=True), 1)
    monkeypatch.setattr("fedmuscle_core.client.local_phase", lambda client, round: 0.25)
    heads = [client.network.head.weight.detach().clone() for client in found.clients]
    assert play(found, 1) == {"local_loss": dict.fromkeys(CLIENTS, 0.25)}
    assert all(torch.allclose(client.network.head.weight, sum(heads) / 4) for client in found.clients)
    size = 4 * (6 * 3 + 3)
    assert found.ledger.entries == {(1, client, way): size for client in CLIENTS for way in ("up", "down")}


def test_it_has_what_every_method_has(head_mean):
    here, apart, resumed = (federation(head_mean(), absence=0.4) for _ in range(3))
    states = []
    history = small_fit(here, 3, after_round=lambda found: states.append(separated.copied(found.state())))
    pd.testing.assert_frame_equal(history, small_fit(apart, 3, engine=separated.connect(apart)), check_exact=True)
    resumed.load(states[0])
    pd.testing.assert_frame_equal(history, small_fit(resumed, 3), check_exact=True)
    absent = [(round, client) for round in (1, 2, 3) for client in set(CLIENTS) - set(here.server.present(round))]
    assert absent and all(here.ledger.total(*key) == 0 for key in absent)

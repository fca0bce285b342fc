import dataclasses
import json
import pickle

import pytest

from fedmuscle_core.client import Training
from fedmuscle_core.experiments import build
from fedmuscle_core.experiments.profiles import PROFILES, profile_seeds, profile_settings
from fedmuscle_core.experiments.runs import fingerprint
from fedmuscle_core.experiments.settings import Compute, Settings
from fedmuscle_core.experiments.setups import Setup, setup_named
from fedmuscle_core.experiments.store import stored_runs
from fedmuscle_core.experiments.tuning import FOLDER
from fedmuscle_core.methods import METHODS, FedHeNN, FedMuscle, Local, Pairwise
from fedmuscle_core.paths import results

OWN = Setup("own", [("ic10", "vit_small", 8)] * 4)


@pytest.mark.parametrize("folder", [results("mini"), FOLDER], ids=["results", "tuning"])
def test_every_committed_run_has_the_name_and_the_fingerprint_of_its_settings(folder):
    """So that what is stored is found, and none is computed again."""
    records = [record for record, _ in stored_runs(folder)]
    assert len(records) >= 150
    for record in records:
        settings = Settings.of(**record["settings"]).canonical()
        assert settings.run() == record["run"], record["run"]
        assert fingerprint(settings.setup) == record["fingerprint"], settings.setup.name
        assert settings.flat().items() >= record["settings"].items()


@pytest.mark.parametrize(("change", "message"), [
    ({"rounds": 0}, "rounds: got 0"),
    ({"rounds": 2.0}, "rounds: got 2.0"),
    ({"seed": -1}, "seed: got -1"),
    ({"absence": 1.0}, "absence: got 1.0"),
    ({"bad_uploads": "ignore"}, "bad_uploads: got 'ignore'"),
    ({"dirichlet": 0}, "dirichlet: got 0"),
    ({"local_lr": "1e-3"}, "local_lr: got '1e-3'"),
    ({"min_local_steps": 0}, "min_local_steps: got 0"),
    ({"protocol": "post"}, "protocol: got 'post'"),
    ({"tau": 0}, "tau: got 0"),
    ({"tau": 0.1}, "tau_prev: got 0.15, expected at most tau = 0.1"),
    ({"contrastive_lr": float("inf")}, "contrastive_lr: got inf"),
    ({"augment": 1}, "augment: got 1, expected True or False"),
    ({"tau_cross": -1.0}, "tau_cross: got -1.0"),
    ({"method": "fedhenn", "eta": 0}, "eta: got 0"),
    ({"method": "cofed", "vote_share": 1.0}, "vote_share: got 1.0, expected a finite number of at least 0 and below 1"),
    ({"method": "cofed", "vote_margin": -0.1}, "vote_margin: got -0.1"),
    ({"method": "mfed", "share": "head"}, "share: got 'head', expected one of"),
    ({"adaptation": "prefix"}, "adaptation: got 'prefix', expected one of"),
    ({"precision": "float16"}, "precision: got 'float16'"),
    ({"micro_batch_size": 0}, "micro_batch_size: got 0"),
    ({"image_size": 1.5}, "image_size: got 1.5"),
    ({"lora_rank": 0}, "lora_rank: got 0"),
    ({"offload": 1}, "offload: got 1, expected True or False"),
    ({"setup": "setup9"}, "setup: got 'setup9', expected one of .*'quickstart'"),
    ({"method": "sage"}, "method: got 'sage', expected one of .*'fedmuscle'"),
    ({"training": 5}, "training: got 5, expected a Training"), ({"compute": None}, "compute: got None, expected a Compute"),
    ({"method": 3}, r"method: got 3, expected a method such as FedMuscle\(\)"),
    ({"temperature": 0.1}, r"settings: got unknown \['temperature'\]"),
])
def test_bad_values_name_the_field(change, message):
    with pytest.raises(ValueError, match=message):
        Settings.of(**change)


def test_a_public_domain_that_its_clients_cannot_have_is_refused_before_any_work():
    with pytest.raises(ValueError, match="public_domain: got 'moon', expected one of .*'noise'"):
        build.check(Settings(public_domain="moon"))
    build.check(Settings(method="local", public_domain="moon"))               # who reads none may say what they like


def test_a_value_of_another_method_has_no_effect():
    local = Settings.of("embedded1", "local", seed=3)
    assert Settings.of("embedded1", "local", seed=3, tau=0.5, mu=0.7, protocol="tuples") == local
    assert local.replace(eta=7.0) == local and "tau" not in local.flat()
    assert Settings.of(OWN, "pairwise", tau=0.1, tau_prev=0.05).method == Pairwise(tau=0.1)


def test_with_another_method_the_values_that_both_have_stay():
    settings = Settings.of(OWN, "fedmuscle", batch_size=8, tau=0.5, tau_prev=0.3, augment=True)
    assert settings.replace(method="fedhenn").method == FedHeNN(batch_size=8, augment=True)
    assert settings.replace(method="pairwise", tau=0.4).method == Pairwise(batch_size=8, tau=0.4, augment=True)
    assert settings.replace(method=Local()).method == Local()


def test_values_reach_the_group_they_belong_to_and_come_back_flat():
    settings = Settings.of("clients12", "fedmuscle", seed=2, local_lr=0.5, lora_rank=4, tau=0.9, dim=8)
    assert settings.training == Training(local_lr=0.5, local_epochs=2, keep_best=True)
    assert settings.compute == Compute(lora_rank=4)
    assert settings.method == FedMuscle(tau=0.9, contrastive_steps=60)
    assert settings.setup == setup_named("clients12") and settings.dim == 8
    assert Settings.of(**settings.flat()) == settings
    assert settings.describe() == "clients12 fedmuscle seed 2"
    assert settings.run() == f"fedmuscle-{settings.key()}-seed2" and settings.replace(seed=3).key() == settings.key()


OTHERS = {"setup": "quickstart", "protocol": "tuples", "public_domain": "noise", "tau_cross": 0.4, "tau_prev": 0.1,
          "contrastive_steps": 3, "distant": "task", "num_samples": 64, "peer_choice": "task", "absence": 0.5, "dirichlet": 0.1,
          "refresh": "round", "bad_uploads": "skip", "image_size": 64, "adaptation": "lora", "precision": "bfloat16",
          "micro_batch_size": 4, "decoder_term": "distance", "share": "encoder", "measure_gradients": False, "augment": True,
          "offload": True, "mu": 0.5, "group_shift": 0.5, "vote_margin": 0.5, "vote_share": 0.5, "average": "median",
          "keep_best": True,
          "budget": "samples"}


# What some methods take one value of, or only together with another.
NOT_ALONE = {"fedmuscle_views": {"augment", "refresh"}, "constant_margin": {"protocol", "tau_cross"},
             "shuffled_alpha": {"protocol", "num_samples", "tau_cross"}}


@pytest.mark.parametrize("method", METHODS)
def test_the_key_depends_on_every_field_but_the_seed(method):
    usual = Settings.of(method=method, tau=0.5)
    keys = {usual.key()}
    names = set(usual.flat()) - {"method", "seed"} - ({"average"} if method == "matfl" else set())     # it takes one value
    names -= {"own_views", "last_stages"} | NOT_ALONE.get(method, set())
    for name in names:
        value = usual.flat()[name]
        other = not value if isinstance(value, bool) else OTHERS[name] if name in OTHERS else 2 * value
        other = {"samples": "steps", "distance": "loss"}.get(value, other) if isinstance(value, str) else other
        keys.add(usual.replace(**{name: other}).key())
    assert len(keys) == len(names) + 1 and usual.replace(seed=7).key() == usual.key()


@pytest.mark.parametrize("method", METHODS)
def test_values_that_a_method_does_not_use_share_one_stored_run(method):
    """Of those that all methods share: public data, absence, bad uploads."""
    usual, unread = Settings.of(method=method).canonical(), set()
    for name, value in {"public_domain": "noise", "public_size": 64, "absence": 0.5, "bad_uploads": "skip"}.items():
        if usual.replace(**{name: value}).canonical() == usual:
            unread.add(name)
    kind = METHODS[method]
    assert unread == (set() if kind.uses_public else {"public_domain", "public_size"}) | (
        {"absence", "bad_uploads"} if kind.exchanges == "nothing" or kind.ceiling else set())


@pytest.mark.parametrize("method", METHODS)
def test_small_settings_stay_valid_when_what_a_method_does_not_use_is_at_its_default(tiny, shared, method):
    make = tiny if METHODS[method].group == "aligning" else shared
    build.check(build.check(make(method=method, public_size=20, batch_size=8)).canonical())


def test_a_setup_can_be_given_where_its_name_can():
    own = Setup("own", (("ic10", "resnet_small", 24), ("ic10", "vit_small", 24)), {"rounds": 3})
    settings = Settings.of(own, "pairwise", num_peers=1)
    assert settings.flat()["setup"] == "own" and settings.key() != Settings.of("quickstart", "pairwise", num_peers=1).key()
    again = pickle.loads(pickle.dumps(settings))
    assert again == settings and hash(again) == hash(settings) and fingerprint(again.setup) == fingerprint(own)
    assert Settings().replace(setup=own).setup is own
    planned = profile_settings("mini", own, "fedmuscle", [0, 1], num_peers=1)      # untuned: defaults, and what it needs
    assert planned[1] == Settings.of(own, "fedmuscle", rounds=3, num_peers=1, seed=1)


def test_profiles():
    assert [s.seed for s in profile_settings("mini", "embedded1", "local", [3, 4])] == [3, 4]
    assert profile_settings("quick", "embedded1", "local", [0])[0].rounds < Settings().rounds
    assert profile_settings("quick", "embedded1", "local", [0], rounds=7)[0].rounds == 7
    given = FedMuscle(tau=0.7, tau_prev=0.1)
    assert profile_settings("mini", "embedded1", given, [0])[0].method == given           # a given method has the values it has
    assert profile_seeds("mini", []) == PROFILES["mini"]["seeds"] and len(PROFILES["mini"]["seeds"]) >= 5
    assert profile_seeds("mini", [9]) == [9] and profile_seeds("mini", None) == profile_seeds("mini", [])
    for seeds in (0, 5, "abc", ["0"], [True]):
        with pytest.raises(ValueError, match="seeds: got .* expected a list of integers"):
            profile_seeds("mini", seeds)
    with pytest.raises(ValueError, match="profile: got 'huge'"):
        profile_settings("huge", "embedded1", "local", [0])
    with pytest.raises(ValueError, match="seeds: got none"):
        profile_settings("mini", "embedded1", "local", [])


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().rounds = 3


def test_a_value_of_several_numbers_is_stored_as_a_list_and_comes_back():
    from dataclasses import dataclass, replace

    from fedmuscle_core import Local
    from fedmuscle_core.method import METHODS

    @dataclass(frozen=True)
    class Several(Local):
        name, label = "several", "Several"
        rates: tuple = (1.0, 2.0)
    try:
        settings = Settings.of("embedded1", Several(rates=(3.0, 4.0)))
        again = Settings.of(**json.loads(json.dumps(settings.flat())))
        assert again == settings and hash(again) == hash(settings) and settings.flat()["rates"] == [3.0, 4.0]
        assert settings.key() != settings.replace(rates=(1.0, 2.0)).key() and replace(settings, seed=1).run() != settings.run()
    finally:
        del METHODS["several"]


def test_a_method_without_a_name_of_its_own_or_with_shared_names_is_refused():
    from dataclasses import dataclass

    from fedmuscle_core import FedMuscle, Local
    from fedmuscle_core.method import METHODS

    @dataclass(frozen=True)
    class Mine(FedMuscle):
        def loss(self, *arguments):
            return 0.0

    with pytest.raises(ValueError, match="method: got Mine, named 'fedmuscle', expected a `name` that no other method has"):
        Settings("embedded1", Mine())
    for name, fields, message in (("taken", {"rounds": 3}, r"got hyperparameters \['rounds'\] of taken, expected other names"),
                                  ("My method", {}, "got the name 'My method', expected lower-case letters")):
        kind = dataclass(frozen=True)(type("Own", (Local,), {"name": name, "label": "Own", **fields,
                                                             "__annotations__": dict.fromkeys(fields, int)}))
        try:
            with pytest.raises(ValueError, match=message):
                Settings("embedded1", kind())
        finally:
            del METHODS[name]


def test_a_whole_number_where_a_field_takes_numbers_is_the_same_run():
    for name, value in {"tau": 1, "local_lr": 1, "dirichlet": 2, "absence": 0}.items():
        whole, same = Settings.of(**{name: value}), Settings.of(**{name: float(value)})
        assert whole == same and whole.run() == same.run() and json.dumps(whole.flat()) == json.dumps(same.flat())
    assert type(Settings.of(rounds=3).flat()["rounds"]) is int


def test_settings_of_a_setup_have_what_it_needs():
    own = Setup("own", (("ic10", "resnet_small", 24), ("ic10", "vit_small", 24)), {"rounds": 3, "num_peers": 1, "tau": 0.5})
    assert Settings.of("embedded2").public_domain == "pairs"
    assert Settings.of("embedded2", public_domain="noise").public_domain == "noise"
    settings = Settings.of(own, "fedmuscle", seed=2)
    assert (settings.rounds, settings.method, settings.seed) == (3, FedMuscle(num_peers=1, tau=0.5), 2)
    assert settings == Settings.of(own, "fedmuscle", seed=2, **own.settings)  # spread by hand, as before version 0.7
    assert Settings.of(own, FedMuscle()).method == FedMuscle() and Settings.of(own, FedMuscle()).rounds == 3


def test_a_group_and_one_of_its_fields_are_both_taken():
    settings = Settings().replace(training=Training(local_epochs=2), local_lr=0.5, compute=Compute(lora_rank=4), offload=True)
    assert settings.training == Training(local_epochs=2, local_lr=0.5)
    assert settings.compute == Compute(lora_rank=4, offload=True)


def test_seeds_that_are_there_twice_are_refused():
    with pytest.raises(ValueError, match=r"seeds: got \[0\] more than once in \[0, 1, 0\], expected different ones"):
        profile_seeds("mini", [0, 1, 0])
    with pytest.raises(ValueError, match=r"seeds: got \[3\] more than once"):
        profile_settings("mini", "embedded1", "local", [3, 3])

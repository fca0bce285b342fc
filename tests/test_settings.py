import dataclasses

import pytest

from fedmuscle_core import federation
from fedmuscle_core.experiments.profiles import PROFILES, profile_seeds, profile_settings
from fedmuscle_core.experiments.runs import canonical
from fedmuscle_core.experiments.settings import EXCHANGE_FIELDS, Settings
from fedmuscle_core.methods import ALIGNING, METHODS


@pytest.mark.parametrize(("change", "message"), [
    ({"rounds": 0}, "rounds: got 0"),
    ({"rounds": 2.0}, "rounds: got 2.0"),
    ({"seed": -1}, "seed: got -1"),
    ({"protocol": "post"}, "protocol: got 'post'"),
    ({"public_domain": "mars"}, "public_domain: got 'mars'"),
    ({"tau": 0}, "tau: got 0"),
    ({"local_lr": "1e-3"}, "local_lr: got '1e-3'"),
    ({"contrastive_lr": float("inf")}, "contrastive_lr: got inf"),
    ({"augment": 1}, "augment: got 1, expected True or False"),
    ({"tau_cross": -1.0}, "tau_cross: got -1.0"),
    ({"eta": 0}, "eta: got 0"),
    ({"vote_share": 1.0}, "vote_share: got 1.0, expected a number from 0 to below 1"),
    ({"vote_margin": -0.1}, "vote_margin: got -0.1"),
    ({"public_domain": "moon"}, "public_domain: got 'moon', expected one of .*'noise'.*'voc'"),
    ({"adaptation": "prefix"}, "adaptation: got 'prefix', expected one of"),
    ({"precision": "float16"}, "precision: got 'float16'"),
    ({"micro_batch_size": 0}, "micro_batch_size: got 0"),
    ({"image_size": 1.5}, "image_size: got 1.5"),
    ({"lora_rank": 0}, "lora_rank: got 0"),
    ({"offload": 1}, "offload: got 1, expected True or False"),
])
def test_bad_settings_name_the_field(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(**change)


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match=r"settings: got unknown \['temperature'\]"):
        Settings().replace(temperature=0.1)


def changed(field):
    """Another valid value of a field of `Settings`."""
    other = {"setup": "quickstart", "method": "local", "protocol": "tuples", "public_domain": "noise", "augment": True,
             "tau_cross": 0.4, "tau_prev": 0.1, "seed": 5, "contrastive_steps": 3, "distant": "task", "num_samples": 64,
             "peer_choice": "task", "absence": 0.5, "refresh": "round", "dirichlet": 0.1, "decoder_term": "distance",
             "share": "encoder", "group_shift": 0.5, "bad_uploads": "skip", "image_size": 64, "adaptation": "lora",
             "precision": "bfloat16", "micro_batch_size": 4, "offload": True}
    return other.get(field.name) or (field.default * 2 if isinstance(field.default, int) or field.name == "tau"
                                     else field.default / 2)


def test_the_key_depends_on_every_field_but_the_seed():
    keys = {field.name: Settings().replace(**{field.name: changed(field)}).key() for field in dataclasses.fields(Settings)}
    assert keys.pop("seed") == Settings().key()
    assert len(set(keys.values()) | {Settings().key()}) == len(keys) + 1


def test_settings_a_method_does_not_read_share_one_stored_run():
    sharing = {"mu", "lam", "decoder_term", "share", "group_shift", "bad_uploads"}
    muscle = set(EXCHANGE_FIELDS) - {"eta", "vote_margin", "vote_share"} - sharing
    reads = {"local": (), "fedmuscle": muscle, "pairwise": muscle - {"tau_prev", "num_samples"},
             "gramian": muscle - {"tau_prev", "num_samples", "tau_cross", "distant", "protocol"},
             "simclr": {"public_domain", "public_size", "batch_size", "contrastive_lr", "contrastive_epochs",
                        "contrastive_steps", "tau"},
             "fedhenn": {"public_domain", "public_size", "batch_size", "eta", "augment"},
             "cofed": {"public_domain", "public_size", "vote_margin", "vote_share"},
             "fedavg": {"bad_uploads"}, "fedprox": {"bad_uploads", "mu"}, "encoder_only": {"bad_uploads"}, "centralised": set(),
             "matfl": {"bad_uploads", "group_shift"}, "mfed": {"bad_uploads", "lam", "decoder_term", "share"}}
    assert set(reads) == set(METHODS)
    fields = {field.name: field for field in dataclasses.fields(Settings)}
    for method, read in reads.items():
        for name in EXCHANGE_FIELDS:
            other = Settings(method=method, **{name: changed(fields[name])})
            assert (canonical(other) != canonical(Settings(method=method))) == (name in read), (method, name)


@pytest.mark.parametrize("method", METHODS)
def test_small_settings_stay_valid_when_what_a_method_does_not_read_is_at_its_default(tiny, shared, method):
    make = tiny if method in ALIGNING else shared
    federation.check(canonical(federation.check(make(method=method, public_size=20, batch_size=8))))


def test_pairwise_runs_at_any_temperature():
    federation.check(Settings(method="pairwise", tau=0.1))
    assert canonical(Settings(method="pairwise", tau=0.1, tau_prev=0.05)) == canonical(
        Settings(method="pairwise", tau=0.1, tau_prev=0.1))


def test_profiles():
    assert [s.seed for s in profile_settings("mini", "setup1", "local", [3, 4])] == [3, 4]
    assert profile_settings("quick", "setup1", "local", [0])[0].rounds < Settings().rounds
    assert profile_settings("quick", "setup1", "local", [0], rounds=7)[0].rounds == 7
    assert profile_seeds("mini", []) == PROFILES["mini"]["seeds"] and len(PROFILES["mini"]["seeds"]) >= 5
    assert profile_seeds("mini", [9]) == [9] and profile_seeds("mini", None) == profile_seeds("mini", [])
    for seeds in (0, 5, "abc", ["0"], [True]):
        with pytest.raises(ValueError, match="seeds: got .* expected a list of integers"):
            profile_seeds("mini", seeds)
    with pytest.raises(ValueError, match="profile: got 'huge'"):
        profile_settings("huge", "setup1", "local", [0])
    with pytest.raises(ValueError, match="seeds: got none"):
        profile_settings("mini", "setup1", "local", [])

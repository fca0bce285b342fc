import dataclasses

import pytest

from fedmuscle_core.experiment import canonical
from fedmuscle_core.profiles import PROFILES, profile_seeds, profile_settings
from fedmuscle_core.settings import EXCHANGE_FIELDS, Settings


@pytest.mark.parametrize(("change", "message"), [
    ({"rounds": 0}, "rounds: got 0"),
    ({"rounds": 2.0}, "rounds: got 2.0"),
    ({"seed": -1}, "seed: got -1"),
    ({"protocol": "post"}, "protocol: got 'post'"),
    ({"public_domain": "mars"}, "public_domain: got 'mars'"),
    ({"tau": 0}, "tau: got 0"),
    ({"local_lr": "1e-3"}, "local_lr: got '1e-3'"),
    ({"contrastive_lr": float("inf")}, "contrastive_lr: got inf"),
    ({"tau_prev": 0.5}, "tau_prev: got 0.5, expected at most tau = 0.2"),
    ({"public_size": 16}, "public_size: got 16, expected at least batch_size = 32"),
])
def test_bad_settings_name_the_field(change, message):
    with pytest.raises(ValueError, match=message):
        Settings(**change)


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match=r"settings: got unknown \['temperature'\]"):
        Settings().replace(temperature=0.1)


def test_the_key_depends_on_every_field_but_the_seed():
    other = {"setup": "quickstart", "method": "local", "protocol": "tuples", "public_domain": "noise"}
    for field in dataclasses.fields(Settings):
        value = other.get(field.name, field.default / 2 if isinstance(field.default, float) and field.name != "tau"
                          else field.default * 2 if field.name != "seed" else 5)
        same = Settings().replace(**{field.name: value}).key() == Settings().key()
        assert same == (field.name == "seed"), field.name


def test_settings_a_method_does_not_read_share_one_stored_run():
    for name in EXCHANGE_FIELDS:
        default = getattr(Settings(), name)
        changed = {name: {"protocol": "tuples", "public_domain": "noise"}.get(name) or
                   (default * 2 if name != "tau_prev" else 0.1)}
        assert canonical(Settings(method="local", **changed)) == canonical(Settings(method="local"))
        assert canonical(Settings(method="fedmuscle", **changed)) != canonical(Settings(method="fedmuscle"))
        same = canonical(Settings(method="pairwise", **changed)) == canonical(Settings(method="pairwise"))
        assert same == (name == "tau_prev")


def test_pairwise_runs_at_any_temperature():
    canonical(Settings(method="pairwise", tau=0.1, tau_prev=0.05))
    assert canonical(Settings(method="pairwise", tau=0.1, tau_prev=0.05)) == canonical(
        Settings(method="pairwise", tau=0.1, tau_prev=0.1))


def test_profiles():
    assert [s.seed for s in profile_settings("mini", "setup1", "local", [3, 4])] == [3, 4]
    assert profile_settings("quick", "setup1", "local", [0])[0].rounds < Settings().rounds
    assert profile_settings("quick", "setup1", "local", [0], rounds=7)[0].rounds == 7
    assert profile_seeds("mini", []) == PROFILES["mini"]["seeds"] and len(PROFILES["mini"]["seeds"]) >= 5
    assert profile_seeds("mini", [9]) == [9]
    for profile, message in [("paper", "paper profile .* is not implemented"), ("huge", "profile: got 'huge'")]:
        with pytest.raises(ValueError, match=message):
            profile_settings(profile, "setup1", "local", [0])
    with pytest.raises(ValueError, match="seeds: got none"):
        profile_settings("mini", "setup1", "local", [])

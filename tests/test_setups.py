"""Setups: the committed ones are those of the stored runs and fit together; one of one's own works wherever a name does."""

import dataclasses

import pytest

from fedmuscle_core.experiments import build
from fedmuscle_core.experiments.profiles import PROFILES, profile_settings
from fedmuscle_core.experiments.runs import fingerprint
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.setups import DENSE_SIZES, LABEL_SIZES, SETUPS, TASK_COUNTS, Setup, setup_named
from fedmuscle_core.experiments.store import stored_runs
from fedmuscle_core.experiments.tuning import FOLDER, tuned_methods
from fedmuscle_core.methods import METHODS
from fedmuscle_core.paths import results
from fedmuscle_core.world.tasks import TASKS, task_named

PAPER = {"embedded1": "paper1", "embedded2": "paper2", "noniid": "paper_noniid"}
TIMED = {"clients24"}                                 # setups of benchmarks alone


def test_every_setup_but_those_of_the_paper_profile_has_stored_runs_of_its_clients():
    found = {}
    for folder in (results("mini"), FOLDER):
        for record, _ in stored_runs(folder):
            found.setdefault(record["settings"]["setup"], set()).add(record["fingerprint"])
    assert found == {name: {fingerprint(setup)} for name, setup in SETUPS.items() if name not in TIMED.union(PAPER.values())}


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)
def test_what_a_setup_says_of_itself_fits(setup):
    assert SETUPS[setup.name] is setup_named(setup.name) is setup_named(setup)
    assert setup.paper == PAPER.get(setup.name, "") and setup.tuned_as in ("", *SETUPS)
    assert not SETUPS[setup.tuned_as or setup.name].tuned_as                  # values are taken over once
    assert set(tuned_methods(setup)) < set(METHODS)
    assert setup.tuning_seeds and not set(setup.tuning_seeds) & {seed for one in PROFILES.values() for seed in one["seeds"]}
    assert len(setup.tasks) == len(setup.sizes) == len(setup.clients) >= 3
    assert setup.one_start == setup.name.startswith(("mfed", "tasks"))
    build.check(Settings.of(setup, "local").replace(**setup.settings))


def test_the_paper_profile_plays_real_tasks_at_its_scale():
    for name in PAPER:
        settings = profile_settings("paper", name, "fedmuscle", [0])[0]
        assert settings.setup.name == PAPER[name] and all(task_named(task).source for task in settings.setup.tasks)
        method = settings.method
        assert (method.num_peers, method.batch_size, settings.dim, method.tau, method.tau_prev) == (3, 32, 256, 0.2, 0.15)
    with pytest.raises(ValueError, match="profile: got 'paper' for mfed_dense, expected one of .*'embedded1', 'embedded2'"):
        profile_settings("paper", "mfed_dense", "local", [0])


def test_setups_of_m_fed_have_three_clients_a_task_with_less_and_less_data():
    assert all(list(sizes) == sorted(sizes, reverse=True) and len(sizes) == 3 for sizes in (DENSE_SIZES | LABEL_SIZES).values())
    for count in TASK_COUNTS:
        setup = SETUPS["mfed_dense" if count == 4 else f"tasks{count}"]
        assert len(set(setup.tasks)) == count and len(setup.clients) == 3 * count
        assert len({spec.backbone for spec in setup.clients}) == 1


@pytest.mark.parametrize(("arguments", "message"), [
    (("", [("ic10", "resnet_small", 4)]), "setup: got the name '', expected letters"),
    (("a/b", [("ic10", "resnet_small", 4)]), "setup: got the name 'a/b', expected letters"),
    (("own", []), "setup: got no clients in 'own'"),
    (("own", None), r"setup own: got clients None, expected \(task, backbone, private samples\) for each"),
    (("own", [("ic10", "resnet_small")]), r"setup own: got clients \[\('ic10', 'resnet_small'\)\], expected \(task"),
    (("own", [("ic10", "resnet_small", 4), ("ic10", "vit_small", 0)]), "setup own: client 2: train_size: got 0"),
])
def test_a_setup_that_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Setup(*arguments)


def test_a_task_that_nobody_knows_is_refused_before_any_work():
    with pytest.raises(ValueError, match="setup: client 2: task: got 'ic7', expected one of"):
        build.check(Settings.of(Setup("own", [("ic10", "vit_small", 4), ("ic7", "vit_small", 4)]), "local"))
    with pytest.raises(ValueError, match="setup: got 'own', expected one of"):
        setup_named("own")


def test_the_fingerprint_follows_clients_and_the_rates_of_their_tasks_and_nothing_else(monkeypatch):
    own = Setup("own", [("tc10", "bert_small", 8), ("ic10", "vit_small", 8)])
    first = fingerprint(own)
    renamed = dataclasses.replace(own, name="other", settings={"rounds": 3}, tuned_as="embedded1", tuning_seeds=[7])
    assert fingerprint(renamed) == first and hash(renamed) != hash(own)
    assert fingerprint(dataclasses.replace(own, clients=own.clients[::-1])) != first
    other_rate = dataclasses.replace(TASKS["tc10"], lr_scale=2.0)
    monkeypatch.setitem(TASKS, "tc10", other_rate)
    fingerprint.cache_clear()
    changed = fingerprint(own)
    fingerprint.cache_clear()
    assert changed != first

"""Shadow federations: half of the candidates each, what is read of uploads, kept line by line."""

import dataclasses
import json

import numpy as np
import pytest

from fedmuscle_core import Federation
from fedmuscle_core.experiments import shadows
from fedmuscle_core.experiments.build import build, read
from fedmuscle_core.experiments.runs import RECOMPUTE_BEFORE, one_thread
from fedmuscle_core.privacy import accounting
from fedmuscle_core.privacy.attacks import detection, likelihood_ratios
from fedmuscle_core.world.tasks import task_named

SHORT = {"rounds": 1, "contrastive_steps": 1, "public_size": 64, "validation_size": 20, "test_size": 20, "dim": 16}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(shadows, "POOL", 24)
    clients = (shadows.SETUP.clients[0]._replace(train_size=24), *shadows.SETUP.clients[1:])
    monkeypatch.setattr(shadows, "SETUP", dataclasses.replace(shadows.SETUP, clients=clients))


def test_every_variant_is_played_and_reads_one_number_a_candidate(tmp_path):
    path = tmp_path / "shadows.ndjson"
    found = shadows.compute(path, shadows=1, **SHORT)
    assert {variant for variant, _ in found} == set(shadows.VARIANTS)
    for record in found.values():
        assert set(record["values"]) == set(shadows.NUMBERS[shadows.VARIANTS[record["variant"]][2]])
        assert all(len(several) == len(record["member"]) == 24 for several in record["values"].values())
        assert 4 < record["member"].count("1") < 20
        reads = shadows.VARIANTS[record["variant"]][2]
        assert set(record["score"]) == {"1", "2", "3"} == {*record["probes"], *(() if reads == "representations" else "123")}
        assert bool(record["probes"]) == (reads == "representations")
        assert all(set(one) == set(shadows.PROBED) and all(0 <= share <= 100 for share in one.values())
                   for one in record["probes"].values())
    members = {record["member"] for record in found.values()}
    assert len(members) == 1                                                  # of a shadow, whatever the variant
    assert set(found["CoFED", 0]["values"]["vote"]) <= {0.0, 1.0}
    several = [found[f"FedMuscle{noise}", 0]["values"] for noise in ("", ", noise 0.03", ", noise 0.1", ", noise 0.3")]
    assert all(one[name] != other[name] for one in several for other in several if one is not other for name in one)


def test_a_stopped_computation_goes_on_and_leaves_out_half_a_line(tmp_path):
    path = tmp_path / "shadows.ndjson"
    first = shadows.compute(path, ("CoFED",), 1, **SHORT)
    whole = path.read_text()
    path.write_text(whole + whole[:40])
    both = shadows.compute(path, ("CoFED",), 2, **SHORT)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["shadow"] for line in lines] == [0, 1] and both["CoFED", 0] == first["CoFED", 0]
    assert both["CoFED", 0]["member"] != both["CoFED", 1]["member"]
    others = shadows.compute(path, ("CoFED",), 1, **SHORT | {"dim": 8})       # other settings: another federation
    assert others["CoFED", 0]["settings"]["dim"] == 8
    assert others["CoFED", 0]["settings"] != first["CoFED", 0]["settings"]
    lacking = 2 * len(shadows.VARIANTS)                                       # these are of other settings
    assert shadows.forecast(path, 2).startswith(f"notebook 19 computes {lacking} shadow federations")
    again = shadows.play("CoFED", 1, **SHORT)
    assert again["values"] == both["CoFED", 1]["values"]                      # the same seed, the same numbers


def test_damaged_lines_are_named_and_what_was_stored_before_force_does_not_count(tmp_path, monkeypatch):
    path = tmp_path / "shadows.ndjson"
    first = shadows.compute(path, ("Local",), 1, **SHORT)
    assert shadows.stored(path, ("Local",), 1, **SHORT) == first
    monkeypatch.setenv(RECOMPUTE_BEFORE, "2999-01-01T00:00:00+00:00")
    assert shadows.stored(path, ("Local",), 1, **SHORT) == {}
    path.write_text(path.read_text() + "{broken\n")
    with pytest.raises(ValueError, match=r"shadows.ndjson: line 2: got a damaged record \(JSONDecodeError\), expected one of"):
        shadows.compute(path, ("Local",), 1, **SHORT)


def test_a_federation_that_diverges_is_stored_as_such_and_not_played_again(tmp_path):
    path, high = tmp_path / "shadows.ndjson", SHORT | {"local_lr": 1e30}
    found = shadows.compute(path, ("Local",), 1, **high)
    record = found["Local", 0]
    assert "NaN" in record["failed"] and "values" not in record and shadows.compute(path, ("Local",), 1, **high) == found


@pytest.mark.parametrize("variant", ["M-Fed", "FedMuscle", "CoFED"])           # parameters, representations, votes
def test_a_client_that_learnt_its_samples_by_heart_is_found_out_and_fresh_samples_are_not(monkeypatch, variant):
    """Whatever is read: fifteen epochs at four times the rate on a dozen digits; nobody trained on the fresh ones, of which as
    many are called members, at random."""
    first, *others = shadows.SETUP.clients
    clients = (first._replace(task="ic10"), *(one._replace(train_size=8) for one in others))
    monkeypatch.setattr(shadows, "SETUP", dataclasses.replace(shadows.SETUP, clients=clients))
    monkeypatch.setattr(shadows, "probe_shares", lambda method, client, round: {})         # another question
    long, told, unseen = SHORT | {"local_epochs": 15, "local_lr": 2e-3, "test_size": 150}, shadows.told, []
    settings = shadows.settings_of(variant, 0, **long)
    pairs, answers = shadows.world_for(settings.replace(seed=shadows.FIRST)).private(1)["test"]
    fresh = read(task_named("ic10"), first.backbone, "image", pairs)

    def read_both(method, client, inputs, wanted, *rest):
        unseen.append(told(method, client, fresh, answers, *rest))
        return told(method, client, inputs, wanted, *rest)
    monkeypatch.setattr(shadows, "told", read_both)
    records = [shadows.play(variant, shadow, **long) for shadow in range(8)]
    member = np.array([[one == "1" for one in record["member"]] for record in records])
    called = np.random.default_rng(0).random((8, 150)) < 0.5
    for name in shadows.NUMBERS[shadows.VARIANTS[variant][2]]:
        auc = {}
        for which, values, inside in (("learnt", [record["values"][name] for record in records], member),
                                      ("fresh", [one[name].tolist() for one in unseen], called)):
            kept = (inside.sum(0) >= 3) & ((~inside).sum(0) >= 3)
            auc[which] = detection(likelihood_ratios(np.array(values)[:, kept], inside[:, kept]), inside[:, kept])["auc"]
        assert auc["learnt"] > 0.7, name
        assert auc["fresh"] == pytest.approx(0.5, abs=0.07), name


def test_updates_are_inverted_once_and_kept(tmp_path):
    """Second derivatives through the attention of a ViT among it."""
    path = tmp_path / "inversion.json"
    found = shadows.inversions(path, samples=1, steps=3, **SHORT)
    assert [row["read"] for row in found["rows"]] == ["one step, one sample", "a local phase"]
    assert set(found["pictures"]) == {"private 0", "one step 0", "a phase"}
    assert shadows.picture_of(found, "private 0").shape == (3, 32, 32)
    assert all(-1 <= row["cosine"] <= 1 for row in found["rows"])
    settings = shadows.settings_of("M-Fed", 0, **SHORT)
    pictures = build(settings).clients[0].data["train"].inputs                # by numbers, not by `psnr`
    public = shadows.world_for(settings.replace(method="fedmuscle")).public().images.mean(0)
    likeness = [-10 * ((picture - public) ** 2).mean().log10().item() for picture in pictures]
    assert [row["nothing"] for row in found["rows"]] == pytest.approx([likeness[0], max(likeness)], rel=1e-4)
    assert shadows.inversions(path, samples=1, steps=3, **SHORT)["finished"] == found["finished"]
    assert shadows.inversions(path, samples=1, steps=4, **SHORT)["steps"] == 4


def test_what_epsilon_is_asked_about():
    settings = shadows.settings_of("M-Fed, DP-SGD 1", 0)
    noise, rate, steps = shadows.privacy_of(settings, 200)
    assert noise == 1.0 and rate == settings.training.local_batch_size / 200
    passes = -(-200 // settings.training.local_batch_size) * settings.training.local_epochs
    assert steps == settings.rounds * max(passes, settings.training.min_local_steps)


@pytest.mark.parametrize(("variant", "changes"), [("M-Fed, DP-SGD 1", {}), ("FedMuscle, DP-SGD 0.5", {"local_epochs": 4}),
                                                  ("M-Fed, DP-SGD 1", {"local_batch_size": 32, "min_local_steps": 3})])
def test_epsilon_is_the_library_s_fed_with_every_step_that_is_made(variant, changes):
    """Of client 1 in a run of two rounds: whole sets in one batch among them."""
    accountants = pytest.importorskip("opacus.accountants", reason="the extra [privacy] is not installed")
    settings = shadows.settings_of(variant, 0, **SHORT | {"rounds": 2} | changes)
    clients, accountant, seen = build(settings).clients, accountants.RDPAccountant(), []
    size, training = clients[0].data["train"].size, settings.training
    federation = Federation(clients, settings.method, seed=settings.seed, training=training)
    step = clients[0].local_optimizer.step

    def counted():
        accountant.step(noise_multiplier=training.noise_multiplier, sample_rate=min(1.0, training.local_batch_size / size))
        seen.append(federation.round)
        return step()
    clients[0].local_optimizer.step = counted
    with one_thread():
        federation.fit(settings.rounds, progress=False)
    assert set(seen) == {0, 1} and seen.count(0) == seen.count(1)             # rounds that were over before
    noise, rate, steps = shadows.privacy_of(settings, size)
    assert steps == len(seen)
    assert accounting.epsilon(noise, rate, steps) == pytest.approx(accountant.get_epsilon(accounting.DELTA))

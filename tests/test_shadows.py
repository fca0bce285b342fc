"""Shadow federations: half of the candidates each, what is read of uploads, kept line by line."""

import dataclasses
import json

import numpy as np
import pytest

from fedmuscle_core.experiments import shadows
from fedmuscle_core.experiments.runs import RECOMPUTE_BEFORE
from fedmuscle_core.privacy.attacks import detection, likelihood_ratios

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
        assert len(record["values"]) == len(record["member"]) == 24 and 4 < record["member"].count("1") < 20
        assert set(record["score"]) == set(record["probes"]) == {"1", "2", "3"}
        assert all(set(one) == set(shadows.PROBED) and all(0 <= share <= 100 for share in one.values())
                   for one in record["probes"].values())
    members = {record["member"] for record in found.values()}
    assert len(members) == 1                                                  # of a shadow, whatever the variant
    assert set(found["CoFED", 0]["values"]) <= {0.0, 1.0}
    assert found["FedMuscle", 0]["values"] != found["FedMuscle, noise 0.1", 0]["values"]


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


def test_a_client_that_learnt_its_samples_by_heart_is_found_out_by_its_parameters():
    """Sixty epochs on a dozen samples each; the stored runs are of ordinary length."""
    long = SHORT | {"rounds": 1, "local_epochs": 60}
    records = [shadows.play("M-Fed", shadow, **long) for shadow in range(8)]
    values = np.array([record["values"] for record in records])
    member = np.array([[one == "1" for one in record["member"]] for record in records])
    inside, outside = values[member].mean(), values[~member].mean()
    assert inside > outside + 1
    kept = (member.sum(0) >= 3) & ((~member).sum(0) >= 3)
    assert detection(likelihood_ratios(values[:, kept], member[:, kept]), member[:, kept])["auc"] > 0.8


def test_updates_are_inverted_once_and_kept(tmp_path):
    """Second derivatives through the attention of a ViT among it."""
    path = tmp_path / "inversion.json"
    found = shadows.inversions(path, samples=1, steps=3, **SHORT)
    assert [row["read"] for row in found["rows"]] == ["one step, one sample", "a local phase", "nothing"]
    assert set(found["pictures"]) == {"private 0", "one step 0", "a phase"}
    assert shadows.picture_of(found, "private 0").shape == (3, 32, 32)
    assert all(-1 <= row["cosine"] <= 1 for row in found["rows"][:2]) and found["rows"][2]["cosine"] is None
    assert shadows.inversions(path, samples=1, steps=3, **SHORT)["finished"] == found["finished"]
    assert shadows.inversions(path, samples=1, steps=4, **SHORT)["steps"] == 4


def test_what_epsilon_is_asked_about():
    settings = shadows.settings_of("M-Fed, DP-SGD 1", 0)
    noise, rate, steps = shadows.privacy_of(settings, 200)
    assert noise == 1.0 and rate == settings.training.local_batch_size / 200
    passes = -(-200 // settings.training.local_batch_size) * settings.training.local_epochs
    assert steps == settings.rounds * max(passes, settings.training.min_local_steps)

"""What the traced FedMuscle measures, against the same things done by hand; and schedules of the contrastive rate."""

import math

import pytest
import torch
import torch.nn.functional as F
from literal import muscle_tuples
from small_clients import CLIENTS, federation, method

from fedmuscle_core.methods import METHODS, traced
from fedmuscle_core.methods.contrastive import SCHEDULES
from fedmuscle_core.methods.traced import NUMBERS


def parameters(found):
    return {client.name: torch.cat([value.detach().flatten() for value in client.network.parameters()]).clone()
            for client in found.clients}


@pytest.mark.parametrize("refresh", ["batch", "round"])
def test_measuring_changes_nothing(refresh):
    runs, ledgers = [], []
    for name in ("fedmuscle", "fedmuscle_traced"):
        found = federation(method(name, refresh=refresh))
        history = found.fit(3, progress=False)
        runs.append(parameters(found))
        ledgers.append(found.ledger.table())
    assert all(torch.equal(*(run[client] for run in runs)) for client in CLIENTS) and ledgers[0].equals(ledgers[1])
    measured = history[history["metric"].isin(NUMBERS)]
    assert len(measured) == 3 * len(CLIENTS) * len(NUMBERS) and measured["value"].notna().all()
    cosines = measured["metric"].str.endswith("cosine")
    assert measured[cosines]["value"].between(-1, 1).all() and measured[~cosines]["value"].gt(0).all()


def test_drift_is_what_each_phase_moves(monkeypatch):
    """Without local phases nothing drifts in them; the contrastive drift is that of the whole round."""
    monkeypatch.setattr("fedmuscle_core.methods.fedmuscle.local_phase", lambda client, round: 0.0)
    found = federation(method("fedmuscle_traced"), plain=True)
    before = {client.name: traced.probes(client) for client in found.clients}
    history = found.fit(1, progress=False).query("split == 'train'").pivot(index="client", columns="metric", values="value")
    assert (history["drift_local"] == 0).all() and torch.allclose(
        torch.tensor(history["drift_contrast"].tolist()), torch.tensor(history["drift_round"].tolist()))
    for client in found.clients:
        moved = sum(sum((x - y) ** 2 for x, y in zip(one, other, strict=True)) for one, other in zip(
            traced.probes(client).tolist(), before[client.name].tolist(), strict=True)) / len(before[client.name])
        assert history.loc[client.name, "drift_contrast"] == pytest.approx(moved, rel=1e-4)


def test_gradients_are_those_of_both_losses_on_the_probes_by_small_steps(monkeypatch):
    """Directional derivatives: a small step along the gradient raises the loss by step times its length."""
    found = federation(method("fedmuscle_traced"), plain=True)
    (client, *_), kept, measure = found.clients, {}, traced.TracedFedMuscle.measure

    def note(self, one, message):
        kept[one.name] = message
        return measure(self, one, message)
    monkeypatch.setattr(traced.TracedFedMuscle, "measure", note)
    history = found.fit(2, progress=False).query("round == 2 and split == 'train' and client == 1")
    measured = history.set_index("metric")["value"]
    (served,) = kept[1]["payload"]
    now = {one.name: traced.probes(one) for one in found.clients}
    assert len(served) == 2 and all(any(torch.equal(rows, now[peer]) for peer in (2, 3, 4)) for rows in served)
    muscle, parts = found.method, list(client.network.representation.parameters())
    client.network.double().eval()
    inputs, wanted = client.data["train"].take(torch.arange(24))

    def value(name):
        if name == "local":
            return client.task.loss(client.network(inputs.double()), wanted)
        anchor = F.normalize(client.network.representation(client.public.inputs.double()), dim=1)
        return muscle_tuples(anchor, list(served.double()), muscle.tau, muscle.tau_prev).mean()

    slopes = {name: torch.autograd.grad(value(name), parts, materialize_grads=True) for name in ("local", "contrast")}
    for name, slope in slopes.items():
        length = math.sqrt(sum(part.square().sum().item() for part in slope))
        assert measured[f"gradient_{name}"] == pytest.approx(length, rel=1e-3)
        before = value(name).item()
        with torch.no_grad():
            for part, along in zip(parts, slope, strict=True):
                part += 1e-6 * along / length
        assert (value(name).item() - before) / 1e-6 == pytest.approx(length, rel=1e-2)
    inner = sum((one * other).sum().item() for one, other in zip(*slopes.values(), strict=True))
    assert measured["gradient_cosine"] == pytest.approx(
        inner / measured["gradient_local"] / measured["gradient_contrast"], abs=1e-3)


def test_who_is_absent_measures_nothing():
    found = federation(method("fedmuscle_traced"), absence=0.6, seed=3)
    history = found.fit(4, progress=False)
    contrasted = history[history["metric"] == "contrastive_loss"][["client", "round"]]
    drifted = history[history["metric"] == "drift_round"][["client", "round"]]
    assert len(drifted) < 4 * len(CLIENTS) and drifted.reset_index(drop=True).equals(contrasted.reset_index(drop=True))
    assert len(history[history["metric"] == "gradient_cosine"]) == len(drifted)


def test_schedules_begin_at_one_and_fall_as_they_say():
    assert [SCHEDULES["constant"](round, 10) for round in (1, 5, 10)] == [1, 1, 1]
    assert [SCHEDULES["sqrt"](round, 10) for round in (1, 4, 9)] == pytest.approx([1, 1 / 2, 1 / 3])
    cosine = [SCHEDULES["cosine"](round, 10) for round in range(1, 11)]
    assert cosine[0] == 1 and cosine[5] == pytest.approx(0.5) and 0 < cosine[-1] < 0.03
    assert cosine == sorted(cosine, reverse=True)


@pytest.mark.parametrize("name", ["simclr", "fedmuscle", "gramian"])
def test_the_optimiser_has_the_rate_of_the_round(name, monkeypatch):
    seen = {}

    def note(found):
        seen[found.round] = {client.contrastive_optimizer.param_groups[0]["lr"] for client in found.clients}
    found = federation(method(name, schedule="cosine"))
    found.fit(4, progress=False, after_round=note)
    for round, rates in seen.items():
        (rate,) = rates
        assert rate == pytest.approx(found.method.contrastive_lr * SCHEDULES["cosine"](round, 4))
    with pytest.raises(ValueError, match="schedule: got 'linear', expected one of"):
        METHODS[name](schedule="linear")


def test_a_federation_that_goes_on_has_the_rate_it_would_have_had():
    whole, half = (federation(method("fedmuscle", schedule="sqrt")) for _ in range(2))
    whole.fit(4, progress=False)
    half.fit(2, progress=False)
    half.fit(4, progress=False)
    assert all(torch.equal(parameters(whole)[client], parameters(half)[client]) for client in CLIENTS)

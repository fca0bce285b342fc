"""Attacks on cases whose answer is known, noise that is accounted for as the library does, sums whose parts stay hidden."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from small_clients import CLIENTS, federation, make_client, method
from torch import nn

from fedmuscle_core import Client, Network, Training, classification, retrieval
from fedmuscle_core.client import local_phase, private_phase
from fedmuscle_core.data import Samples
from fedmuscle_core.exchange import tuple_payload
from fedmuscle_core.methods import METHODS, MFed
from fedmuscle_core.methods.sharing import Sharing
from fedmuscle_core.privacy import accounting, secure_sum
from fedmuscle_core.privacy.attacks import (
    confidence,
    detection,
    detection_interval,
    grams_of_sums,
    guessed_tasks,
    inverted,
    likelihood_ratios,
    margin,
    mix_correlations,
    psnr,
    ridge_confidence,
    rows_of_sums,
)
from fedmuscle_core.seeds import seeded

TRAINING = Training(local_lr=1e-2, local_batch_size=4, min_local_steps=5)


def test_detection_by_counting():
    scores, member = [0.9, 0.8, 0.7, 0.4, 0.3, 0.1], [1, 0, 1, 1, 0, 0]
    pairs = [(inside, outside) for inside in (0.9, 0.7, 0.4) for outside in (0.8, 0.3, 0.1)]
    found = detection(scores, member)
    assert found["auc"] == pytest.approx(sum(inside > outside for inside, outside in pairs) / 9)
    assert found["tpr at 10 % fpr"] == pytest.approx(1 / 3)                    # 0.9 alone is above the first other
    rng = np.random.default_rng(0)
    chance = detection(rng.normal(size=40_000), rng.random(40_000) < 0.5)
    assert chance["auc"] == pytest.approx(0.5, abs=0.01) and chance["tpr at 1 % fpr"] == pytest.approx(0.01, abs=0.004)
    assert set(detection([1, 2, 3, 4], [0, 0, 1, 1]).values()) == {1.0}


def test_likelihood_ratios_by_loops():
    rng = np.random.default_rng(0)
    member = np.array([[1, 0, 1], [0, 1, 1], [1, 1, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 1, 1]], dtype=bool)
    values = rng.normal(size=member.shape) + member
    found = likelihood_ratios(values, member)
    spread = {}
    for inside in (True, False):
        squares = [(values[k, i] - values[member[:, i] == inside, i].mean()) ** 2
                   for k in range(7) for i in range(3) if member[k, i] == inside]
        spread[inside] = math.sqrt(sum(squares) / (len(squares) - 3))
    for k in range(7):
        for i in range(3):
            logs = {}
            for inside in (True, False):
                others = [values[other, i] for other in range(7) if other != k and member[other, i] == inside]
                logs[inside] = stats.norm.logpdf(values[k, i], sum(others) / len(others), spread[inside])
            assert found[k, i] == pytest.approx(logs[True] - logs[False])


def shadows(count=24, size=16, epochs=60):
    """(confidences, member, of fresh samples) of small networks that learnt random labels by heart."""
    rng = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(2 * size, 20, generator=rng), torch.randint(3, (2 * size,), generator=rng)
    fresh, unseen = torch.randn(2 * size, 20, generator=rng), torch.randint(3, (2 * size,), generator=rng)
    values, member, others = [], [], []
    for _ in range(count):
        chosen = torch.rand(2 * size, generator=rng) < 0.5
        network = nn.Linear(20, 3)
        with torch.no_grad():
            network.weight.copy_(0.1 * torch.randn(3, 20, generator=rng))
        optimizer = torch.optim.Adam(network.parameters(), lr=0.05)
        for _ in range(epochs):
            optimizer.zero_grad()
            F.cross_entropy(network(inputs[chosen]), targets[chosen]).backward()
            optimizer.step()
        with torch.no_grad():
            values.append(confidence(network(inputs), targets).numpy())
            others.append(confidence(network(fresh), unseen).numpy())
        member.append(chosen.numpy())
    return np.array(values), np.array(member), np.array(others)


def test_the_attack_finds_what_was_learnt_by_heart_and_nothing_in_fresh_samples():
    values, member, fresh = shadows()
    found = detection(likelihood_ratios(values, member), member)
    assert found["auc"] > 0.9 and found["tpr at 1 % fpr"] > 0.3
    nothing = detection(likelihood_ratios(fresh, member), member)             # nobody trained on them
    assert nothing["auc"] == pytest.approx(0.5, abs=0.06) and nothing["tpr at 1 % fpr"] < 0.06


def test_the_interval_of_the_attack_is_over_federations():
    values, member, fresh = shadows()
    ratios, nothing = likelihood_ratios(values, member), likelihood_ratios(fresh, member)
    value, low, high = detection_interval(ratios, member, "auc")
    assert value == detection(ratios, member)["auc"] and 0.5 < low < value < high
    _, low, high = detection_interval(nothing, member, "auc")
    assert low < 0.5 < high and detection_interval(ratios, member, "auc") == detection_interval(ratios, member, "auc")


def test_confidence_is_the_log_odds_of_the_true_class():
    logits, targets = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 3, 1, 1, 2])
    share = logits.double().softmax(1)[torch.arange(5), targets]
    assert torch.allclose(confidence(logits, targets).double(), torch.log(share / (1 - share)), atol=1e-5)
    assert confidence(torch.tensor([[60.0, 0.0], [80.0, 0.0]]), torch.tensor([0, 0])).tolist() == [60.0, 80.0]
    labels = torch.tensor([[1.0, 0.0]])
    assert confidence(torch.tensor([[2.0, -3.0]]), labels).item() == 5.0


def test_the_margin_is_own_class_minus_others():
    kernel, classes = torch.rand(6, 6, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 1, 1, 1, 2])
    found = margin(kernel, classes)
    for i in range(5):
        own = [kernel[i, j].item() for j in range(6) if j != i and classes[j] == classes[i]]
        others = [kernel[i, j].item() for j in range(6) if classes[j] != classes[i]]
        assert found[i].item() == pytest.approx(sum(own) / len(own) - sum(others) / len(others))
    assert torch.isnan(found[5])


def test_the_ridge_head_is_fitted_anew_without_each_sample():
    rng = torch.Generator().manual_seed(0)
    rows = F.normalize(torch.randn(9, 4, generator=rng, dtype=torch.float64), dim=1)
    classes = torch.tensor([7, 2, 2, 5, 7, 5, 2, 7, 5])
    scores = torch.zeros(9, 3, dtype=torch.float64)
    for i in range(9):
        others = [j for j in range(9) if j != i]
        x, y = rows[others], (classes[others, None] == torch.tensor([2, 5, 7])).double()
        head = torch.linalg.inv(x.T @ x + 0.5 * torch.eye(4, dtype=torch.float64)) @ x.T @ y
        scores[i] = rows[i] @ head
    scores = (scores - scores.mean()) / scores.std()
    shares = scores.softmax(1)[torch.arange(9), torch.tensor([2, 0, 0, 1, 2, 1, 0, 2, 1])]
    assert torch.allclose(ridge_confidence(rows @ rows.T, classes, 0.5), torch.log(shares / (1 - shares)))
    alone = torch.tensor([0, 1, 2, 2, 2, 2, 2, 2, 2])                         # classes of one sample have no head without it
    assert torch.isfinite(ridge_confidence(rows @ rows.T, alone)).all()


def ratios_and_members(rng, told):
    """(ratios, member, classes) of 40 federations in which client 1 prefers other classes each time; told: how much the ratios
    tell of who is a member."""
    classes = np.repeat(np.arange(8), 6)
    member = rng.random((40, 48)) < rng.random((40, 8))[:, classes]
    return told * member + rng.normal(size=member.shape), member, classes


def test_a_class_mix_is_guessed_where_members_are_found_and_not_from_noise():
    rng = np.random.default_rng(0)
    assert mix_correlations(*ratios_and_members(rng, 3.0)).mean() > 0.8
    nothing = mix_correlations(*ratios_and_members(rng, 0.0))
    assert abs(nothing.mean()) < 3 / np.sqrt(7 * 40)                         # of 40 correlations over 8 classes
    ratios, member, classes = [[4.0, 2, 0, 6, 0, 0], [0.0] * 6], [[1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]], [0, 0, 1, 1, 2, 2]
    found = mix_correlations(ratios, member, classes, least=2)                # means 3, 3, 0 and shares 1, 0, 0
    assert found[0] == pytest.approx(stats.spearmanr([3, 3, 0], [1, 0, 0]).statistic) and np.isnan(found[1])
    assert mix_correlations(ratios, member, [0, 0, 1, 1, 1, 2], least=2)[0] == pytest.approx(1)        # class 2 is left out


def test_tasks_are_named_right_where_representations_lean_and_by_chance_where_they_are_noise():
    rng, tasks = np.random.default_rng(0), ("easy", "middling", "hard")
    base, right, guessed = {"easy": 90.0, "middling": 50.0, "hard": 5.0}, [], []
    for _ in range(300):
        noise = rng.normal(size=(3, 3))
        probes = {str(i): {task: base[task] + noise[i, j] for j, task in enumerate(tasks)} for i in range(3)}
        guessed += [task == tasks[int(i)] for i, task in guessed_tasks(probes).items()]
        for i, task in enumerate(tasks):
            probes[str(i)][task] += 6.0
        right += [task == tasks[int(i)] for i, task in guessed_tasks(probes).items()]
    assert np.mean(right) > 0.9 and np.mean(guessed) == pytest.approx(1 / 3, abs=0.05)
    assert guessed_tasks({"a": {"x": 50, "y": 20}, "b": {"y": 30, "x": 52}}) == {"a": "x", "b": "x"}     # whatever the order


def test_sums_over_tuples_tell_every_peer_s_inner_products():
    peers = F.normalize(torch.randn(3, 4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=2)
    sums, _ = tuple_payload(peers, 0.2, 0.15)
    assert torch.allclose(grams_of_sums(sums, 3, 4, 0.2), peers @ peers.mT)
    found = rows_of_sums(sums, 3, 4, 0.2)                                     # all but what no difference reaches
    missing = peers - found
    assert torch.allclose(missing, missing[:, :1].expand_as(missing)) and not torch.allclose(found, peers, atol=0.1)


def test_with_more_rows_than_dimensions_the_sums_tell_the_rows():
    peers = F.normalize(torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64), dim=2)
    sums, _ = tuple_payload(peers, 0.2, 0.15)
    assert torch.allclose(rows_of_sums(sums, 2, 8, 0.2), peers)


def test_one_sample_s_update_can_be_turned_back_into_the_sample():
    rng = torch.Generator().manual_seed(0)
    truth, target = torch.zeros(1, 1, 8, 8), torch.tensor([1])
    truth[..., 2:6, 3:5] = 0.9
    with seeded(0, "inversion"):
        encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh())
        network, task = Network(encoder, nn.Linear(16, 3)), classification(3)
    gradient = torch.autograd.grad(task.loss(network(truth), target), list(encoder.parameters()))
    update = -torch.cat([part.flatten() for part in gradient])
    found, cosine = inverted(network, task, update, target, truth.shape, steps=200)
    assert cosine > 0.99 and psnr(found, truth) > psnr(torch.rand(truth.shape, generator=rng), truth) + 10
    other = torch.randn(update.shape, generator=rng)                          # an update that says nothing of it
    assert psnr(inverted(network, task, other, target, truth.shape, steps=200)[0], truth) < psnr(found, truth) - 5
    assert psnr(truth, truth) == pytest.approx(120) and psnr(truth, 1 - truth) < 5


def client(noise=1e-12, clip=1.0, size=12, batch=4):
    made = make_client(1, plain=True)
    inputs, targets = made.data["train"].take(torch.arange(size))
    made = Client(1, made.network, None, made.task, train=(inputs, targets))
    return made.join(0, Training(local_lr=1e-2, local_batch_size=batch, min_local_steps=1, noise_multiplier=noise, clip=clip))


def gradients_of(one, round):
    """What the steps of a private local phase go along."""
    found, step = [], one.local_optimizer.step
    one.local_optimizer.step = lambda: found.append(one.local_optimizer.param_groups[0]["params"][0].grad.clone())
    private_phase(one, round)
    one.local_optimizer.step = step
    return found


def test_a_private_step_is_the_mean_of_clipped_gradients():
    """One step whose noise is nothing, against gradients one by one; the whole set is drawn."""
    one = client(clip=0.3, batch=12)
    inputs, targets = one.data["train"].take(torch.arange(12))
    parameters, total = one.learning, None
    for x, y in zip(inputs, targets, strict=True):
        parts = torch.autograd.grad(one.task.loss(one.network(x[None]), y[None]), parameters)
        gradient = torch.cat([part.flatten() for part in parts])
        clipped = gradient * min(1.0, 0.3 / gradient.norm().item())
        total = clipped if total is None else total + clipped
    (seen,) = gradients_of(one, 1)
    assert torch.allclose(seen, total / 12, atol=1e-6) and seen.norm() <= 0.3 + 1e-6


def test_noise_has_the_spread_it_is_accounted_for_with():
    one = client(noise=2.0, clip=1e-9, size=12, batch=3)
    grads = [grad for round in range(1, 6) for grad in gradients_of(one, round)]
    assert len(grads) == 20 and not torch.equal(grads[0], grads[1])
    assert torch.stack(grads).std().item() == pytest.approx(2.0 * 1e-9 / 3, rel=0.05)      # noise clip / (q n), q n = 3


def test_private_steps_draw_poisson_samples_and_repeat_by_seed():
    first, second = client(noise=0.5), client(noise=0.5)
    assert local_phase(first, 1) == local_phase(second, 1)
    assert all(torch.equal(x, y) for x, y in zip(first.network.parameters(), second.network.parameters(), strict=True))
    with pytest.raises(ValueError, match="noise_multiplier: got 0.5 with a method whose local objective has a further term"):
        local_phase(first, 2, lambda loss, step: loss)


def test_private_steps_draw_every_sample_by_itself_each_time(monkeypatch):
    """With probability q, whatever was drawn before: passes over a shuffled set would hardly draw one twice in a row."""
    one, steps, take = client(noise=0.5), [set()], Samples.take
    one.training = dataclasses.replace(one.training, min_local_steps=400)
    monkeypatch.setattr(Samples, "take", lambda samples, rows: steps[-1].add(int(rows)) or take(samples, rows))
    one.local_optimizer.step = lambda: steps.append(set())
    private_phase(one, 1)
    assert len(steps) == 403 and not steps.pop()                              # whole passes of three
    rate = 4 / 12
    assert sum(map(len, steps)) / 402 / 12 == pytest.approx(rate, abs=0.03) and len({*map(len, steps)}) > 5
    again = sum(len(first & second) for first, second in zip(steps, steps[1:], strict=False)) / 401 / 12
    assert again == pytest.approx(rate ** 2, abs=0.03)


def test_private_steps_that_mean_nothing_are_refused():
    frozen = client(noise=0.5)
    frozen.network.encoder().requires_grad_(False)
    with pytest.raises(ValueError, match="client 1: noise_multiplier: got 0.5 with parameters that the method has frozen"):
        local_phase(frozen, 1)
    paired = client(noise=0.5)
    paired.task = retrieval(3)
    with pytest.raises(ValueError, match="noise_multiplier: got 0.5 with R@1, whose loss is no mean over samples"):
        local_phase(paired, 1)
    counting = client(noise=0.5)
    counting.network.add_module("counts", torch.nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match="client 1: noise_multiplier: got 0.5 with 'counts', which keeps running statistics"):
        counting.join(0, counting.training)
    counting.network.counts.track_running_stats = False
    counting.join(0, counting.training)


@pytest.mark.parametrize(("name", "changes", "why"), [
    ("fedavg", {}, "measure_gradients is True"), ("fedprox", {"measure_gradients": False}, "the local objective has"),
    ("mfed", {"measure_gradients": False}, "lam is 1: the local objective has"), ("fedhenn", {}, "the local objective has"),
    ("mfed", {"measure_gradients": False, "share": "decoder"}, "share is 'decoder'"), ("cofed", {}, "the local objective has"),
    ("fedmuscle", {"peer_choice": "bandit"}, "peer_choice is 'bandit'"), ("muscle_mfed", {}, "lam is 1"),
    ("fedmuscle_traced", {}, "gradients of private samples"), ("centralised", {}, "private samples go"),
    ("creamfl", {"centre": 1}, "the local objective has")])
def test_methods_that_tell_more_than_noise_accounts_for_are_refused_before_any_training(name, changes, why):
    with pytest.raises(ValueError, match=f"noise_multiplier: got 1.0 with {METHODS[name].label}, but {why}"):
        federation(method(name, **changes), training=Training(noise_multiplier=1.0))


def test_the_others_may_train_privately():
    may = {name for name in METHODS if not method(name, **({"measure_gradients": False} if issubclass(METHODS[name], Sharing)
                                                           else {})).tells}
    assert {"local", "simclr", "pairwise", "fedmuscle", "gramian", "fedavg", "encoder_only", "matfl"} <= may
    assert not MFed(lam=0.0, measure_gradients=False).tells


def test_without_noise_a_local_phase_is_what_it_was():
    plain, named = (make_client(1, plain=True).join(0, TRAINING) for _ in range(2))
    named.training = Training(**vars(TRAINING) | {"noise_multiplier": 0.0, "clip": 3.0})
    assert local_phase(plain, 1) == local_phase(named, 1)


def test_noise_on_uploads_leaves_them_of_unit_length_and_the_client_s_own_as_they_are():
    kept = {}
    for noise in (0.0, 0.5):
        found = federation(method("fedmuscle", noise=noise))
        original = found.method.embed

        def note(one, message, noise=noise, original=original):
            reply = original(one, message)
            kept.setdefault(noise, {})[one.name] = (reply["representations"], one.kept["graph"].detach())
            return reply
        object.__setattr__(found.method, "embed", note)
        found.fit(1, progress=False)
    for client in CLIENTS:
        (plain, own), (noisy, own_too) = kept[0.0][client], kept[0.5][client]
        assert torch.equal(plain, own) and not torch.allclose(noisy, own_too)
        assert torch.allclose(noisy.norm(dim=1), torch.ones(len(noisy)))


def test_epsilon_is_the_library_s_and_below_the_textbook_bound():
    pytest.importorskip("opacus", reason="the extra [privacy] is not installed")
    from opacus.accountants.analysis import rdp

    orders = [1 + x / 10.0 for x in range(1, 100)] + list(range(12, 64))
    for noise, rate, steps in ((1.0, 0.1, 100), (2.0, 1.0, 20)):
        curve = rdp.compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=orders)
        wanted, _ = rdp.get_privacy_spent(orders=orders, rdp=curve, delta=1e-3)
        assert accounting.epsilon(noise, rate, steps) == pytest.approx(wanted)
    textbook = min(20 * alpha / (2 * 2.0 ** 2) + math.log(1e3) / (alpha - 1) for alpha in orders)
    assert accounting.epsilon(2.0, 1.0, 20) <= textbook
    assert accounting.epsilon_of_representations(8.0, 4, 20) == pytest.approx(accounting.epsilon(2.0, 1.0, 20))
    assert accounting.epsilon(1.0, 0.1, 100, 1e-5) > accounting.epsilon(1.0, 0.1, 100) > accounting.epsilon(2.0, 0.1, 100)


def test_our_private_gradient_is_the_library_s():
    pytest.importorskip("opacus", reason="the extra [privacy] is not installed")
    from opacus import GradSampleModule
    from opacus.optimizers import DPOptimizer

    one = client(clip=0.3, batch=12)
    inputs, targets = one.data["train"].take(torch.arange(12))
    theirs = make_client(1, plain=True).network
    wrapped = GradSampleModule(theirs)
    optimizer = DPOptimizer(torch.optim.SGD(theirs.parameters(), lr=1.0), noise_multiplier=0.0, max_grad_norm=0.3,
                            expected_batch_size=12)
    before = torch.cat([part.detach().flatten() for part in theirs.parameters()])
    one.task.loss(wrapped(inputs.clone().requires_grad_()), targets).backward()
    optimizer.step()
    moved = before - torch.cat([part.detach().flatten() for part in theirs.parameters()])
    (seen,) = gradients_of(one, 1)
    assert torch.allclose(seen, moved, atol=1e-5)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: accounting.epsilon(-1.0, 0.1, 10), "noise_multiplier: got -1.0"),
    (lambda: accounting.epsilon(1.0, 1.5, 10), "sample_rate: got 1.5, expected at most 1"),
    (lambda: accounting.epsilon(1.0, 0.1, 0), "steps: got 0"), (lambda: accounting.epsilon(1.0, 0.1, 9, 1.0), "delta: got 1.0"),
    (lambda: Training(noise_multiplier=-1.0), "noise_multiplier: got -1.0"), (lambda: Training(clip=0.0), "clip: got 0.0"),
    (lambda: method("fedmuscle", noise=-0.1), "noise: got -0.1"),
    (lambda: detection([1.0, 2.0], [1, 1]), "scores, member: got .* with 2 members, expected a number for each sample"),
    (lambda: ridge_confidence(torch.eye(3), torch.tensor([1, 1, 1])), r"kernel, classes: got \(3, 3\) and 1 classes of 3"),
    (lambda: ridge_confidence(torch.ones(3, 2), torch.arange(3)), r"kernel, classes: got \(3, 2\) and 3 classes"),
    (lambda: ridge_confidence(torch.eye(2), torch.arange(2), 0.0), "weight: got 0.0"),
    (lambda: mix_correlations(np.ones((2, 4)), np.ones((2, 4)), [0, 0, 0, 1]), "classes: got .* with 1 of 3 candidates or"),
    (lambda: guessed_tasks({"1": {"x": 1.0}}), "probes: got .*, expected two clients or more with the same tasks"),
    (lambda: guessed_tasks({"1": {"x": 1.0}, "2": {"y": 1.0}}), "probes: got .*, expected two clients or more"),
    (lambda: likelihood_ratios(np.ones((4, 2)), np.ones((4, 2))), "member: got .* was in 4, or out of 0 federations"),
])
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_noise_epsilon_is_infinite_and_without_the_library_the_extra_is_named(monkeypatch):
    assert accounting.epsilon(0.0, 0.1, 10) == math.inf
    monkeypatch.setitem(__import__("sys").modules, "opacus.accountants", None)
    with pytest.raises(ValueError, match=r"opacus: not installed; expected the extra \[privacy\]"):
        accounting.epsilon(1.0, 0.1, 10)


def test_masks_cancel_in_the_sum_and_hide_each_part():
    rng = torch.Generator().manual_seed(0)
    values = {name: 10 * torch.randn(500, generator=rng) for name in ("anna", "ben", "cleo")}
    clients = sorted(values)

    def seed_of(one, other):
        return hash((clients.index(one), clients.index(other))) % 2 ** 32
    uploads = {name: secure_sum.masked(tensor, name, clients, seed_of) for name, tensor in values.items()}
    assert torch.allclose(secure_sum.unmasked_sum(list(uploads.values())), sum(values.values()).double(), atol=3e-7)
    for upload in uploads.values():                                           # uniform on the whole range
        assert stats.kstest(upload.astype(float) / 2 ** 64, "uniform").pvalue > 1e-3
    part = secure_sum.unmasked_sum([uploads["anna"], uploads["ben"]])
    assert (part - (values["anna"] + values["ben"]).double()).abs().median() > 1e6         # without cleo it says nothing
    with pytest.raises(ValueError, match="values: got .* with 3 clients, expected a sum below"):
        secure_sum.masked(torch.tensor([1e12]), "anna", clients, seed_of)
    with pytest.raises(ValueError, match=r"client: got 'dora', expected one of \['anna', 'ben', 'cleo'\]"):
        secure_sum.masked(torch.ones(2), "dora", clients, seed_of)
    with pytest.raises(ValueError, match="values: got nan"):
        secure_sum.masked(torch.tensor([float("nan")]), "anna", clients, seed_of)

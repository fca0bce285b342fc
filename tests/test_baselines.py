"""The baselines: every formula against a literal twin and against a case with a known answer."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from literal import cka_by_definition, nt_xent_loops, votes_by_hand

from fedmuscle_core import federation, server
from fedmuscle_core.client import LocalStep, embed, public_batch, step
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.losses import cka_loss, nt_xent
from fedmuscle_core.methods import METHODS, cofed, contrastive, fedhenn, gramian, simclr
from fedmuscle_core.seeds import generator


def random_rows(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed, "test"), dtype=torch.float64)


@pytest.mark.parametrize(("size", "dim"), [(1, 3), (2, 1), (3, 5), (8, 4)])
@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0])
def test_nt_xent_is_its_definition_with_gradients_to_both_views(size, dim, tau):
    first, second = random_rows(size, dim, seed=1).requires_grad_(), random_rows(size, dim, seed=2).requires_grad_()
    ours = torch.autograd.grad(loss := nt_xent(first, second, tau=tau), [first, second])
    theirs = torch.autograd.grad(twin := nt_xent_loops(first, second, tau), [first, second])
    assert loss.item() == pytest.approx(twin.item(), abs=1e-10)
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(ours, theirs, strict=True))


def test_nt_xent_where_the_answer_is_known():
    same = torch.ones(4, 3, dtype=torch.float64)
    assert nt_xent(same, same).item() == pytest.approx(math.log(7))           # nothing to tell 2B - 1 = 7 others apart by
    apart = torch.eye(2, dtype=torch.float64)
    assert nt_xent(apart, apart, tau=0.5).item() == pytest.approx(math.log(math.exp(2) + 2) - 2)


@pytest.mark.parametrize(("size", "dim"), [(2, 1), (3, 5), (8, 4), (16, 2)])
def test_cka_loss_is_one_minus_cka(size, dim):
    features, kernel = random_rows(size, dim, seed=3).requires_grad_(), random_rows(size, size, seed=4)
    kernel = kernel @ kernel.T
    loss, twin = cka_loss(features, kernel), 1 - cka_by_definition(features, kernel)
    assert loss.item() == pytest.approx(twin.item(), abs=1e-10)
    ours, theirs = torch.autograd.grad(loss, features)[0], torch.autograd.grad(twin, features)[0]
    assert torch.allclose(ours, theirs, atol=1e-10)


def test_cka_loss_where_the_answer_is_known():
    features = random_rows(6, 4)
    rotation = torch.linalg.qr(random_rows(4, 4, seed=1))[0]
    turned = features @ rotation * 3 + 2                                      # CKA sees neither rotation, scale nor shift
    assert cka_loss(features, turned @ turned.T).item() == pytest.approx(0, abs=1e-12)
    first, second = torch.tensor([[1.0], [-1], [1], [-1]]), torch.tensor([[1.0], [1], [-1], [-1]])
    assert cka_loss(first, second @ second.T).item() == pytest.approx(1)


def test_minimising_the_cka_loss_raises_cka():
    features = random_rows(16, 4, seed=5).requires_grad_()
    target = random_rows(16, 6, seed=6)
    kernel, optimizer = target @ target.T, torch.optim.SGD([features], lr=1.0)
    before = cka_by_definition(features.detach(), kernel)
    for _ in range(50):
        optimizer.zero_grad()
        cka_loss(features, kernel).backward()
        optimizer.step()
    assert cka_by_definition(features.detach(), kernel) > before + 0.2


@pytest.mark.parametrize(("arguments", "message"), [
    ((torch.ones(3, 2), torch.ones(2, 2)), r"kernel: got shape \(2, 2\), expected \(3, 3\)"),
    ((torch.ones(3, 2), torch.full((3, 3), torch.nan)), "kernel: got NaN or infinity"),
    ((torch.ones(3), torch.ones(3, 3)), r"features: got shape \(3,\)"),
])
def test_cka_loss_refuses_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        cka_loss(*arguments)


def test_nt_xent_refuses_bad_input():
    for arguments, message in [((torch.ones(3, 2), torch.ones(2, 2)), r"second: got shape \(2, 2\), expected \(3, 2\)"),
                               ((torch.full((3, 2), torch.inf), torch.ones(3, 2)), "first: got NaN or infinity")]:
        with pytest.raises(ValueError, match=message):
            nt_xent(*arguments)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("voters", [1, 2, 3, 5])
def test_votes_are_counted_as_by_hand(voters, share):
    votes = torch.randint(-1, 4, (voters, 200), generator=generator(voters))
    assert server.count_votes(list(votes), share).tolist() == votes_by_hand(votes.tolist(), share)


def test_votes_where_the_answer_is_known():
    votes = [torch.tensor(cast) for cast in ([2, 2, -1, 1, -1], [2, 1, -1, 0, 3], [0, -1, -1, 0, -1])]
    assert server.count_votes(votes, 0.3).tolist() == [2, -1, -1, 0, 3]      # majority, tie, nobody, majority, one of three
    assert server.count_votes(votes, 0.5).tolist() == [2, -1, -1, 0, -1]
    assert server.count_votes([torch.full((4,), -1)] * 2, 0.3).tolist() == [-1] * 4


def test_a_client_votes_only_where_it_is_sure():
    logits = torch.log(torch.tensor([[0.6, 0.3, 0.1], [0.45, 0.4, 0.15], [0.1, 0.1, 0.8]]))
    model = SimpleNamespace(eval=lambda: None, __call__=None)
    client = SimpleNamespace(model=type("Table", (), {"eval": model.eval, "__call__": lambda self, rows: logits[rows]})(),
                             public=torch.arange(3), task=SimpleNamespace(multilabel=False), swapped=False, device="cpu")
    client.model.eval = model.eval
    assert cofed.client_votes(client, 0.25).tolist() == [0, -1, 2]
    client.task.multilabel = True
    logits = torch.tensor([[4.0, -4.0, 0.1]]).repeat(3, 1)                    # yes, no, about one half
    assert cofed.client_votes(client, 0.3).tolist() == [[1, 0, -1]] * 3


def test_pseudo_labelled_samples_are_spread_over_the_steps_each_once(tiny, monkeypatch):
    built = federation.build(tiny(method="cofed"))
    client, seen = built.clients[2], []
    monkeypatch.setattr(cofed, "pseudo_loss", lambda client, inputs, labels: seen.extend(labels.tolist()) or torch.tensor(3.0))
    labels = torch.where(torch.arange(20) % 4 == 0, -1, torch.arange(20))
    extend = cofed.pseudo_labelled(client, labels, round=2)
    losses = [extend(torch.tensor(1.0), LocalStep(number, 6, None, range(8))).item() for number in range(6)]
    assert sorted(seen) == [label for label in labels.tolist() if label >= 0]
    assert losses == pytest.approx([(8 + 3 * size) / (8 + size) for size in (3, 3, 3, 2, 2, 2)])


def test_multi_label_pseudo_labels_count_only_where_there_was_a_vote(tiny):
    client = federation.build(tiny(method="cofed")).clients[0]
    inputs, labels = client.public[:2], torch.full((2, 10), -1)
    labels[0, 3], labels[1, 7] = 1, 0
    logits = client.model(inputs)
    by_hand = (-F.logsigmoid(logits[0, 3]) - F.logsigmoid(-logits[1, 7])) / 2
    assert cofed.pseudo_loss(client, inputs, labels).item() == pytest.approx(by_hand.item(), rel=1e-5)


def test_cofed_trains_alone_in_the_first_round_and_counts_the_bytes_of_its_votes(tiny):
    history, _ = federation.train(federation.build(tiny(method="cofed")), progress=False)
    local, _ = federation.train(federation.build(tiny(method="local")), progress=False)
    early = [table[table["round"] <= 1].drop(columns="method").reset_index(drop=True) for table in (history, local)]
    assert early[0].equals(early[1])
    sent = history[history["round"] == 2].groupby("task")["bytes"].first()
    assert sent.to_dict() == {"mlc": 2 * 2 * 20 * 10, "ic100": 2 * 2 * 20, "ic10": 2 * 2 * 20}    # int16, up and down


def test_fedhenn_adds_its_term_to_as_many_steps_as_there_are_public_batches(tiny):
    built = federation.build(tiny(method="fedhenn", eta=2.0))
    client, settings = built.clients[0], built.settings
    batches = contrastive.full_batches(20, 8, generator(0))
    means = [torch.eye(8)] * 2
    for num_steps, carrying in [(7, 2), (2, 2), (1, 1)]:
        terms = []
        extend = fedhenn.kernel_term(client, settings, batches, means, 1, terms)
        losses = [extend(torch.tensor(1.0), LocalStep(number, num_steps, None, None)).item() for number in range(num_steps)]
        assert sum(loss > 1 for loss in losses) == len(terms) == carrying
        assert sorted(losses)[-1] == pytest.approx(1 + 2 * max(terms))


def test_fedhenn_pulls_the_clients_kernels_together(tiny):
    """Against a run whose term has no weight: CKA between clients on held-out scenes is higher."""
    found = []
    for eta in (1e-6, 10.0):
        _, alignment = federation.train(federation.build(tiny(method="fedhenn", eta=eta, public_size=128, rounds=3)), False)
        matrix = torch.tensor(alignment["after"]["cka"])
        found.append(matrix[~torch.eye(3, dtype=bool)].mean().item())
    assert found[1] > found[0] + 0.05


def test_fedhenn_exchanges_kernels_only(tiny):
    history, _ = federation.train(federation.build(tiny(method="fedhenn", rounds=1)), progress=False)
    assert set(history[history["round"] == 1]["bytes"]) == {2 * (20 // 8) * 8 * 8 * 4}


def test_the_kernel_mean_is_the_mean():
    kernels = [random_rows(3, 3, seed=seed) for seed in range(4)]
    assert torch.equal(server.kernel_mean(kernels), sum(kernels) / 4)


def test_simclr_uses_the_same_public_batches_exchanges_nothing_and_makes_views_find_each_other(tiny):
    settings = tiny(method="simclr", public_size=128, contrastive_epochs=2, batch_size=16)
    built = federation.build(settings)
    client = built.clients[0]
    first = simclr.simclr_phase(client, settings, 1)
    head = client.model.head.weight.clone()
    for round in (2, 3):
        last = simclr.simclr_phase(client, settings, round)
    assert last < first - 0.1 and torch.equal(head, client.model.head.weight)
    history, _ = federation.train(federation.build(tiny(method="simclr")), progress=False)
    assert set(history["bytes"]) == {0}


def test_every_aligning_method_draws_the_same_public_batches(tiny, monkeypatch):
    seen = {}
    for method in ("simclr", "fedhenn", "gramian", "pairwise", "fedmuscle"):
        rows_of = seen.setdefault(method, [])

        def noted(client, rows, *rest, rows_of=rows_of):
            if client.index == 1 and rows.tolist() not in rows_of:
                rows_of.append(rows.tolist())
            return public_batch(client, rows, *rest)

        for module in (simclr, fedhenn, contrastive):
            monkeypatch.setattr(module, "public_batch", noted)
        built = federation.build(tiny(method=method, public_size=40))
        METHODS[method].play_round(built, 1)
    assert len(seen["fedmuscle"]) == 5
    assert all(rows == seen["fedmuscle"] for rows in seen.values())


def test_gramian_makes_matching_vectors_find_each_other(tiny):
    """Mean loss over the clients, epoch by epoch of contrastive phases: the last below the first and below not knowing."""
    built = federation.build(tiny(method="gramian", public_size=128, contrastive_epochs=2))
    losses = [sum(gramian.play_round(built, round)["contrastive_loss"].values()) / 3 for round in range(1, 6)]
    assert losses[-1] < losses[0] - 0.05 and losses[-1] < math.log(8)


def test_with_augmentation_all_clients_see_the_same_view(tiny):
    built = federation.build(tiny(augment=True))
    rows = torch.arange(4)
    views = [public_batch(client, rows, True, 1, 0) for client in built.clients]
    assert all(torch.equal(view, views[0]) for view in views)
    assert not torch.equal(views[0], public_batch(built.clients[0], rows, False, 1, 0))
    assert not torch.equal(views[0], public_batch(built.clients[0], rows, True, 1, 1))


@pytest.mark.parametrize("method", ["fedhenn", "gramian", "pairwise", "fedmuscle"])
def test_augmentation_is_an_option_of_every_aligning_method(tiny, method):
    runs = [federation.train(federation.build(tiny(method=method, augment=augment, rounds=1)), False)[0]["value"]
            for augment in (False, True)]
    assert not runs[0].equals(runs[1])


def test_pair_temperatures():
    plain, raised = Settings(), Settings(tau_cross=0.4)
    assert server.pair_temperatures(plain, ["image", "text"]) == (0.2, 0.15)
    assert server.pair_temperatures(raised, ["image", "image"]) == (0.2, 0.15)
    tau, tau_prev = server.pair_temperatures(raised, ["text", "image", "image", "text"])
    assert torch.allclose(tau[0], torch.tensor([0.2, 0.4, 0.4, 0.2], dtype=torch.float64))
    assert torch.allclose(tau_prev, torch.tensor([[0.15, 0.15, 0.3], [0.15, 0.15, 0.3], [0.3, 0.3, 0.15]], dtype=torch.float64))


def test_steps_on_public_batches_move_the_representation(tiny):
    client = federation.build(tiny()).clients[0]
    before = embed(client, client.public[:4], 0).detach()
    step(client.contrastive_optimizer, nt_xent(embed(client, client.public[:4], 0), embed(client, client.public[4:8], 0)))
    assert not torch.equal(before, embed(client, client.public[:4], 0))

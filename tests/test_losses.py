import doctest
import itertools
import math
import re
import subprocess
import sys

import pytest
import torch
from literal import cka_by_definition, gramian_loops, info_nce_loops, muscle_loops, muscle_tuples, nt_xent_loops, per_pair

import fedmuscle_core.losses
from fedmuscle_core import gramian_loss, info_nce, mi_lower_bound, muscle_loss, nt_xent, tuple_sum
from fedmuscle_core.losses import cka_loss
from fedmuscle_core.seeds import generator


def draw(num_peers, batch_size, dim=6, seed=0, dtype=torch.float64):
    rng = torch.Generator().manual_seed(1000 * seed + 10 * num_peers + batch_size)
    anchor = torch.randn(batch_size, dim, generator=rng, dtype=dtype).requires_grad_()
    return anchor, torch.randn(num_peers, batch_size, dim, generator=rng, dtype=dtype)


def assert_same_with_gradient(ours, literal, anchor, tolerance=1e-10):
    weights = torch.linspace(0.5, 1.5, len(ours), dtype=ours.dtype)
    assert (ours - literal).abs().max() < tolerance
    (got,) = torch.autograd.grad((weights * ours).sum(), anchor)
    (wanted,) = torch.autograd.grad((weights * literal).sum(), anchor)
    assert (got - wanted).abs().max() < tolerance


@pytest.mark.parametrize("num_peers", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [1, 2, 5, 8])
@pytest.mark.parametrize("temperatures", ["numbers", "per pair"])
@pytest.mark.parametrize("weighting", ["learned", "uniform"])
def test_muscle_loss_and_gradient_equal_the_literal_formulation(num_peers, batch_size, temperatures, weighting):
    anchor, peers = draw(num_peers, batch_size)
    tau, tau_prev = (0.2, 0.15) if temperatures == "numbers" else per_pair(num_peers, seed=batch_size)
    ours = muscle_loss(anchor, peers, tau=tau, tau_prev=tau_prev, weighting=weighting, reduction="none")
    literal = muscle_tuples(anchor, peers, tau, tau_prev, learned=weighting == "learned")
    assert_same_with_gradient(ours, literal, anchor)


@pytest.mark.parametrize(("num_peers", "batch_size"), [(1, 4), (2, 3), (3, 3), (4, 2)])
def test_muscle_loss_equals_plain_loops(num_peers, batch_size):
    anchor, peers = draw(num_peers, batch_size)
    tau, tau_prev = per_pair(num_peers)
    ours = muscle_loss(anchor, peers, tau=tau, tau_prev=tau_prev, reduction="none")
    assert_same_with_gradient(ours, muscle_loops(anchor, peers, tau, tau_prev), anchor)


@pytest.mark.parametrize("num_peers", [1, 2, 3, 4, 5])
def test_uniform_weighting_or_equal_temperatures_give_the_sum_of_pairwise_losses(num_peers):
    anchor, peers = draw(num_peers, 4)
    pairwise = sum(info_nce(anchor, peer, reduction="none") for peer in peers)
    assert_same_with_gradient(muscle_loss(anchor, peers, weighting="uniform", reduction="none"), pairwise, anchor)
    pairwise = sum(info_nce(anchor, peer, reduction="none") for peer in peers)
    assert_same_with_gradient(muscle_loss(anchor, peers, tau_prev=0.2, reduction="none"), pairwise, anchor)


def test_one_peer_gives_info_nce():
    anchor, peers = draw(1, 7)
    assert_same_with_gradient(muscle_loss(anchor, peers, reduction="none"),
                              info_nce_loops(anchor, peers[0], 0.2), anchor)


@pytest.mark.parametrize("num_peers", [2, 3])
def test_decomposition_into_pairwise_and_one_correction(num_peers):
    """L_i = sum_m InfoNCE_m + log E_{j ~ q_i}[alpha_j] - log alpha_(i, .., i)."""
    batch_size, gamma = 4, 1 / 0.15 - 1 / 0.2
    anchor, peers = (torch.nn.functional.normalize(x, dim=-1).detach() for x in draw(num_peers, batch_size))
    q = torch.softmax(anchor @ peers.mT / 0.2, dim=2)                               # (M, B, B)

    def log_alpha(tuple_):
        return -gamma * sum(float(peers[m][tuple_[m]] @ peers[k][tuple_[k]])
                            for m, k in itertools.combinations(range(num_peers), 2))

    for i in range(batch_size):
        mean_alpha = sum(math.prod(float(q[m, i, j]) for m, j in enumerate(tuple_)) * math.exp(log_alpha(tuple_))
                         for tuple_ in itertools.product(range(batch_size), repeat=num_peers))
        pairwise = sum(info_nce(anchor, peer, reduction="none")[i].item() for peer in peers)
        expected = pairwise + math.log(mean_alpha) - log_alpha((i,) * num_peers)
        assert muscle_loss(anchor, peers, reduction="none")[i].item() == pytest.approx(expected, abs=1e-12)


def test_order_of_peers_and_of_samples_does_not_matter():
    anchor, peers = draw(3, 5)
    tau, tau_prev = per_pair(3)
    loss = muscle_loss(anchor, peers, tau=tau, tau_prev=tau_prev, reduction="none")
    order, rows = [2, 0, 1], torch.tensor([3, 1, 4, 0, 2])
    with_anchor = [0, 3, 1, 2]
    moved = muscle_loss(anchor[rows], peers[order][:, rows], tau=tau[with_anchor][:, with_anchor],
                        tau_prev=tau_prev[order][:, order], reduction="none")
    assert torch.allclose(moved, loss[rows], atol=1e-12)


def test_gradients_flow_to_the_anchor_only():
    anchor, peers = draw(3, 4)
    peers.requires_grad_()
    muscle_loss(anchor, peers).backward()
    assert peers.grad is None
    assert anchor.grad.abs().max() > 1e-4


def test_a_sequence_of_peers_is_the_stacked_tensor_and_float32_is_near_float64():
    anchor, peers = draw(3, 8)
    assert muscle_loss(anchor, list(peers)) == muscle_loss(anchor, peers)
    assert muscle_loss(anchor.float(), peers.float()).item() == pytest.approx(muscle_loss(anchor, peers).item(), rel=1e-5)
    assert muscle_loss(anchor.bfloat16(), peers.bfloat16()).dtype == torch.float32


def test_normalize_scales_rows_to_unit_length():
    anchor, peers = draw(2, 4)
    scaled = muscle_loss(3 * anchor, 0.1 * peers)
    assert scaled.item() == pytest.approx(muscle_loss(anchor, peers).item(), abs=1e-12)
    unit = [torch.nn.functional.normalize(x, dim=-1) for x in (anchor, *peers)]
    assert muscle_loss(unit[0], unit[1:], normalize=False).item() == pytest.approx(scaled.item(), abs=1e-12)


@pytest.mark.parametrize("num_peers", [2, 3, 4])
def test_sampled_is_within_one_percent_of_exact_at_4096_samples(num_peers):
    anchor, peers = draw(num_peers, 16, dim=32)
    exact = muscle_loss(anchor, peers)
    sampled = muscle_loss(anchor, peers, estimator="sampled", num_samples=4096, generator=torch.Generator().manual_seed(0))
    assert abs(sampled.item() / exact.item() - 1) < 0.01


def test_sampled_partition_is_unbiased():
    anchor, peers = draw(3, 5)
    rng = torch.Generator().manual_seed(1)
    positive = muscle_loss(anchor, peers, reduction="none")
    ratios = torch.stack([(muscle_loss(anchor, peers, estimator="sampled", num_samples=8, generator=rng,
                                       reduction="none") - positive).exp().detach() for _ in range(3000)])
    error = ratios.mean(0) - 1
    assert (error.abs() < 4 * ratios.std(0) / 3000 ** 0.5).all()
    assert ratios.std(0).max() < 2


def test_sampled_gradient_approaches_the_exact_one():
    anchor, peers = draw(3, 6)
    (exact,) = torch.autograd.grad(muscle_loss(anchor, peers), anchor)
    sampled = muscle_loss(anchor, peers, estimator="sampled", num_samples=200_000,
                          generator=torch.Generator().manual_seed(0))
    (estimate,) = torch.autograd.grad(sampled, anchor)
    assert (estimate - exact).norm() / exact.norm() < 0.01


def test_sampled_is_exact_with_its_gradient_where_alpha_is_constant():
    anchor, peers = draw(3, 6)
    exact = muscle_loss(anchor, peers, tau_prev=0.2, reduction="none")
    sampled = muscle_loss(anchor, peers, tau_prev=0.2, estimator="sampled", num_samples=4, reduction="none")
    assert_same_with_gradient(sampled, exact, anchor, tolerance=1e-12)


def loss_of_alike(num_peers, batch_size, tau=0.2, tau_prev=0.15):
    """The loss, for any M, where all models have the same orthonormal rows: only how often a tuple has each sample counts.

    Sum over tuples = M! [x^M] f(x) g(x)^(B-1),  f = sum_n exp(n / tau - gamma n (n - 1) / 2) x^n / n!,  g without n / tau.
    """
    gamma, powers = 1 / tau_prev - 1 / tau, range(num_peers + 1)
    total, other = ([math.exp(own * n - gamma * n * (n - 1) / 2) / math.factorial(n) for n in powers] for own in (1 / tau, 0))
    for _ in range(batch_size - 1):
        total = [sum(total[k] * other[n - k] for k in range(n + 1)) for n in powers]
    positive = num_peers / tau - gamma * num_peers * (num_peers - 1) / 2
    return math.log(math.factorial(num_peers) * total[-1]) - positive


@pytest.mark.parametrize(("num_peers", "batch_size"), [(1, 6), (2, 2), (3, 7), (5, 5)])
@pytest.mark.parametrize(("tau", "tau_prev"), [(0.2, 0.15), (0.5, 0.1)])
def test_exact_where_all_models_have_the_same_orthonormal_rows(num_peers, batch_size, tau, tau_prev):
    z = torch.eye(batch_size, dtype=torch.float64)
    assert muscle_loss(z, [z] * num_peers, tau=tau, tau_prev=tau_prev).item() == pytest.approx(
        loss_of_alike(num_peers, batch_size, tau, tau_prev), rel=1e-10)


MOST_OFF = [(float(tau), float(tau_prev), int(batch_size), num_peers, float(percent)) for tau, tau_prev, batch_size, *percents
            in re.findall(r"^ +([\d.]+) +([\d.]+) +(\d+)" + r" +([\d.]+) %" * 4, tuple_sum.sampled.__doc__, re.MULTILINE)
            for num_peers, percent in zip((3, 5, 7, 9), percents, strict=True)]


@pytest.mark.parametrize(("tau", "tau_prev", "batch_size", "num_peers", "percent"), MOST_OFF)
def test_sampled_is_off_on_aligned_peers_by_what_its_docstring_says(tau, tau_prev, batch_size, num_peers, percent):
    z, exact = torch.eye(batch_size, dtype=torch.float64), loss_of_alike(num_peers, batch_size, tau, tau_prev)
    errors = [muscle_loss(z, [z] * num_peers, tau=tau, tau_prev=tau_prev, estimator="sampled",
                          generator=torch.Generator().manual_seed(seed)).item() / exact - 1 for seed in range(20)]
    assert 100 * max(map(abs, errors)) == pytest.approx(percent, abs=0.06)
    assert len(MOST_OFF) == 16


@pytest.mark.parametrize(("num_peers", "noise", "share"), [(5, 0.1, 0.02), (7, 0.1, 0.02), (7, 0.5, 0.02)])
def test_sampled_is_near_exact_on_peers_near_the_anchor(num_peers, noise, share):
    anchor, steps = draw(num_peers, 5, dim=64)
    peers = anchor.detach() + noise * steps
    exact = muscle_loss(anchor, peers).item()
    sampled = muscle_loss(anchor, peers, estimator="sampled", generator=torch.Generator().manual_seed(0)).item()
    assert abs(sampled / exact - 1) < share


@pytest.mark.parametrize(("num_peers", "length", "tau_prev"), [(40, 1, 0.15), (40, 1, 0.1), (2, 1, 0.001), (2, 1000, 0.15)])
def test_sampled_refuses_what_exact_refuses(num_peers, length, tau_prev):
    """Also where the ranges of many pairs are small: of forty peers at 0.15 their sum is 1300, their root of squares 47."""
    z = length * torch.eye(6)
    said = []
    for estimator in ("exact", "sampled"):
        with pytest.raises(ValueError, match=r"tau_prev: log alpha spans \d+, expected at most 700: bring tau_prev") as refusal:
            muscle_loss(z, [z] * num_peers, tau_prev=tau_prev, estimator=estimator, normalize=False)
        said.append(str(refusal.value))
    assert said[0] == said[1]


def test_sampled_takes_every_range_that_exact_takes():
    z = torch.eye(6)
    exact, sampled = (muscle_loss(z, [z, z], tau_prev=0.015, estimator=name).item() for name in ("exact", "sampled"))
    assert sampled == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize(("num_peers", "off"), [(3, 0.1), (4, 0.12)])
def test_the_sampled_gradient_is_off_by_what_its_docstring_says(num_peers, off):
    """Rows in 64 dimensions a tenth of noise apart, B = 32, default temperatures and number of tuples."""
    anchor, steps = draw(num_peers, 32, dim=64)
    peers = anchor.detach() + 0.1 * steps
    exact, sampled = (torch.autograd.grad(muscle_loss(anchor, peers, estimator=name, generator=generator), anchor)[0]
                      for name, generator in (("exact", None), ("sampled", torch.Generator().manual_seed(0))))
    assert 0.05 < (sampled - exact).norm() / exact.norm() < off


def test_the_mean_field_is_a_fixed_point_where_peers_do_not_interact():
    logits = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(tuple_sum.mean_field(logits, torch.zeros(3, 3, 4, 4)), logits.softmax(2))
    table = torch.zeros(2, 2, 4, 4)
    table[0, 1] = 50 * torch.eye(4)                                           # both peers at one sample, whichever
    q = tuple_sum.mean_field(torch.eye(4).repeat(2, 1, 1), table)
    assert torch.allclose(q.sum(2), torch.ones(2, 4)) and (q.diagonal(dim1=1, dim2=2) > 0.8).all()


@pytest.mark.parametrize("num_peers", [1, 2, 3])
def test_gramian_loss_equals_plain_loops(num_peers):
    anchor, peers = draw(num_peers, 5)
    ours = gramian_loss(anchor, peers, tau=0.1, reduction="none")
    assert_same_with_gradient(ours, gramian_loops(anchor, peers, 0.1, 1e-6), anchor, tolerance=1e-7)
    assert (ours - gramian_loops(anchor, peers, 0.1, 1e-6)).abs().max() < 1e-10


def test_gramian_known_answer_and_finite_gradient_at_volume_zero():
    """Orthonormal samples, one equal peer: V is 0 on the diagonal and 1 off it (eps under the root aside)."""
    z = torch.eye(4, dtype=torch.float64).requires_grad_()
    loss = gramian_loss(z, [z.detach()], tau=0.5, eps=1e-14)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(1 + 3 * math.exp(-1 / 0.5)), abs=1e-6)
    assert torch.isfinite(z.grad).all()


def test_mi_lower_bound():
    assert mi_lower_bound(0.5, 32, 3) == pytest.approx(3 * math.log(32) - 0.5)
    assert mi_lower_bound(torch.tensor([1.0, 2.0]), 8, 1) == pytest.approx(math.log(8) - 1.5)
    with pytest.raises(ValueError, match="loss: got mean nan"):
        mi_lower_bound(float("nan"), 32, 3)


BAD = [
    ({"anchor": torch.ones(3, 4, dtype=torch.long)}, "anchor: got dtype torch.int64"),
    ({"anchor": [[1.0]]}, "anchor: got list"),
    ({"anchor": torch.ones(4)}, r"anchor: got shape \(4,\)"),
    ({"anchor": torch.ones(0, 4)}, r"anchor: got shape \(0, 4\)"),
    ({"anchor": torch.full((3, 4), float("nan"))}, "anchor: got NaN or infinity in 12 of 12"),
    ({"peers": torch.ones(2, 3, 5)}, r"peers\[0\]: got shape \(3, 5\), expected \(3, 4\)"),
    ({"peers": torch.ones(2, 2, 4)}, r"peers\[0\]: got shape \(2, 4\)"),
    ({"peers": [torch.ones(3, 4), torch.full((3, 4), float("inf"))]}, "peers: got NaN or infinity in 12 of 24"),
    ({"peers": torch.ones(3, 4)}, r"peers: got shape \(3, 4\)"),
    ({"peers": []}, "peers: got M = 0"),
    ({"peers": torch.ones(0, 3, 4)}, "peers: got M = 0"),
    ({"peers": torch.ones(2, 3, 4, dtype=torch.int32)}, r"peers\[0\]: got dtype torch.int32"),
    ({"peers": "ab"}, "peers: got str"),
    ({"tau": 0.0}, "tau: got 0.0"),
    ({"tau": -1}, "tau: got -1"),
    ({"tau": float("nan")}, "tau: got nan"),
    ({"tau": "warm"}, "tau: got 'warm'"),
    ({"tau": 1e-45}, "tau: got 1e-45, expected finite temperatures above 0"),
    ({"tau": float("inf")}, "tau: got inf, expected finite temperatures"),
    ({"tau_prev": 1e-45}, "tau_prev: got 1e-45, expected finite temperatures above 0"),
    ({"tau_prev": float("inf")}, "tau_prev: got inf, expected finite temperatures"),
    ({"tau_prev": torch.tensor([[0, 1e-45], [1e-45, 0]])}, "tau_prev: got tensor"),
    ({"tau": torch.ones(2, 2)}, r"tau: got shape \(2, 2\), expected a number or a \(3, 3\) matrix"),
    ({"tau": torch.tensor([[1, 2, 3], [1, 1, 1], [1, 1, 1.0]])}, "tau: got an asymmetric matrix"),
    ({"tau_prev": 0.3}, r"tau_prev: got 0.3 above tau = 0.2"),
    ({"tau_prev": 0.0}, "tau_prev: got 0.0"),
    ({"tau_prev": torch.tensor([[0, 0.3], [0.3, 0]])}, "tau_prev: got 0.3 above tau = 0.2"),
    ({"tau_prev": 1e-4}, "tau_prev: log alpha spans"),
    ({"tau_prev": -1.0, "weighting": "uniform"}, "tau_prev: got -1.0"),
    ({"peers": torch.ones(1, 3, 4), "tau_prev": torch.tensor(0.3)}, "tau_prev: got 0.3 above tau = 0.2"),
    ({"anchor": torch.zeros(3, 4)}, "anchor: got 3 rows of zeros"),
    ({"peers": torch.eye(4)[:3].repeat(2, 1, 1) * torch.tensor([1, 1, 0])[:, None]}, "peers: got 2 rows of zeros"),
    ({"weighting": "equal"}, "weighting: got 'equal', expected one of"),
    ({"estimator": "fast"}, "estimator: got 'fast', expected one of"),
    ({"reduction": "sum"}, "reduction: got 'sum', expected one of"),
    ({"num_samples": 0}, "num_samples: got 0"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_names_the_argument(change, message):
    rng = torch.Generator().manual_seed(0)
    given = {"anchor": torch.randn(3, 4, generator=rng), "peers": torch.randn(2, 3, 4, generator=rng)} | change
    with pytest.raises(ValueError, match=message):
        muscle_loss(**given)


@pytest.mark.parametrize(("call", "message"), [
    (lambda z: info_nce(z, z[:2]), r"peer: got shape \(2, 4\)"),
    (lambda z: info_nce(z, z, tau=0), "tau: got 0"),
    (lambda z: gramian_loss(z, []), "peers: got M = 0"),
    (lambda z: gramian_loss(z, [z], eps=0), "eps: got 0"),
    *[(lambda z, eps=eps: gramian_loss(z, [z], eps=eps), f"eps: got {eps}, expected a finite number of at least 1.17")
      for eps in (float("inf"), float("nan"), 1e-45)],
    *[(lambda z, loss=loss, tau=tau: loss(z, z, tau=tau), f"tau: got {tau}, expected finite temperatures above 0")
      for loss in (info_nce, nt_xent, lambda z, *_, tau: gramian_loss(z, [z], tau=tau)) for tau in (1e-45, float("inf"))],
    (lambda z: gramian_loss(z, [z], reduction="sum"), "reduction: got 'sum'"),
    (lambda z: mi_lower_bound(1.0, 0, 3), "batch_size: got 0"),
])
def test_bad_input_of_the_other_losses(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.eye(4))


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


@pytest.mark.parametrize("scale", [1e-20, 1e20])
def test_cka_loss_sees_no_scale_of_the_features(scale):
    x, kernel = random_rows(6, 4).float(), random_rows(6, 6).float()
    scaled = (scale * x).requires_grad_()
    loss = cka_loss(scaled, kernel @ kernel.T)
    loss.backward()
    x.requires_grad_()
    (wanted,) = torch.autograd.grad(plain := cka_loss(x, kernel @ kernel.T), x)
    assert loss.item() == pytest.approx(plain.item(), rel=1e-5) and 0.01 < loss < 0.99
    assert torch.allclose(scaled.grad.double() * scale, wanted.double(), atol=1e-5) and wanted.abs().max() > 1e-3


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
    for arguments, message in [((torch.ones(3, 2), torch.ones(2, 2)), r"second: .*\(2, 2\), expected \(3, 2\) as first has"),
                               ((torch.full((3, 2), torch.inf), torch.ones(3, 2)), "first: got NaN or infinity")]:
        with pytest.raises(ValueError, match=message):
            nt_xent(*arguments)


def test_a_row_of_zeros_is_fine_without_scaling():
    assert muscle_loss(torch.zeros(3, 4), torch.zeros(2, 3, 4), normalize=False).item() == pytest.approx(2 * math.log(3))


def in_float32(num_peers=2):
    """Unit rows (3, 4) and (M, 3, 4)."""
    return [torch.nn.functional.normalize(rows.detach(), dim=-1) for rows in draw(num_peers, 3, dim=4, dtype=torch.float32)]


@pytest.mark.parametrize("loss", [muscle_loss, gramian_loss])
@pytest.mark.parametrize(("scale", "came"), [(3e19, r"3e\+19"), (1e-13, "1e-13")])
@pytest.mark.parametrize("which", ["anchor", "peers", "both"])
def test_rows_of_a_norm_whose_square_leaves_float32_are_refused(loss, scale, came, which):
    anchor, peers = in_float32()
    anchor, peers = anchor * (1 if which == "peers" else scale), peers * (1 if which == "anchor" else scale)
    name = "peers" if which == "peers" else "anchor"
    with pytest.raises(ValueError, match=rf"{name}: got rows of norm {came} to {came}, expected 1e-12 to 1\.8e\+19"):
        loss(anchor, peers)


@pytest.mark.parametrize("loss", [muscle_loss, gramian_loss])
@pytest.mark.parametrize("scale", [1e-11, 1e19])
def test_rows_of_any_norm_within_give_the_loss_of_unit_rows(loss, scale):
    anchor, peers = in_float32()
    scaled = (scale * anchor).requires_grad_()
    found = loss(scaled, scale * peers)
    found.backward()
    assert found.item() == pytest.approx(loss(anchor, peers).item(), rel=1e-5)
    (wanted,) = torch.autograd.grad(loss(anchor.requires_grad_(), peers), anchor)
    assert torch.allclose(scaled.grad.double() * scale, wanted.double(), atol=1e-5) and wanted.abs().max() > 1e-2


@pytest.mark.parametrize(("num_peers", "batch_size", "most"), [(5, 32, 1024), (8, 8, 160)])
def test_exact_with_many_peers_stays_in_bounded_memory(num_peers, batch_size, most):
    """MiB of forward and backward, d = 256, in a process of its own: 33 and 17 million tuples."""
    code = f"""
import resource, sys, torch
from fedmuscle_core import muscle_loss
anchor, peers = torch.randn({batch_size}, 256, requires_grad=True), torch.randn({num_peers}, {batch_size}, 256)
muscle_loss(anchor, peers[:2]).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
muscle_loss(anchor, peers).backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / (2 ** 20 if sys.platform == "darwin" else 2 ** 10))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert float(done.stdout) < most


def test_docstring_examples():
    results = doctest.testmod(fedmuscle_core.losses, extraglobs={"torch": torch})
    assert results.attempted >= 2 and results.failed == 0

"""odsF: against a slow twin, and where the answer is known."""

import itertools

import networkx
import pytest
import torch

import fedmuscle_core.world.edge_score as edges
from fedmuscle_core.world.edge_score import THRESHOLDS, edge_counts, edge_score, f_score, ods_f


def slow_ods_f(strength, truth, tolerance, thresholds):
    """A graph a scene, every pair of pixels looked at, another library's matching."""
    best = 0.0
    for threshold in thresholds:
        matched = predicted = true = 0
        for scene, wanted in zip(strength, truth, strict=True):
            ours = [tuple(pixel) for pixel in (scene >= threshold).nonzero().tolist()]
            theirs = [tuple(pixel) for pixel in (wanted != 0).nonzero().tolist()]
            graph = networkx.Graph()
            graph.add_nodes_from(("ours", *pixel) for pixel in ours)
            for (y, x), (v, u) in itertools.product(ours, theirs):
                if (y - v) ** 2 + (x - u) ** 2 <= tolerance ** 2:
                    graph.add_edge(("ours", y, x), ("theirs", v, u))
            top = [("ours", *pixel) for pixel in ours]
            matched += len(networkx.bipartite.hopcroft_karp_matching(graph, top)) // 2
            predicted, true = predicted + len(ours), true + len(theirs)
        if predicted + true:
            precision, recall = matched / max(predicted, 1), matched / max(true, 1)
            best = max(best, 2 * precision * recall / (precision + recall) if matched else 0.0)
    return best


@pytest.mark.parametrize("tolerance", [0, 1.0, 1.5, 2.0])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 4), (2, 8, 8)])
@pytest.mark.parametrize("density", [0.1, 0.4])
def test_it_is_the_slow_twin(tolerance, shape, density):
    rng = torch.Generator().manual_seed(int(10 * tolerance) + shape[1])
    strength, truth = torch.rand(shape, generator=rng), (torch.rand(shape, generator=rng) < density).long()
    expected = slow_ods_f(strength, truth, tolerance, THRESHOLDS)
    assert ods_f(strength, truth, tolerance) == pytest.approx(expected, abs=1e-12)


def line(column, size=8):
    scene = torch.zeros(1, size, size)
    scene[0, :, column] = 1
    return scene


def test_where_the_answer_is_known():
    assert ods_f(line(3), line(3)) == 1
    assert ods_f(line(3), line(4)) == 1 and ods_f(line(3), line(5)) == 0      # one pixel of tolerance, two columns apart
    assert ods_f(line(3), line(4), tolerance=0) == 0
    thick = line(3) + line(4)
    assert ods_f(thick, line(3)) == pytest.approx(2 / 3)                      # every true pixel matches one: precision 1/2
    assert ods_f(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)) == 0
    assert edge_counts(thick == 1, line(3) == 1, 1.0) == (8, 16, 8)
    assert f_score(0, 0, 0) == 0 and f_score(3, 4, 5) == pytest.approx(2 / (4 / 3 + 5 / 3))


def test_the_threshold_is_one_for_the_whole_data_set():
    strength, truth = torch.cat([0.35 * line(1), 0.75 * line(1) + 0.4 * line(5)]), torch.cat([line(1), line(1)])
    assert ods_f(strength, truth) == pytest.approx(4 / 5)                     # at 0.3: all of both, and 8 false; at 0.7: half
    best_each = [ods_f(strength[number:number + 1], truth[number:number + 1]) for number in (0, 1)]
    assert best_each == [1, 1]


def test_a_greedy_matching_would_find_fewer():
    found, wanted = torch.zeros(1, 1, 4), torch.zeros(1, 1, 4)
    found[0, 0, [1, 2]], wanted[0, 0, [0, 1]] = 1, 1                          # 1 must give way to 2 and take 0
    assert ods_f(found, wanted) == 1


def test_the_score_of_logits_is_in_percent_and_reads_class_one():
    truth = line(2).long()
    logits = torch.stack([torch.zeros(1, 8, 8), 20 * line(2) - 10], 1)
    assert edge_score(logits, truth) == pytest.approx(100)
    assert edge_score(logits.flip(1), truth) < 50


@pytest.mark.parametrize(("change", "message"), [
    ({"strength": torch.zeros(2, 4)}, r"truth: got shape \(1, 8, 8\) with strengths \(2, 4\)"),
    ({"truth": torch.zeros(1, 8, 7)}, r"truth: got shape \(1, 8, 7\)"),
    ({"strength": 2 * line(1)}, "strength: got a value outside 0 to 1"),
    ({"strength": line(1) * torch.nan}, "strength: got a value outside 0 to 1 or NaN"),
    ({"tolerance": -1}, "tolerance: got -1"),
    ({"thresholds": ()}, "thresholds: got none"),
])
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        ods_f(**{"strength": line(1), "truth": line(1), **change})


def test_thresholds_that_cannot_win_are_not_matched(monkeypatch):
    calls = []
    monkeypatch.setattr(edges, "edge_counts", lambda *given: calls.append(1) or edge_counts(*given))
    assert ods_f(line(3), line(3)) == 1 and len(calls) == 1

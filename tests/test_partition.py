import numpy as np
import pytest
import torch

from fedmuscle_core.world.partition import LEAST, deal, first_digits, like, split_by_class
from fedmuscle_core.world.scenes import digit_scenes


def test_first_digit_is_the_first_in_reading_order():
    scenes = digit_scenes("train", "multi", 50, 0)
    literal = [next(int(name) for name in row if name >= 0) for row in scenes.classes]
    assert first_digits(scenes).tolist() == literal


def test_a_split_deals_every_scene_once_and_follows_its_shares():
    classes = torch.arange(10).repeat_interleave(2000)
    rows, shares = split_by_class(classes, (1, 1, 2), 0.3, 0, "x")
    assert sorted(torch.cat(rows).tolist()) == list(range(20000)) and shares.sum(1) == pytest.approx(1)
    for client, mine in enumerate(rows):
        found = np.bincount(classes[mine], minlength=10) / 2000
        assert np.abs(found - shares[:, client]).max() < 0.06                 # 5 standard deviations of a binomial share


def test_a_small_concentration_skews_and_a_large_one_does_not():
    classes = torch.arange(10).repeat_interleave(200)
    top = {value: np.mean([split_by_class(classes, (1, 1, 1), value, seed)[1].max(1).mean() for seed in range(20)])
           for value in (0.1, 1.0, 1000.0)}
    assert top[0.1] > 0.8 > top[1.0] > 0.5 > top[1000.0] and top[1000.0] == pytest.approx(1 / 3, abs=0.03)


def test_expected_shares_are_in_proportion_to_the_sizes():
    classes = torch.arange(10).repeat_interleave(100)
    mean = np.mean([split_by_class(classes, (1, 3), 1.0, seed)[1].mean(0) for seed in range(200)], 0)
    assert mean == pytest.approx([0.25, 0.75], abs=0.03)


def test_a_split_that_starves_a_client_is_refused():
    with pytest.raises(ValueError, match="dirichlet: got 0.001, for which 1000 draws left a client with fewer than 16 scenes"):
        split_by_class(torch.zeros(200, dtype=torch.long), (1, 1, 1), 0.001, 0)


def test_few_scenes_need_a_quarter_of_an_equal_part_each():
    rows, _ = split_by_class(torch.arange(24) % 2, (1, 1, 1), 0.5, 0)
    assert 2 <= min(map(len, rows)) < LEAST


def test_samples_dealt_by_shares_follow_them_for_any_number_of_classes():
    shares = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.2, 0.2, 0.6]])
    rows = deal(torch.arange(3).repeat_interleave(2000), shares, torch.Generator().manual_seed(0))
    counts = [np.bincount(torch.arange(3).repeat_interleave(2000)[mine], minlength=3) / 2000 for mine in rows]
    assert np.abs(np.array(counts).T - shares).max() < 0.06 and counts[1][0] == counts[2][0] == 0


def test_like_takes_as_many_as_the_scarcest_class_allows():
    classes = torch.tensor([0] * 10 + [1] * 100 + [2] * 50)
    proportions = np.zeros(10)
    proportions[:2] = 0.5, 1.5                                                # need not sum to 1
    rows = like(classes, proportions)
    assert np.bincount(classes[rows]).tolist() == [10, 30]
    with pytest.raises(ValueError, match=r"classes: got no scene of \[7\]"):
        like(classes, np.eye(10)[7] + proportions)

"""Tasks of the core: losses and scores against loops over single answers, and targets that do not fit."""

import math
from dataclasses import replace

import pytest
import torch

from fedmuscle_core import Task, classification, multilabel, segmentation
from fedmuscle_core.tasks import VOID, classes


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def choose(high, *shape, seed=1):
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(seed))


def cross_entropy_by_hand(outputs, target):
    """Of one answer's logits, a list."""
    return math.log(sum(math.exp(value) for value in outputs)) - outputs[target]


def test_classification_is_cross_entropy_and_accuracy():
    task, outputs, targets = classification(4, "birds"), draw(9, 4), choose(4, 9)
    rows, wanted = outputs.tolist(), targets.tolist()
    by_hand = sum(map(cross_entropy_by_hand, rows, wanted)) / 9
    assert task.loss(outputs, targets).item() == pytest.approx(by_hand, abs=1e-12)
    right = sum(max(range(4), key=row.__getitem__) == target for row, target in zip(rows, wanted, strict=True))
    assert task.score(outputs, targets) == pytest.approx(100 * right / 9) and 0 < right < 9
    assert (task.name, task.num_outputs, task.metric, task.dense, task.multilabel) == ("birds", 4, "accuracy", False, False)
    assert task.num_answers(targets) == 9


def test_classes_in_any_integer_type_are_learnt_alike():
    outputs, targets = draw(9, 4), choose(4, 9)
    losses = {classification(4).loss(outputs, targets.to(kind)).item() for kind in (torch.uint8, torch.int16, torch.int64)}
    assert len(losses) == 1


def average_precision_by_hand(scores, wanted):
    """Mean over the positives, from the highest score down, of the share of positives so far; no two scores equal."""
    order = sorted(range(len(scores)), key=lambda place: -scores[place])
    precisions, found = [], 0
    for rank, place in enumerate(order, 1):
        if wanted[place]:
            found += 1
            precisions.append(found / rank)
    return sum(precisions) / len(precisions)


def test_multilabel_is_binary_cross_entropy_and_the_mean_average_precision():
    task, outputs, targets = multilabel(3), draw(12, 3), choose(2, 12, 3)
    answers = list(zip(outputs.flatten().tolist(), targets.flatten().tolist(), strict=True))
    by_hand = sum(math.log1p(math.exp(-value if target else value)) for value, target in answers) / 36
    for kind in (torch.long, torch.float, torch.bool):
        assert task.loss(outputs, targets.to(kind)).item() == pytest.approx(by_hand, abs=1e-12)
    columns = [average_precision_by_hand(outputs[:, place].tolist(), targets[:, place].tolist()) for place in range(3)]
    assert task.score(outputs, targets) == pytest.approx(100 * sum(columns) / 3, abs=1e-4)
    assert task.num_answers(targets) == 36 and task.multilabel


def test_a_label_that_never_occurs_has_no_precision():
    outputs, targets = draw(12, 3), choose(2, 12, 3)
    targets[:, 1] = 0
    columns = [average_precision_by_hand(outputs[:, place].tolist(), targets[:, place].tolist()) for place in (0, 2)]
    assert multilabel(3).score(outputs, targets) == pytest.approx(100 * sum(columns) / 2, abs=1e-4)
    assert math.isnan(multilabel(3).score(outputs, torch.zeros(12, 3)))


def masks():
    """Outputs and targets of 5 pictures of 3 classes; one with pixels without a class, one with hardly any, one with none."""
    outputs, targets = draw(5, 3, 4, 4), choose(3, 5, 4, 4)
    targets[1, 0], targets[2, 1:], targets[3] = VOID, VOID, VOID
    return outputs, targets


def test_segmentation_is_cross_entropy_over_the_pixels_that_have_a_class():
    (outputs, targets), task = masks(), segmentation(3)
    known = [(outputs[n, :, y, x].tolist(), targets[n, y, x].item()) for n, y, x in (targets != VOID).nonzero().tolist()]
    by_hand = sum(cross_entropy_by_hand(*answer) for answer in known) / len(known)
    for kind in (torch.uint8, torch.long):
        assert task.loss(outputs, targets.to(kind)).item() == pytest.approx(by_hand, abs=1e-12)
        assert task.num_answers(targets.to(kind)) == len(known) == 5 * 16 - 4 - 12 - 16


def test_its_score_is_the_mean_intersection_over_union():
    (outputs, targets), task = masks(), segmentation(3)
    kept = task.keep(outputs)
    assert kept.dtype == torch.uint8 and torch.equal(kept.long(), outputs.argmax(1))
    pixels = [(kept[place].item(), targets[place].item()) for place in map(tuple, (targets != VOID).nonzero().tolist())]
    ratios = [sum(got == want == name for got, want in pixels) / sum(name in pair for pair in pixels) for name in range(3)]
    assert task.score(kept, targets) == pytest.approx(100 * sum(ratios) / 3, abs=1e-4)
    assert task.score(targets.clamp(max=2), targets) == pytest.approx(100)


CLASSES, LABELS, PIXELS = classification(4), multilabel(3), segmentation(3)


@pytest.mark.parametrize(("task", "targets"), [
    (CLASSES, torch.tensor([0, 3])), (CLASSES, torch.tensor([0, 3], dtype=torch.uint8)), (LABELS, torch.eye(3)),
    (LABELS, torch.eye(3, dtype=torch.bool)), (LABELS, torch.zeros(2, 3, dtype=torch.long)),
    (PIXELS, torch.full((1, 2, 2), VOID)), (PIXELS, torch.tensor([[[0, 2, 255]]], dtype=torch.uint8)),
])
def test_targets_that_fit_pass(task, targets):
    assert task.check("train", targets) is None


@pytest.mark.parametrize(("task", "targets", "message"), [
    (CLASSES, torch.tensor([0, 4]), "got class 4, expected 0 to 3$"),
    (CLASSES, torch.tensor([0, -1]), "got class -1, expected 0 to 3$"),
    (CLASSES, torch.tensor([0, 255]), "got class 255, expected 0 to 3$"),
    (CLASSES, torch.tensor([0.0, 1.0]), "got targets of torch.float32, expected integers: classes from 0"),
    (CLASSES, torch.tensor([True, False]), "got targets of torch.bool, expected integers"),
    (CLASSES, torch.zeros(2, 4, dtype=torch.long), r"got targets of shape \(2, 4\), expected \(n,\) for accuracy of 4"),
    (LABELS, torch.zeros(2, 4), r"got targets of shape \(2, 4\), expected \(n, 3\) for mAP of 3"),
    (LABELS, torch.zeros(3), r"got targets of shape \(3,\), expected \(n, 3\)"),
    (LABELS, torch.tensor([[0, 0.5, 1]]), "got targets other than 0 and 1, expected only those for several labels"),
    (LABELS, torch.tensor([[0, torch.nan, 1]]), "got targets other than 0 and 1"),
    (PIXELS, torch.zeros(2, 4, dtype=torch.long), r"got targets of shape \(2, 4\), expected \(n, H, W\) for mIoU of 3"),
    (PIXELS, torch.full((1, 2, 2), 3), r"got class 3, expected 0 to 2 or 255 \(void\)"),
    (PIXELS, torch.full((1, 2, 2), -1), r"got class -1, expected 0 to 2 or 255 \(void\)"),
    (PIXELS, torch.zeros(1, 2, 2), "got targets of torch.float32, expected integers"),
])
def test_targets_that_do_not_fit_are_refused_with_the_name_of_their_owner(task, targets, message):
    with pytest.raises(ValueError, match=f"client 3: train: {message}"):
        task.check("client 3: train", targets)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: classification(1), "num_classes: got 1, expected an integer of at least 2"),
    (lambda: classification(2.0), "num_classes: got 2.0"), (lambda: segmentation(1), "num_classes: got 1"),
    (lambda: segmentation(256), "num_classes: got 256, expected at most 255"),
    (lambda: multilabel(0), "num_labels: got 0, expected an integer of at least 1"),
])
def test_impossible_numbers_of_answers_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_task_of_ones_own_says_what_its_answers_are():
    def distance(outputs, targets):
        return (outputs - targets).abs().mean()
    task = Task("ages", 5, "error", distance, lambda kept, targets: -distance(kept, targets).item(), modality="text")
    assert task.score(torch.ones(2, 5), torch.zeros(2, 5)) == -1 and task.keep is None and task.modality == "text"
    assert task.check("test", torch.zeros(2, 5)) is None                        # the loss says what it takes

    def from_birth(task, who, targets):
        if (targets < 0).any():
            raise ValueError(f"{who}: got ages below 0 for {task.metric}")
    with pytest.raises(ValueError, match="test: got ages below 0 for error"):
        replace(task, check_targets=from_birth).check("test", -torch.ones(2, 5))


def test_the_class_of_a_pixel_is_the_first_of_the_most_probable_ones():
    outputs = torch.randint(3, (4, 5, 6, 7), generator=torch.Generator().manual_seed(0)).float()       # with many ties
    assert torch.equal(classes(outputs), outputs.argmax(1).to(torch.uint8))

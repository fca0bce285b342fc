"""Tasks of the world: targets, losses and scores where the answer is known, real kinds by name."""

import pickle
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from fedmuscle_core.world import dense_labels, tasks
from fedmuscle_core.world.scenes import digit_scenes
from fedmuscle_core.world.tasks import TASKS, FrequentPrecision, WorldTask, targets, task_named

REAL = ("class@cifar10", "labels@voc", "pixels@voc", "text@ag_news")


def scored(task, outputs, wanted):
    return task.score(task.keep(outputs) if task.keep else outputs, wanted)


def test_every_task_has_its_answer_in_one_scene():
    scenes = digit_scenes("train", "multi", 400, 3)
    mlc, ic10, ic100 = (targets(name, scenes) for name in ("mlc", "ic10", "ic100"))
    for row in range(400):
        digits = [c for c in scenes.classes[row].tolist() if c >= 0]
        assert mlc[row].nonzero()[:, 0].tolist() == sorted(set(digits))
        assert ic10[row].item() == (digits[0] if len(digits) == 1 else -1)
        assert ic100[row].item() == (10 * digits[0] + digits[1] if len(digits) == 2 else -1)
    assert torch.equal(targets("ss", scenes), scenes.masks) and torch.equal(targets("semseg", scenes), scenes.masks)
    for name in ("parts", "saliency", "edges"):
        assert torch.equal(targets(name, scenes), getattr(dense_labels, name)(scenes))
    drawn = zip(scenes.classes >= 0, scenes.side, scenes.ink, scenes.centre, strict=True)
    for row, (present, side, ink, centre) in enumerate(drawn):
        slots = present.nonzero()[:, 0].tolist()
        largest, brightest = (max(slots, key=measure.__getitem__) for measure in (side.tolist(), ink.mean(1).tolist()))
        assert targets("largest", scenes)[row] == scenes.classes[row, largest]
        assert targets("brightest", scenes)[row] == scenes.classes[row, brightest]
        above = {scenes.classes[row, slot].item() for slot in slots if centre[slot, 1] < 0}
        assert set(targets("upper", scenes)[row].nonzero()[:, 0].tolist()) == above
    assert (ic10 >= 0).any() and (ic100 >= 0).any()
    with pytest.raises(ValueError, match="task: got 'odometry'"):
        targets("odometry", scenes)


def test_targets_of_captions_are_those_of_the_scene():
    scenes = digit_scenes("validation", "number", 50, 0)
    assert torch.equal(targets("tcleft", scenes), scenes.classes[:, 0])
    single = digit_scenes("validation", "single", 50, 0)
    assert torch.equal(targets("tc10", single), targets("ic10", single)) and set(targets("tcleft", single).tolist()) == {-1}


@pytest.mark.parametrize("name", TASKS)
def test_a_perfect_prediction_scores_100_and_a_constant_one_little(name):
    task = TASKS[name]
    wanted = targets(name, digit_scenes("test", task.layout, 500, 0))
    task.check(name, wanted)
    perfect = wanted if wanted.ndim == 2 else F.one_hot(wanted, task.num_outputs).movedim(-1, 1).float()
    assert scored(task, 20 * perfect - 10, wanted) == pytest.approx(100)
    free = 50 if name == "saliency" else 40                                   # of two classes, half of mIoU
    assert scored(task, torch.zeros_like(perfect), wanted) < free
    assert task.loss(20 * perfect - 10, wanted) < 0.01 < task.loss(torch.zeros_like(perfect), wanted)


def test_the_score_of_labels_in_scenes_is_the_macro_mean_of_another_library():
    rng = torch.Generator().manual_seed(0)
    logits, wanted = torch.randn(50, 10, generator=rng), (torch.rand(50, 10, generator=rng) < 0.3).float()
    by_hand = 100 * average_precision_score(wanted, logits, average="macro")
    assert all(TASKS[name].score(logits, wanted) == pytest.approx(by_hand) for name in ("mlc", "upper"))
    wanted[:, 0] = 0                                                          # a label that never occurs counts as 0
    with pytest.warns(UserWarning, match="No positive samples"):
        assert TASKS["mlc"].score(logits, wanted) < 0.95 * task_named("labels@cifar10").score(logits, wanted)


def test_dense_tasks_keep_classes_and_edges_their_logits():
    outputs = torch.randn(2, 11, 4, 4, generator=torch.Generator().manual_seed(0))
    for name in ("ss", "semseg", "parts", "saliency", "pixels@voc"):
        kept = task_named(name).keep(outputs)
        assert kept.dtype == torch.uint8 and torch.equal(kept.long(), outputs.argmax(1))
    assert all(TASKS[name].keep is None for name in ("edges", "mlc", "ic10"))


def test_mean_iou_where_the_answer_is_known():
    wanted = torch.tensor([[[0, 0, 1, 1]]])
    logits = F.one_hot(torch.tensor([[[0, 1, 1, 1]]]), 2).permute(0, 3, 1, 2).float()
    assert scored(TASKS["ss"], logits, wanted) == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize("name", [*TASKS, *REAL])
def test_tasks_travel_to_worker_processes(name):
    task = task_named(name)
    again = pickle.loads(pickle.dumps(task))
    assert isinstance(task, WorldTask) and task.name == name and again == task and bool(task.source) == (name in REAL)


@pytest.mark.parametrize(("name", "message"), [
    ("mlk", "task: got 'mlk', expected one of"), ("class@moon", "source: got 'moon', expected one of"),
    ("colour@voc", "task: kind: got 'colour', expected one of"), ("class@photos", "expected a source with labels"),
])
def test_unknown_tasks_are_named(name, message):
    with pytest.raises(ValueError, match=message):
        task_named(name)


def test_real_kinds_have_the_classes_of_their_source_and_what_they_need():
    found = {name: task_named(name) for name in REAL}
    assert [task.num_outputs for task in found.values()] == [10, 20, 21, 4]
    assert [task.metric for task in found.values()] == ["accuracy", "mAP", "mIoU", "accuracy"]
    assert [(task.multilabel, task.dense, task.modality, task.lr_scale) for task in found.values()] == [
        (False, False, "image", 1.0), (True, False, "image", 1.0), (False, True, "image", 4.0), (False, False, "text", 4.0)]


def test_pixels_have_a_background_and_void_is_neither_learnt_nor_scored():
    task = task_named("pixels@voc")
    logits = torch.randn(2, 21, 4, 4, generator=torch.Generator().manual_seed(0))
    wanted = logits.argmax(1).to(torch.uint8)
    said = wanted.clone()
    assert task.score(said, wanted) == 100.0
    wanted[:, 0] = 255
    assert task.score(said, wanted) == 100.0
    said[:, 1] = (said[:, 1] + 1) % 21
    assert 0 < task.score(said, wanted) < 100
    shown = wanted != 255
    by_hand = F.cross_entropy(logits.permute(0, 2, 3, 1)[shown], wanted[shown].long())
    assert torch.allclose(task.loss(logits, wanted), by_hand)


def test_labels_that_never_occur_are_left_out_of_the_mean():
    logits = torch.tensor([[2.0, 0.0, 5.0], [1.0, 1.0, 4.0], [0.0, 2.0, 3.0]])
    wanted = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert task_named("labels@voc").score(logits, wanted) == pytest.approx(100 * (1 + 1 / 3) / 2)


def test_classes_of_pixels_that_few_test_photos_have_do_not_count(monkeypatch):
    """By hand: background 2 of 3 pixels, class 1 one of 3; class 5 is predicted once and not there, class 3 is rare."""
    monkeypatch.setattr(tasks, "frequent_labels", lambda source: [0, 4])
    wanted = torch.tensor([[[0, 0, 0], [1, 1, 3], [255, 3, 3]]], dtype=torch.uint8)
    found = torch.tensor([[[0, 0, 5], [1, 3, 3], [7, 3, 1]]], dtype=torch.uint8)
    score = task_named("pixels@voc_animals").score
    assert isinstance(score, tasks.FrequentIoU) and score(found, wanted) == pytest.approx(100 * (2 / 3 + 1 / 3) / 2)


def test_objects_and_outlines_are_made_of_masks():
    masks = torch.tensor([[[0, 255, 3], [0, 255, 12]]], dtype=torch.uint8)
    assert dense_labels.objects(masks).tolist() == [[[0, 255, 1], [0, 255, 1]]]
    assert dense_labels.outlines(masks).tolist() == [[[0, 1, 0], [0, 1, 0]]]
    saliency, edges = task_named("saliency@voc_animals"), task_named("edges@voc_animals")
    assert (saliency.num_outputs, saliency.metric, edges.num_outputs, edges.metric) == (2, "mIoU", 2, "odsF")
    assert saliency.made_of is dense_labels.objects and saliency.dense and edges.dense and edges.keep is None


def test_labels_that_few_test_photos_have_do_not_count(monkeypatch):
    logits = torch.tensor([[2.0, 0.0, 5.0], [1.0, 1.0, 4.0], [0.0, 2.0, 3.0], [0.0, 3.0, 0.0]])
    wanted = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    assert task_named("labels@voc").score(logits, wanted) == pytest.approx(100 * (1 + 1 / 4 + 1) / 3)
    monkeypatch.setattr(tasks, "frequent_labels", lambda source: [0, 2])
    score = task_named("labels@voc_animals").score
    assert score == FrequentPrecision("voc_animals") and score(logits, wanted) == 100.0


def test_torchmetrics_is_not_imported_before_a_score_is_taken():
    code = "import sys, fedmuscle_core.world.worlds; sys.exit('torchmetrics' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

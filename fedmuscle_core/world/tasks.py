"""The tasks: what a client predicts from a scene, the loss it trains with, the metric it is scored by."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torchmetrics.functional.classification import (
    binary_average_precision,
    multiclass_accuracy,
    multiclass_jaccard_index,
    multilabel_average_precision,
)

from ..checks import one_of
from . import dense_labels as dense
from .edge_score import edge_score
from .real.photos import VOID
from .real.sources import source_named


@dataclass(frozen=True)
class Task:
    """`layout` of its scenes; `loss(logits, targets)` -> scalar; `score(logits, targets)` -> percent, higher is better; of
    pixels of photos `score(classes, targets)`.

    modality: "image", the scene is read, or "text", its caption.  dense: an answer for every pixel; fine: see
    `models.DenseClientModel`.
    multilabel: `num_outputs` yes-or-no answers instead of one class.
    lr_scale: factor of `local_lr` (our choice: heads for pixels and models of captions have further to go).
    source: of real data, a name of `sources.sources()`; scenes if empty.
    """

    name: str
    layout: str
    num_outputs: int
    metric: str
    loss: Callable
    score: Callable
    modality: str = "image"
    dense: bool = False
    fine: bool = False
    multilabel: bool = False
    lr_scale: float = 1.0
    source: str = ""


def targets(task_name, scenes):
    """What a task has to predict on `Scenes`; every scene carries every task's answer, as one photo does.

    mlc: (n, 10) float, which digits occur.  ic10: (n,) the single digit, -1 where there are more.
    ic100: (n,) the two-digit number in reading order, -1 where there are not two.  ss: (n, 32, 32) class per pixel.
    tc10: as ic10, of a caption.  tcleft: (n,) the digit on the left of two, its tens digit, -1 where there are not two.
    semseg: as ss.  parts, saliency, edges: (n, 32, 32), see `dense`.
    largest, brightest: (n,) the digit that is.  upper: (n, 10) float, which digits occur in the upper half.
    """
    present = scenes.classes >= 0
    if task_name == "mlc":
        return F.one_hot(scenes.classes.clamp(min=0), 10).mul(present[:, :, None]).amax(1).float()
    if task_name in ("ic10", "tc10"):
        return torch.where(present.sum(1) == 1, scenes.classes.amax(1), -1)
    if task_name == "ic100":
        first_two = scenes.classes.gather(1, (~present).int().argsort(dim=1, stable=True)[:, :2])
        return torch.where(present.sum(1) == 2, 10 * first_two[:, 0] + first_two[:, 1], -1)
    if task_name == "tcleft":
        return targets("ic100", scenes).div(10, rounding_mode="floor")
    if task_name in ("ss", "semseg"):
        return scenes.masks
    if task_name in ("parts", "saliency", "edges"):
        return getattr(dense, task_name)(scenes)
    if task_name in ("largest", "brightest"):
        measure = scenes.side if task_name == "largest" else scenes.ink.mean(2)
        return scenes.classes.gather(1, measure.masked_fill(~present, -1).argmax(1, keepdim=True))[:, 0]
    if task_name == "upper":
        upper = present & (scenes.centre[..., 1] < 0)
        return F.one_hot(scenes.classes.clamp(min=0), 10).mul(upper[:, :, None]).amax(1).float()
    raise ValueError(f"task: got {task_name!r}, expected one of {tuple(TASKS)}")


def _mean_average_precision(logits, target):
    return 100 * multilabel_average_precision(logits, target.int(), num_labels=logits.shape[1]).item()


def _accuracy(logits, target):
    return 100 * multiclass_accuracy(logits, target, num_classes=logits.shape[1], average="micro").item()


def _mean_iou(logits, target):
    num_classes = logits.shape[1]
    return 100 * multiclass_jaccard_index(logits.argmax(1), target, num_classes=num_classes, average="macro").item()


TASKS = {task.name: task for task in (
    Task("mlc", "multi", 10, "mAP", F.binary_cross_entropy_with_logits, _mean_average_precision, multilabel=True),
    Task("ic100", "number", 100, "accuracy", F.cross_entropy, _accuracy),
    Task("ic10", "single", 10, "accuracy", F.cross_entropy, _accuracy),
    Task("ss", "multi", 11, "mIoU", F.cross_entropy, _mean_iou, dense=True, lr_scale=4.0),
    Task("tc10", "single", 10, "accuracy", F.cross_entropy, _accuracy, modality="text", lr_scale=4.0),
    Task("tcleft", "number", 10, "accuracy", F.cross_entropy, _accuracy, modality="text", lr_scale=4.0),
    Task("semseg", "multi", 11, "mIoU", F.cross_entropy, _mean_iou, dense=True, fine=True, lr_scale=4.0),
    Task("parts", "multi", 5, "mIoU", F.cross_entropy, _mean_iou, dense=True, fine=True, lr_scale=4.0),
    Task("saliency", "multi", 2, "mIoU", F.cross_entropy, _mean_iou, dense=True, fine=True, lr_scale=4.0),
    Task("edges", "multi", 2, "odsF", F.cross_entropy, edge_score, dense=True, fine=True, lr_scale=4.0),
    Task("largest", "multi", 10, "accuracy", F.cross_entropy, _accuracy),
    Task("brightest", "multi", 10, "accuracy", F.cross_entropy, _accuracy),
    Task("upper", "multi", 10, "mAP", F.binary_cross_entropy_with_logits, _mean_average_precision, multilabel=True),
)}


def _occurring_average_precision(logits, target):
    """Mean over the labels that occur: a label that never does has no precision."""
    occurs = target.any(0).nonzero()[:, 0].tolist()
    found = [binary_average_precision(logits[:, place], target[:, place].int()).item() for place in occurs]
    return 100 * sum(found) / len(found) if found else float("nan")


def _pixel_loss(logits, target):
    return F.cross_entropy(logits, target.long(), ignore_index=VOID)


def _photo_iou(classes, target, num_classes):
    """Of the classes of all pixels, (n, H, W), not of logits; VOID is not scored."""
    return 100 * multiclass_jaccard_index(classes.long(), target.long(), num_classes=num_classes, average="macro",
                                          ignore_index=VOID).item()


REAL_KINDS = {                                        # of tasks on real data, "kind@source"
    "class": Task("", "", 0, "accuracy", F.cross_entropy, _accuracy),
    "labels": Task("", "", 0, "mAP", F.binary_cross_entropy_with_logits, _occurring_average_precision, multilabel=True),
    "pixels": Task("", "", 0, "mIoU", _pixel_loss, _photo_iou, dense=True, lr_scale=4.0),
    "text": Task("", "", 0, "accuracy", F.cross_entropy, _accuracy, modality="text", lr_scale=4.0),
}


def task_named(name):
    """The task of that name: one of `TASKS`, or "kind@source" on real data.

    kind: "class" (a photo's), "labels" (which occur in a photo), "pixels" (the class at each, the background being one) or
    "text" (the class of a text).  Raises ValueError for an unknown kind or source, or a source without labels.
    """
    if name in TASKS:
        return TASKS[name]
    kind, _, source = name.partition("@")
    if not source:
        raise ValueError(f"task: got {name!r}, expected one of {tuple(TASKS)}, or <kind>@<source> on real data")
    found = source_named(source)
    if found.num_classes is None:
        raise ValueError(f"task: got {name!r}, expected a source with labels")
    number = found.num_classes + 1 if kind == "pixels" else found.num_classes
    task = replace(REAL_KINDS[one_of("task: kind", kind, REAL_KINDS)], name=name, num_outputs=number, source=source)
    return replace(task, score=partial(_photo_iou, num_classes=number)) if kind == "pixels" else task

"""What a client learns to predict: the loss it trains with, the metric it is scored by.

`classification`, `multilabel` and `segmentation` make the usual ones; any other is a `Task` with functions of one's own, such
as a regression, scored by 100 max(0, R^2).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .checks import positive_int

VOID = 255    # of pixels' targets: no class, neither learnt nor scored


@dataclass(frozen=True)
class Task:
    """`loss(outputs, targets)` -> scalar, a mean over answers; `score(kept, targets)` -> 0 to 100, higher is better, a number.

    name: clients whose tasks have one name share a label space: they vote together, and parameters are averaged within it.
    outputs: (n, num_outputs), or (n, num_outputs, H, W) where `dense`.  keep: what is kept of the outputs of a batch until all
    of a split is there to be scored; None for the outputs themselves.  multilabel: yes-or-no answers instead of one class.
    modality: what its clients read, a word, for temperatures of distant pairs.  check_targets: function (task, who, targets)
    that raises ValueError, saying `who` has them, where targets (n, ..) are not what the loss takes; None: whatever it takes.
    """

    name: str
    num_outputs: int
    metric: str
    loss: Callable
    score: Callable
    keep: Callable | None = None
    multilabel: bool = False
    dense: bool = False
    modality: str = "image"
    check_targets: Callable | None = None

    def check(self, who, targets):
        """Raise ValueError, saying `who` has them, where `targets` (n, ..) are not what the loss takes."""
        if self.check_targets:
            self.check_targets(self, who, targets)

    def num_answers(self, targets):
        """How many answers the mean of the loss is over."""
        return int((targets != VOID).sum()) if self.dense else targets.numel()


def class_targets(task, who, targets):
    """`Task.check_targets` of classes: integers from 0, (n,), or (n, H, W) with `VOID` where the task is `dense`."""
    _check_shape(task, who, targets, "(n, H, W)" if task.dense else "(n,)", targets.ndim == (3 if task.dense else 1))
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise ValueError(f"{who}: got targets of {targets.dtype}, expected integers: classes from 0")
    real = targets[targets != VOID].long() if task.dense else targets.long()
    if len(real) and not 0 <= int(real.min()) <= int(real.max()) < task.num_outputs:
        worst = int(real.min()) if real.min() < 0 else int(real.max())
        raise ValueError(f"{who}: got class {worst}, expected 0 to {task.num_outputs - 1}"
                         f"{f' or {VOID} (void)' if task.dense else ''}")


def label_targets(task, who, targets):
    """`Task.check_targets` of labels: 0 and 1, (n, num_outputs)."""
    _check_shape(task, who, targets, f"(n, {task.num_outputs})", targets.shape[1:] == (task.num_outputs,))
    if not ((targets == 0) | (targets == 1)).all():
        raise ValueError(f"{who}: got targets other than 0 and 1, expected only those for several labels")


def _check_shape(task, who, targets, expected, fits):
    if not fits:
        raise ValueError(f"{who}: got targets of shape {tuple(targets.shape)}, expected {expected} for {task.metric} of "
                         f"{task.num_outputs}")


def classification(num_classes, name=""):
    """One class of `num_classes`; targets (n,) integers from 0.  Cross-entropy; accuracy in percent.

    name: of the label space; the client's own if empty, so that no other client is taken to have the same classes.
    """
    positive_int("num_classes", num_classes, least=2)
    return Task(name, num_classes, "accuracy", cross_entropy, accuracy, check_targets=class_targets)


def multilabel(num_labels, name=""):
    """Which of `num_labels` labels apply; targets (n, num_labels) of 0 and 1.  Binary cross-entropy; mAP in percent, mean over
    the labels that occur among the targets scored."""
    positive_int("num_labels", num_labels)
    return Task(name, num_labels, "mAP", binary_cross_entropy, occurring_average_precision, multilabel=True,
                check_targets=label_targets)


def segmentation(num_classes, name=""):
    """The class of every pixel; targets (n, H, W) integers from 0, `VOID` where there is none.  Cross-entropy; mean IoU over
    the classes in percent."""
    if positive_int("num_classes", num_classes, least=2) > VOID:
        raise ValueError(f"num_classes: got {num_classes}, expected at most {VOID}: classes of pixels are kept in a byte")
    return Task(name, num_classes, "mIoU", pixel_cross_entropy, MeanIoU(num_classes), keep=classes, dense=True,
                check_targets=class_targets)


def cross_entropy(outputs, targets):
    """Mean over samples."""
    return F.cross_entropy(outputs, targets.long())


def binary_cross_entropy(outputs, targets):
    """Mean over samples and labels."""
    return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype))


def pixel_cross_entropy(outputs, targets):
    """Mean over the pixels that have a class."""
    return F.cross_entropy(outputs, targets.long(), ignore_index=VOID)


def classes(outputs):
    """The most probable class, (n, H, W) uint8: outputs of all pixels of a split would fill the memory."""
    return outputs.max(1).indices.to(torch.uint8)            # as argmax gives, but faster


def accuracy(outputs, targets):
    """Share of right classes in percent."""
    from torchmetrics.functional.classification import multiclass_accuracy

    return 100 * multiclass_accuracy(outputs, targets, num_classes=outputs.shape[1], average="micro").item()


def occurring_average_precision(outputs, targets):
    """Mean over the labels that occur in percent: a label that never does has no precision.  nan where none does."""
    from torchmetrics.functional.classification import binary_average_precision

    occurs = targets.bool().any(0).nonzero()[:, 0].tolist()
    found = [binary_average_precision(outputs[:, place], targets[:, place].int()).item() for place in occurs]
    return 100 * sum(found) / len(found) if found else float("nan")


@dataclass(frozen=True)
class MeanIoU:
    """Mean over `num_classes` of intersection over union in percent, of classes (n, H, W); `VOID` is not scored."""

    num_classes: int

    def __call__(self, kept, targets):
        from torchmetrics.functional.classification import multiclass_jaccard_index

        return 100 * multiclass_jaccard_index(kept.long(), targets.long(), num_classes=self.num_classes, average="macro",
                                              ignore_index=VOID).item()

"""The tasks of the world: what a client predicts from a scene, a photo or a text; loss and score are those of the core."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..checks import one_of
from ..tasks import VOID, Task, classification, multilabel, occurring_average_precision, retrieval, segmentation
from . import dense_labels
from .edge_score import edge_score
from .real.sources import source_named, source_table


@dataclass(frozen=True)
class WorldTask(Task):
    """`layout` of its scenes, empty with real data; `source` of its real data, of `sources.sources()`, empty with scenes.

    modality: "image", the scene or photo is read, "text", its caption, or "both", which belong together: `num_outputs` is then
    2, for representations of one number.  of_public: its private samples are the public pairs, as a server's own model has
    them.  fine: of a dense task, see `client_network.DenseClientNetwork`.  lr_scale: factor of the local learning rate (our
    choice: heads for pixels and models of captions have further to go).  made_of: of a task on photos' masks, what its targets
    are of them, the masks if None.
    """

    made_of: Callable | None = None
    layout: str = ""
    fine: bool = False
    lr_scale: float = 1.0
    source: str = ""
    of_public: bool = False


def targets(task_name, scenes):
    """What a task has to predict on `Scenes`; every scene carries every task's answer, as one photo does.

    mlc: (n, 10) float, which digits occur.  ic10: (n,) the single digit, -1 where there are more.
    ic100: (n,) the two-digit number in reading order, -1 where there are not two.  ss: (n, 32, 32) class per pixel.
    tc10: as ic10, of a caption.  tcleft: (n,) the digit on the left of two, its tens digit, -1 where there are not two.
    semseg: as ss.  parts, saliency, edges: (n, 32, 32), see `dense_labels`.
    pairs, public_pairs: (n,) the number of the pair.  largest, brightest: (n,) the digit that is.
    upper: (n, 10) float, which digits occur in the upper half.
    """
    present = scenes.classes >= 0
    if task_name in ("mlc", "upper"):
        counted = present if task_name == "mlc" else present & (scenes.centre[..., 1] < 0)
        return F.one_hot(scenes.classes.clamp(min=0), 10).mul(counted[:, :, None]).amax(1).float()
    if task_name in ("ic10", "tc10"):
        return torch.where(present.sum(1) == 1, scenes.classes.amax(1), -1)
    if task_name == "ic100":
        first_two = scenes.classes.gather(1, (~present).int().argsort(dim=1, stable=True)[:, :2])
        return torch.where(present.sum(1) == 2, 10 * first_two[:, 0] + first_two[:, 1], -1)
    if task_name == "tcleft":
        return targets("ic100", scenes).div(10, rounding_mode="floor")
    if task_name in ("pairs", "public_pairs"):
        return torch.arange(len(scenes.images))
    if task_name in ("ss", "semseg"):
        return scenes.masks
    if task_name in ("parts", "saliency", "edges"):
        return getattr(dense_labels, task_name)(scenes)
    if task_name in ("largest", "brightest"):
        measure = scenes.side if task_name == "largest" else scenes.ink.mean(2)
        return scenes.classes.gather(1, measure.masked_fill(~present, -1).argmax(1, keepdim=True))[:, 0]
    raise ValueError(f"task: got {task_name!r}, expected one of {tuple(TASKS)}")


def _macro_average_precision(logits, target):
    """Mean over labels as torchmetrics takes it, in percent: the score of the stored runs on scenes."""
    from torchmetrics.functional.classification import multilabel_average_precision

    return 100 * multilabel_average_precision(logits, target.int(), num_labels=logits.shape[1]).item()


@dataclass(frozen=True)
class FrequentPrecision:
    """The score of `tasks.multilabel` over the `frequent_labels` of a source alone, whatever is scored."""

    source: str

    def __call__(self, logits, target):
        kept = frequent_labels(self.source)
        return occurring_average_precision(logits[:, kept], target[:, kept])


@dataclass(frozen=True)
class FrequentIoU:
    """The score of `tasks.segmentation` over the background and the `frequent_labels` of a source alone, those that occur in
    the targets: no stray pixel of a class that is not there changes what the mean is over."""

    source: str
    num_classes: int

    def __call__(self, kept, targets):
        from torchmetrics.functional.classification import multiclass_jaccard_index

        each = multiclass_jaccard_index(kept.long(), targets.long(), num_classes=self.num_classes, average="none",
                                        ignore_index=VOID)
        wanted = {0, *(1 + label for label in frequent_labels(self.source))}
        return 100 * each[sorted(wanted & set(targets.unique().tolist()))].mean().item()


def frequent_labels(source):
    """Numbers of the labels that at least `least` photos of a source's test split have, a list."""
    table = source_table(source)
    labels = torch.tensor(table[table["split"] == source_named(source).test]["label"].tolist())
    return (labels.sum(0) >= source_named(source).least).nonzero()[:, 0].tolist()


def _world_task(core, **more):
    """The `WorldTask` of a task of the core, with what else it has, or has instead."""
    return WorldTask(**vars(core) | more)


_LABELS = {"layout": "multi", "score": _macro_average_precision}
_TEXT = {"modality": "text", "lr_scale": 4.0}
EDGES = {"metric": "odsF", "score": edge_score, "keep": None}
_FINE = {"layout": "multi", "fine": True, "lr_scale": 4.0}

TASKS = {task.name: task for task in (
    _world_task(multilabel(10, "mlc"), **_LABELS),
    _world_task(classification(100, "ic100"), layout="number"),
    _world_task(classification(10, "ic10"), layout="single"),
    _world_task(segmentation(11, "ss"), layout="multi", lr_scale=4.0),
    _world_task(classification(10, "tc10"), layout="single", **_TEXT),
    _world_task(classification(10, "tcleft"), layout="number", **_TEXT),
    _world_task(segmentation(11, "semseg"), **_FINE),
    _world_task(segmentation(5, "parts"), **_FINE),
    _world_task(segmentation(2, "saliency"), **_FINE),
    _world_task(segmentation(2, "edges"), **EDGES, **_FINE),
    _world_task(classification(10, "largest"), layout="multi"),
    _world_task(classification(10, "brightest"), layout="multi"),
    _world_task(multilabel(10, "upper"), **_LABELS),
    _world_task(retrieval(1, "pairs"), layout="single"),
    _world_task(retrieval(1, "public_pairs"), layout="single", of_public=True),
)}

REAL_KINDS = {          # of tasks on real data, "kind@source": its maker in the core, and what else it has
    "class": (classification, {}), "labels": (multilabel, {}), "pixels": (segmentation, {"lr_scale": 4.0}),
    "saliency": (segmentation, {"lr_scale": 4.0, "made_of": dense_labels.objects}),
    "edges": (segmentation, EDGES | {"lr_scale": 4.0, "made_of": dense_labels.outlines}),
    "text": (classification, _TEXT), "pairs": (retrieval, {}), "public_pairs": (retrieval, {"of_public": True}),
}


def task_named(name):
    """The `WorldTask` of that name: one of `TASKS`, or "kind@source" on real data.

    kind: "class" (a photo's), "labels" (which occur in a photo), "pixels" (the class at each, the background being one),
    "saliency" (whether there is an object), "edges" (whether there is an outline of one), "text" (the class of a text),
    "pairs" (which of its texts belongs to a photo) or "public_pairs" (the same, of the public ones).
    Raises ValueError for an unknown kind or source, or a source without labels.
    """
    if name in TASKS:
        return TASKS[name]
    kind, _, source = name.partition("@")
    if not source:
        raise ValueError(f"task: got {name!r}, expected one of {tuple(TASKS)}, or <kind>@<source> on real data")
    number = source_named(source).num_classes
    if kind in ("pairs", "public_pairs"):
        make, more = REAL_KINDS[kind]
        return _world_task(make(1, name), source=source, **more)
    if number is None:
        raise ValueError(f"task: got {name!r}, expected a source with labels")
    make, more = REAL_KINDS[one_of("task: kind", kind, REAL_KINDS)]
    if source_named(source).least and kind in ("labels", "pixels"):
        more = more | {"score": FrequentPrecision(source) if kind == "labels" else FrequentIoU(source, number + 1)}
    outputs = 2 if "made_of" in more else number + 1 if kind == "pixels" else number
    return _world_task(make(outputs, name), source=source, **more)

"""Samples by row: of tensors, of a Dataset, or of the Dataset behind a DataLoader."""

from dataclasses import dataclass, replace

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, default_collate

from .checks import finite


@dataclass(frozen=True)
class Samples:
    """`size` samples; `take(rows)` -> (inputs, targets) of a tensor of row numbers, targets None where there are none.

    inputs, targets: tensors with a row a sample; or dataset, collate: read and joined at each use, so that its transforms act.
    """

    size: int
    inputs: torch.Tensor | None = None
    targets: torch.Tensor | None = None
    dataset: Dataset | None = None
    collate: object = default_collate

    def take(self, rows):
        if self.dataset is None:
            return self.inputs.index_select(0, rows), None if self.targets is None else self.targets[rows]
        batch = self.collate([self.dataset[row] for row in rows.tolist()])
        return tuple(batch) if isinstance(batch, (list, tuple)) else (batch, None)

    def slices(self, batch_size):
        """The inputs of all samples in order, `batch_size` at a time."""
        for rows in torch.arange(self.size).split(batch_size):
            yield self.take(rows)[0]

    def all_targets(self):
        if self.dataset is None:
            return self.targets
        return torch.cat([self.take(rows)[1] for rows in torch.arange(self.size).split(256)])

    def first(self, count):
        """The first `count` samples, or all there are."""
        rows = range(min(count, self.size))
        if self.dataset is not None:
            return replace(self, size=len(rows), dataset=Subset(self.dataset, rows))
        return Samples(len(rows), self.inputs[:count], None if self.targets is None else self.targets[:count])

    def with_inputs(self, inputs):
        """The same samples with other inputs, such as features that were kept."""
        return replace(self, inputs=inputs, targets=self.all_targets(), dataset=None)


def samples(who, data):
    """`Samples` of (inputs, targets), a map-style Dataset that gives such pairs, or a DataLoader of one.

    Raises ValueError, saying `who` has them, for anything else, none at all, unequal numbers of inputs and targets, NaN and
    infinity in tensors.
    """
    if isinstance(data, Samples):
        return data
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, (Dataset, DataLoader)):
        found = _of_dataset(who, data)
        one = found.take(torch.tensor([0]))
        if len(one) != 2 or not isinstance(one[1], torch.Tensor):
            kinds = ", ".join(type(part).__name__ for part in one if part is not None)
            raise ValueError(f"{who}: got samples of {kinds}, expected pairs of an input and a target, tensors or numbers")
        return found
    if not (isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, torch.Tensor) for part in data)):
        raise ValueError(f"{who}: got {_named(data)}, expected a pair of tensors (inputs, targets), a Dataset or a DataLoader")
    inputs, targets = data
    if inputs.ndim < 2 or targets.ndim < 1 or len(inputs) != len(targets) or not len(inputs):
        raise ValueError(f"{who}: got inputs of shape {tuple(inputs.shape)} and targets of shape {tuple(targets.shape)}, "
                         "expected a row of both for each sample, and at least one")
    return Samples(len(inputs), _finite(f"{who}: inputs", inputs).cpu(), _finite(f"{who}: targets", targets).cpu())


def unlabelled(who, data):
    """As `samples`, of inputs alone: a tensor (n, ..), a Dataset or a DataLoader; targets that a Dataset has are not used."""
    if isinstance(data, Samples):
        return data
    if isinstance(data, torch.Tensor):
        if data.ndim < 2 or not len(data):
            raise ValueError(f"{who}: got a tensor of shape {tuple(data.shape)}, expected a row for each sample, and at least "
                             "one")
        return Samples(len(data), _finite(who, data).cpu())
    if isinstance(data, TensorDataset):
        return unlabelled(who, data.tensors[0])
    if isinstance(data, (Dataset, DataLoader)):
        return _of_dataset(who, data)
    raise ValueError(f"{who}: got {_named(data)}, expected a tensor (n, ..), a Dataset or a DataLoader")


def _of_dataset(who, data):
    dataset, collate = (data.dataset, data.collate_fn) if isinstance(data, DataLoader) else (data, default_collate)
    if isinstance(dataset, IterableDataset) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise ValueError(f"{who}: got {type(dataset).__name__}, expected a map-style Dataset: with a length, read by row")
    if not len(dataset):
        raise ValueError(f"{who}: got an empty {type(dataset).__name__}, expected at least one sample")
    return Samples(len(dataset), dataset=dataset, collate=collate)


def _finite(who, tensor):
    return finite(who, tensor) if tensor.is_floating_point() else tensor


def _named(data):
    inside = f" of {', '.join(type(part).__name__ for part in data)}" if isinstance(data, (tuple, list)) else ""
    return f"{type(data).__name__}{inside}"

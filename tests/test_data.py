"""Samples by row, wherever they come from."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from fedmuscle_core.data import samples, unlabelled
from fedmuscle_core.network import in_batches

INPUTS, TARGETS = torch.arange(14.0).view(7, 2), torch.arange(7)
ROWS = torch.tensor([4, 0, 4])


class Read(Dataset):
    """Samples that are made when they are read: `transform` of (input, target)."""

    def __init__(self, size=7, transform=lambda one, target: (one, target)):
        self.size, self.transform, self.reads = size, transform, []

    def __len__(self):
        return self.size

    def __getitem__(self, row):
        self.reads.append(row)
        return self.transform(INPUTS[row], int(TARGETS[row]))


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(INPUTS, TARGETS, strict=True))


class Counted(Stream):
    def __len__(self):
        return 7


class Boundless(Dataset):
    def __getitem__(self, row):
        return INPUTS[row % 7], 0


SOURCES = {"tensors": lambda: (INPUTS, TARGETS), "a list of them": lambda: [INPUTS, TARGETS],
           "TensorDataset": lambda: TensorDataset(INPUTS, TARGETS), "Dataset": Read,
           "DataLoader": lambda: DataLoader(Read(), batch_size=3, shuffle=True, drop_last=True),
           "DataLoader of tensors": lambda: DataLoader(TensorDataset(INPUTS, TARGETS), batch_size=2)}


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_rows_are_those_asked_for_in_their_order(make):
    found = samples("train", make())
    inputs, targets = found.take(ROWS)
    assert torch.equal(inputs, INPUTS[ROWS]) and torch.equal(targets, TARGETS[ROWS]) and found.size == 7
    assert torch.equal(found.all_targets(), TARGETS)
    parts = list(found.slices(3))
    assert [len(part) for part in parts] == [3, 3, 1] and torch.equal(torch.cat(parts), INPUTS)


@pytest.mark.parametrize("make", SOURCES.values(), ids=SOURCES)
def test_the_first_samples_and_other_inputs_keep_their_targets(make):
    found = samples("train", make())
    few = found.first(3)
    assert few.size == 3 and torch.equal(torch.cat(list(few.slices(2))), INPUTS[:3])
    assert torch.equal(few.all_targets(), TARGETS[:3]) and torch.equal(few.take(torch.tensor([2]))[0], INPUTS[2:3])
    assert found.first(100).size == 7
    other = found.with_inputs(-INPUTS)
    assert torch.equal(other.take(ROWS)[0], -INPUTS[ROWS]) and torch.equal(other.take(ROWS)[1], TARGETS[ROWS])


PUBLIC = {"tensor": lambda: INPUTS, "TensorDataset": lambda: TensorDataset(INPUTS), "with targets": SOURCES["TensorDataset"],
          "Dataset": lambda: Read(transform=lambda one, target: one), "Dataset with targets": Read,
          "DataLoader": lambda: DataLoader(Read(transform=lambda one, target: one), batch_size=2)}


@pytest.mark.parametrize("make", PUBLIC.values(), ids=PUBLIC)
def test_public_samples_are_inputs_alone(make):
    found = unlabelled("public", make())
    assert torch.equal(found.take(ROWS)[0], INPUTS[ROWS]) and found.size == 7
    assert torch.equal(torch.cat(list(found.slices(4))), INPUTS)
    assert torch.equal(found.first(2).take(torch.tensor([1]))[0], INPUTS[1:2])
    if make in (PUBLIC["tensor"], PUBLIC["TensorDataset"], PUBLIC["with targets"]):
        assert found.take(ROWS)[1] is None and found.all_targets() is None


def test_samples_that_are_there_stay_as_they_are():
    found = samples("train", (INPUTS, TARGETS))
    assert samples("train", found) is found and unlabelled("public", found) is found


def test_transforms_act_at_every_use():
    rng = torch.Generator().manual_seed(0)
    found = samples("train", Read(transform=lambda one, target: (one + torch.rand(2, generator=rng), target)))
    first, second = (found.take(ROWS)[0] for _ in range(2))
    assert not torch.equal(first, second) and (first - INPUTS[ROWS]).abs().max() < 1


def test_no_more_is_read_than_asked_for():
    dataset = Read()
    found = samples("train", dataset)
    dataset.reads.clear()
    found.take(ROWS)
    assert dataset.reads == ROWS.tolist()


def test_a_loader_joins_samples_in_its_own_way():
    """Texts of unequal length, padded."""
    def padded(batch):
        longest = max(len(one) for one, _ in batch)
        rows = torch.stack([nn.functional.pad(one, (0, longest - len(one))) for one, _ in batch])
        return rows, torch.tensor([target for _, target in batch])
    words = Read(transform=lambda one, target: (torch.ones(1 + target), target))
    found = samples("train", DataLoader(words, batch_size=2, collate_fn=padded))
    inputs, targets = found.take(torch.tensor([1, 3]))
    assert inputs.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]] and targets.tolist() == [1, 3]


def test_functions_over_samples_go_slice_by_slice():
    sizes = []
    for data in (samples("train", (INPUTS, TARGETS)), samples("train", Read()), INPUTS):
        found = in_batches(lambda part: sizes.append(len(part)) or 2 * part, data, batch_size=3)
        assert torch.equal(found, 2 * INPUTS)
    assert sizes == [3, 3, 1] * 3


@pytest.mark.parametrize(("data", "message"), [
    (INPUTS, r"got Tensor, expected a pair of tensors \(inputs, targets\), a Dataset or a DataLoader"),
    ((INPUTS,), "got tuple of Tensor, expected a pair"),
    ((INPUTS, [0] * 7), "got tuple of Tensor, list, expected a pair"),
    (TensorDataset(INPUTS, TARGETS, TARGETS), "got tuple of Tensor, Tensor, Tensor, expected a pair"),
    ({"inputs": INPUTS}, "got dict, expected a pair"),
    ((INPUTS, TARGETS[:6]), r"got inputs of shape \(7, 2\) and targets of shape \(6,\), expected a row of both for each"),
    ((INPUTS[:, 0], TARGETS), r"got inputs of shape \(7,\)"),
    ((INPUTS, torch.tensor(1)), r"targets of shape \(\), expected"),
    ((INPUTS, TARGETS / 0), "targets: got NaN or infinity in 7 of 7 entries, expected finite"),
    ((INPUTS[:0], TARGETS[:0]), r"got inputs of shape \(0, 2\) .*, and at least one"),
    (Read(0), "got an empty Read, expected at least one sample"),
    (Read(transform=lambda one, target: one), "got samples of Tensor, expected pairs of an input and a target"),
    (Read(transform=lambda one, target: (one, target, 1)), "got samples of Tensor, Tensor, Tensor, expected pairs"),
    (Read(transform=lambda one, target: (one, {"class": target})), "got samples of Tensor, dict, expected pairs"),
    (DataLoader(Read(), collate_fn=lambda batch: batch[0][0]), "got samples of Tensor, expected pairs"),
    (Stream(), "got Stream, expected a map-style Dataset: with a length, read by row"),
    (Counted(), "got Counted, expected a map-style Dataset"),
    (Boundless(), "got Boundless, expected a map-style Dataset"),
    (DataLoader(Stream()), "got Stream, expected a map-style Dataset"),
])
def test_what_are_no_samples_is_refused_with_the_name_of_their_owner(data, message):
    with pytest.raises(ValueError, match=f"client 3: train: .*{message}"):
        samples("client 3: train", data)


@pytest.mark.parametrize(("data", "message"), [
    ((INPUTS, TARGETS), r"got tuple of Tensor, Tensor, expected a tensor \(n, ..\), a Dataset or a DataLoader"),
    (None, "got NoneType, expected a tensor"),
    (INPUTS[:0], r"got a tensor of shape \(0, 2\), expected a row for each sample, and at least one"),
    (TARGETS, r"got a tensor of shape \(7,\), expected a row"),
    (Read(0), "got an empty Read"), (DataLoader(Stream()), "got Stream, expected a map-style Dataset"),
])
def test_what_are_no_public_samples_is_refused(data, message):
    with pytest.raises(ValueError, match=f"client 3: public: {message}"):
        unlabelled("client 3: public", data)

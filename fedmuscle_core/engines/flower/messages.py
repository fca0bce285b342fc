"""What travels, as Flower's records."""

import json

import torch


def packed(value):
    """A Flower `RecordDict` of a message, or any nest of lists and mappings of tensors, numbers and words."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

    arrays = []

    def plain(part):
        if isinstance(part, torch.Tensor):
            part = part.detach().cpu().contiguous()
            half = part.dtype == torch.bfloat16                               # which NumPy does not have
            arrays.append(Array((part.view(torch.int16) if half else part).numpy()))
            return {"tensor": len(arrays) - 1, "bfloat16": half}
        if isinstance(part, dict):
            return {"items": [[name, plain(inner)] for name, inner in part.items()]}
        return [plain(inner) for inner in part] if isinstance(part, (list, tuple)) else part

    text = json.dumps(plain(value))
    return RecordDict({"message": ConfigRecord({"json": text}),
                       "tensors": ArrayRecord({str(place): array for place, array in enumerate(arrays)})})


def unpacked(record):
    """What `packed` was given; tuples come back as lists."""
    arrays = record["tensors"]

    def whole(part):
        if isinstance(part, list):
            return [whole(inner) for inner in part]
        if not isinstance(part, dict):
            return part
        if "tensor" in part:
            tensor = torch.from_numpy(arrays[str(part["tensor"])].numpy().copy())
            return tensor.view(torch.bfloat16) if part["bfloat16"] else tensor
        return {name: whole(inner) for name, inner in part["items"]}

    return whole(json.loads(record["message"]["json"]))


def weight(record):
    """Bytes of a packed message: its arrays as Flower serialises them, and its text."""
    return len(record["message"]["json"]) + sum(len(array.data) for array in record["tensors"].values())


def refuse_what_stays(method):
    """ValueError for a method whose messages cannot leave the process."""
    if method.stays:
        raise ValueError(f"engine: got 'flower' with {method.label}, expected a method that can travel: {method.stays}")

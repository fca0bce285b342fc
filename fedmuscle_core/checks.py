"""Checks of what a loss is given.  Every failure is a ValueError: which argument, what came, what was expected."""

import torch


def embeddings(name, value, like=None):
    """`value` must be a finite floating-point (B, d) tensor with B, d >= 1, of the shape and device of `like`."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name}: got {type(value).__name__}, expected a torch.Tensor of shape (B, d)")
    if not value.is_floating_point():
        raise ValueError(f"{name}: got dtype {value.dtype}, expected a floating-point tensor")
    if value.ndim != 2 or 0 in value.shape:
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected (B, d) with B >= 1 and d >= 1")
    if like is not None and value.shape != like.shape:
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected {tuple(like.shape)} as the anchor has (B, d)")
    if like is not None and value.device != like.device:
        raise ValueError(f"{name}: got device {value.device}, expected {like.device} as the anchor has")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name}: got NaN or infinity in {(~torch.isfinite(value)).sum().item()} of {value.numel()} "
                         "entries, expected finite numbers")
    return value


def peer_stack(peers, anchor):
    """(M, B, d) constant tensor in the anchor's dtype from a (M, B, d) tensor or a sequence of M tensors (B, d)."""
    if isinstance(peers, torch.Tensor) and peers.ndim != 3:
        raise ValueError(f"peers: got shape {tuple(peers.shape)}, expected (M, B, d) or a sequence of M tensors (B, d)")
    if not isinstance(peers, (torch.Tensor, list, tuple)):
        raise ValueError(f"peers: got {type(peers).__name__}, expected a (M, B, d) tensor or a sequence of M tensors (B, d)")
    if len(peers) == 0:
        raise ValueError("peers: got M = 0 peers, expected at least 1")
    checked = [embeddings(f"peers[{m}]", peer, like=anchor).detach().to(anchor.dtype) for m, peer in enumerate(peers)]
    return torch.stack(checked)


def temperature(name, value, size, like):
    """(size, size) tensor of positive temperatures from a number or a symmetric matrix; `like` gives dtype and device.

    Where size > 1 the diagonal has no meaning in the loss: it is not checked and comes back as 1.
    """
    try:
        matrix = torch.as_tensor(value, dtype=torch.float64, device=like.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: got {value!r}, expected a number or a ({size}, {size}) matrix") from error
    if matrix.ndim == 0:
        matrix = matrix.expand(size, size)
    if matrix.shape != (size, size):
        raise ValueError(f"{name}: got shape {tuple(matrix.shape)}, expected a number or a ({size}, {size}) matrix")
    off_diagonal = ~torch.eye(size, dtype=torch.bool, device=like.device) | (size == 1)
    given = matrix[off_diagonal]
    if not (torch.isfinite(given).all() and (given > 0).all()):
        raise ValueError(f"{name}: got {value!r}, expected finite temperatures above 0")
    matrix = torch.where(off_diagonal, matrix, 1).detach()
    if not torch.equal(matrix, matrix.T):
        raise ValueError(f"{name}: got an asymmetric matrix {value!r}, expected a symmetric one")
    return matrix


def no_zero_row(name, value):
    """No row of `value` (.., d) may be all zeros: it cannot be scaled to unit length."""
    zero = (value == 0).all(-1).sum().item()
    if zero:
        raise ValueError(f"{name}: got {zero} rows of zeros, expected rows with a direction (or normalize=False)")


def one_of(name, value, allowed):
    """`value` must be one of the strings `allowed`."""
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}, expected one of {tuple(allowed)}")
    return value


def positive_int(name, value, least=1):
    """`value` must be an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: got {value!r}, expected an integer of at least {least}")
    return value

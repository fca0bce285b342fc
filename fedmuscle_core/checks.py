"""Checks of arguments.  Every failure is a ValueError: which argument, what came, what was expected."""

import torch


def embeddings(name, value, like=None, called="the anchor"):
    """`value` must be floating-point (B, d) with B, d >= 1, of the shape and device of `like`, which errors call `called`."""
    if not isinstance(value, torch.Tensor):
        raise ValueError(f"{name}: got {type(value).__name__}, expected a torch.Tensor of shape (B, d)")
    if not value.is_floating_point():
        raise ValueError(f"{name}: got dtype {value.dtype}, expected a floating-point tensor")
    if value.ndim != 2 or 0 in value.shape:
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected (B, d) with B >= 1 and d >= 1")
    if like is not None and value.shape != like.shape:
        raise ValueError(f"{name}: got shape {tuple(value.shape)}, expected {tuple(like.shape)} as {called} has (B, d)")
    if like is not None and value.device != like.device:
        raise ValueError(f"{name}: got device {value.device}, expected {like.device} as {called} has")
    return value


def true_of(name, condition):
    """bool of a tensor made from `name`; a NotImplementedError inside of `torch.vmap`, where values cannot be read."""
    try:
        return bool(condition)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        raise NotImplementedError(f"{name}: got a tensor inside torch.vmap, expected one outside of it, as its values are "
                                  "checked: call the loss once for each") from error


def finite(name, value):
    """`value` must hold no NaN and no infinity."""
    if not true_of(name, torch.isfinite(value).all()):
        bad = (~torch.isfinite(value)).sum().item()
        raise ValueError(f"{name}: got NaN or infinity in {bad} of {value.numel()} entries, expected finite numbers")
    return value


def peer_stack(peers, anchor):
    """(M, B, d) constant tensor in the anchor's dtype from a (M, B, d) tensor or a sequence of M tensors (B, d)."""
    if isinstance(peers, torch.Tensor) and peers.ndim != 3:
        raise ValueError(f"peers: got shape {tuple(peers.shape)}, expected (M, B, d) or a sequence of M tensors (B, d)")
    if not isinstance(peers, (torch.Tensor, list, tuple)):
        raise ValueError(f"peers: got {type(peers).__name__}, expected a (M, B, d) tensor or a sequence of M tensors (B, d)")
    if len(peers) == 0:
        raise ValueError("peers: got M = 0 peers, expected at least 1")
    if isinstance(peers, torch.Tensor):
        embeddings("peers[0]", peers[0], like=anchor)
    else:
        peers = torch.stack([embeddings(f"peers[{m}]", peer, like=anchor).to(anchor.dtype) for m, peer in enumerate(peers)])
    return peers.detach().to(anchor.dtype)


def temperature(name, value, size, like):
    """(size, size) float64 tensor of positive temperatures from a number or a symmetric matrix, on the device of `like`.

    Where size > 1 the diagonal of a matrix has no meaning in the loss: it is not checked and comes back as 1.
    """
    if isinstance(value, bool) or isinstance(value, torch.Tensor) and (value.requires_grad or value.is_complex()):
        raise ValueError(f"{name}: got {value!r}, expected real constants: no gradient flows to a temperature")
    least, most = torch.finfo(like.dtype).tiny, torch.finfo(like.dtype).max
    wanted = f"expected finite temperatures above 0, {least:.2g} to {most:.2g}"
    if isinstance(value, (int, float)):
        if not least <= value <= most:
            raise ValueError(f"{name}: got {value!r}, {wanted}")
        return torch.full((size, size), float(value), dtype=torch.float64, device=like.device)
    try:
        matrix = torch.as_tensor(value, dtype=torch.float64, device=like.device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{name}: got {value!r}, expected a number or a ({size}, {size}) matrix") from error
    if matrix.ndim == 0:
        return temperature(name, matrix.item(), size, like)
    if matrix.shape != (size, size):
        raise ValueError(f"{name}: got shape {tuple(matrix.shape)}, expected a number or a ({size}, {size}) matrix")
    off_diagonal = ~torch.eye(size, dtype=torch.bool, device=like.device) | (size == 1)
    given = matrix[off_diagonal]
    if not ((given >= least) & (given <= most)).all():
        raise ValueError(f"{name}: got {value!r}, {wanted}")
    matrix = torch.where(off_diagonal, matrix, 1)
    if not torch.equal(matrix, matrix.T):
        raise ValueError(f"{name}: got an asymmetric matrix {value!r}, expected a symmetric one")
    return matrix


def temperatures(tau, tau_prev, num_peers, like):
    """`tau` as (M+1, M+1) and `tau_prev` as (M, M), see `temperature`; every pair of peers needs tau_prev <= tau."""
    if type(tau) in (int, float) and type(tau_prev) in (int, float) and 0 < tau_prev <= tau:
        return temperature("tau", tau, num_peers + 1, like), temperature("tau_prev", tau_prev, num_peers, like)
    given = tau_prev
    tau = temperature("tau", tau, num_peers + 1, like)
    tau_prev = temperature("tau_prev", tau_prev, num_peers, like)
    is_number = torch.as_tensor(given).ndim == 0
    pairs = ~torch.eye(num_peers, dtype=torch.bool, device=like.device)
    of_peers = tau[1:, 1:]
    if num_peers == 1:                                                        # no pair of peers: only a number is checked
        pairs, of_peers = torch.full_like(pairs, is_number), tau[:1, 1:]
    too_high = (tau_prev > of_peers) & pairs
    if too_high.any():
        raise ValueError(f"tau_prev: got {tau_prev[too_high][0]:.4g} above tau = {of_peers[too_high][0]:.4g}, "
                         "expected at most the tau of the same pair, so that gamma = 1/tau_prev - 1/tau >= 0")
    return tau, tau_prev


def unit_rows(name, value):
    """The rows of `value` (.., d) scaled to unit length.  Each must have a direction, and a norm whose square is in range."""
    norm = torch.linalg.vector_norm(value, dim=-1, keepdim=True)
    least, most = 1e-12, torch.finfo(value.dtype).max ** 0.5
    if not true_of(name, ((norm >= least) & (norm <= most)).all()):
        finite(name, value)
        if zero := (value == 0).all(-1).sum().item():
            raise ValueError(f"{name}: got {zero} rows of zeros, expected rows with a direction (or normalize=False)")
        largest = value.detach().double().abs().amax(-1)
        norms = largest * torch.linalg.vector_norm(value.detach().double() / largest[..., None], dim=-1)
        raise ValueError(f"{name}: got rows of norm {norms.min():.2g} to {norms.max():.2g}, expected {least:.2g} to {most:.2g}")
    return value / norm


def one_of(name, value, allowed):
    """`value` must be one of the strings `allowed`."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"{name}: got {value!r}, expected one of {tuple(allowed)}")
    return value


def positive_int(name, value, least=1):
    """`value` must be an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: got {value!r}, expected an integer of at least {least}")
    return value


def number(name, value, *, above=None, least=None, below=float("inf")):
    """`value` must be a finite number above `above`, or of at least `least`, and below `below`."""
    low = above if least is None else least
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and (
        value > above if least is None else value >= least) and value < below
    if not fits:
        lower = f"above {low}" if least is None else f"of at least {low}"
        upper = "" if below == float("inf") else f" and below {below}"
        raise ValueError(f"{name}: got {value!r}, expected a finite number {lower}{upper}")
    return value


def boolean(name, value):
    """`value` must be True or False."""
    if not isinstance(value, bool):
        raise ValueError(f"{name}: got {value!r}, expected True or False")
    return value

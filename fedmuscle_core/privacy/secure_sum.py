"""Sums that hide their parts: pairwise masks that cancel, after Bonawitz et al. (2017), "Practical secure aggregation".

Where a server needs a sum alone, as of parameters or kernels, it need not see what is summed.  Numbers become integers modulo
2^64 with BITS binary places; each pair of clients adds and takes off the same random mask.  One upload by itself is uniformly
distributed, the sum of the integers is exact.  Clients that drop out and agreement on seeds are the protocol's, not shown here.
"""

import numpy as np
import torch

BITS = 24
LARGEST = 2 ** (62 - BITS)     # of a sum's size


def masked(values, client, clients, seed_of):
    """The upload of one client, uint64: `values`, a float tensor, in fixed point, plus its masks.

    clients: names of all, sorted alike by all.  seed_of(one, other): the integer that a pair shares, one before other in that
    order; another one for every sum: two uploads under one mask give away their difference.
    Raises ValueError for a client that is none of them, for NaN, or numbers whose sum over the clients may leave the range.
    """
    places = {name: place for place, name in enumerate(clients)}
    if client not in places:
        raise ValueError(f"client: got {client!r}, expected one of {list(clients)}")
    most = values.abs().max().item() if values.numel() else 0.0
    if not most * len(clients) < LARGEST:
        raise ValueError(f"values: got {most:g} with {len(clients)} clients, expected a sum below {LARGEST:g}")
    found = np.round(values.double().cpu().numpy().reshape(-1) * 2 ** BITS).astype(np.int64).astype(np.uint64)
    for other in clients:
        if other != client:
            pair = sorted((client, other), key=places.get)
            mask = np.random.Generator(np.random.Philox(seed_of(*pair))).integers(0, 2 ** 64, found.shape, dtype=np.uint64)
            found = found + mask if client == pair[0] else found - mask
    return found.reshape(values.shape)


def unmasked_sum(uploads):
    """The sum of what all clients uploaded, float64 tensor."""
    total = np.stack([upload.reshape(-1) for upload in uploads]).sum(0, dtype=np.uint64)              # modulo 2^64
    return torch.from_numpy(total.astype(np.int64) / 2 ** BITS).view(uploads[0].shape)

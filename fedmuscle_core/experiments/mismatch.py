"""How far the public data lie from a client's private data, as its representation model sees them before the first round."""

import pandas as pd
import torch
import torch.nn.functional as F

from ..alignment import uniformity
from ..network import in_batches
from .build import build


def mmd(x, y):
    """Unbiased squared maximum mean discrepancy of the samples x (n, d) and y (m, d); about 0 for one law, at most 2.

        mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j),   k(a, b) = exp(-|a - b|^2 / s)

    s: median squared distance over all pairs of the pooled sample.  Raises ValueError for fewer than two rows.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"x, y: got {len(x)} and {len(y)} rows, expected at least two of each")
    both = torch.cat([x, y]).double()
    squares = torch.cdist(both, both).square()
    off = ~torch.eye(len(both), dtype=torch.bool)
    kernel = (-squares / squares[off].median().clamp(min=torch.finfo(torch.float64).tiny)).exp()
    n, own = len(x), off[: len(x), : len(x)]
    return (kernel[:n, :n][own].mean() + kernel[n:, n:][off[n:, n:]].mean() - 2 * kernel[:n, n:].mean()).item()


def public_mismatch(settings, samples=256):
    """One row a client before its first round (pretrained backbone, fresh projection): client, task, domain, seed, mmd of
    private to public representations (unit length, `samples` of each or all there are), and `uniformity` of the public ones
    (0: all are one point).  settings: of a method that reads public data."""
    rows = []
    for client in build(settings).clients:
        client.network.eval()
        private, public = (F.normalize(in_batches(client.network.representation, data.inputs[:samples]), dim=1)
                           for data in (client.data["train"], client.public))
        rows.append((client.name, client.task.name, settings.public_domain, settings.seed, mmd(private, public),
                     uniformity(public)))
    return pd.DataFrame(rows, columns=["client", "task", "domain", "seed", "mmd", "uniformity"])

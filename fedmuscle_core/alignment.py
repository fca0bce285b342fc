"""How alike the clients' representations of the same images are."""

import pandas as pd
import torch
import torch.nn.functional as F

from .losses import near_one


def unit(x):
    """The rows of x (n, d) at unit length; NaN where a row has no direction."""
    x = near_one(x, rows=True)
    return x / torch.linalg.vector_norm(x, dim=1, keepdim=True)


def linear_cka(x, y):
    """Linear centred kernel alignment of two sets of representations (n, d_x), (n, d_y) of the same n images: in [0, 1]; NaN
    where all images have one representation."""
    x, y = near_one(x), near_one(y)
    x, y = x - x.mean(0), y - y.mean(0)
    return ((x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())).item()


def retrieval(x, y):
    """Share of the n rows of x (n, d) whose nearest row of y (n, d) by cosine is the same image; chance is 1/n."""
    cosines = unit(x) @ unit(y).T
    hits = cosines.argmax(1) == torch.arange(len(x))
    return hits.float().mean().item() if torch.isfinite(cosines).all() else float("nan")


def squared_distance(x, y):
    """Alignment after Wang and Isola (2020): mean over n of |x_i - y_i|^2 of unit-length rows, in [0, 4]; 0 is aligned."""
    return (unit(x) - unit(y)).square().sum(1).mean().item()


def uniformity(x):
    """Uniformity after Wang and Isola (2020): log of the mean over pairs of exp(-2 |x_i - x_j|^2), unit-length rows; 0 where
    all rows are one point, lower where they spread over the sphere."""
    return F.pdist(unit(x)).square().mul(-2).exp().mean().log().item()


def alignment_matrices(representations):
    """{"cka", "retrieval", "distance": (N, N), "uniformity": (N,)} nested lists, of N clients' representations (n, d)."""
    pairs = {name: [[round(measure(x, y), 6) for y in representations] for x in representations]
             for name, measure in (("cka", linear_cka), ("retrieval", retrieval), ("distance", squared_distance))}
    return {**pairs, "uniformity": [round(uniformity(x), 6) for x in representations]}


def summaries(matrices):
    """One row {measure, value} for each of `alignment_matrices`: the mean over pairs of different clients, or over clients."""
    rows = []
    for name, values in matrices.items():
        values = torch.tensor(values)
        apart = ~torch.eye(len(values), dtype=torch.bool)
        rows.append((name, (values[apart] if values.ndim == 2 else values).mean().item()))
    return pd.DataFrame(rows, columns=["measure", "value"])

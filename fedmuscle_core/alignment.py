"""How alike the clients' representations of the same images are."""

import torch
import torch.nn.functional as F


def linear_cka(x, y):
    """Linear centred kernel alignment of two sets of representations (n, d_x), (n, d_y) of the same n images: in [0, 1]."""
    x, y = x - x.mean(0), y - y.mean(0)
    return ((x.T @ y).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())).item()


def retrieval(x, y):
    """Share of the n rows of x (n, d) whose nearest row of y (n, d) by cosine is the same image; chance is 1/n."""
    nearest = (F.normalize(x, dim=1) @ F.normalize(y, dim=1).T).argmax(1)
    return (nearest == torch.arange(len(x))).float().mean().item()


def alignment_matrices(representations):
    """{"cka": (N, N), "retrieval": (N, N)} nested lists, of N clients' representations, a list of (n, d)."""
    return {name: [[round(measure(x, y), 6) for y in representations] for x in representations]
            for name, measure in (("cka", linear_cka), ("retrieval", retrieval))}

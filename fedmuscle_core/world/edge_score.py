"""odsF, the score of edge detection: the best F over thresholds that are the same for the whole data set.

After the Berkeley benchmark (Martin, Fowlkes and Malik, 2004), without its MATLAB code.  At a threshold, predicted and true
edge pixels of a scene are matched one to one, as many as can be, no two farther apart than the tolerance;

    precision = matched / predicted,   recall = matched / true,   F = 2 P R / (P + R) = 2 matched / (predicted + true)

with the counts summed over all scenes before F is taken, and odsF = max over thresholds of F.  Our choices: a tolerance of one
pixel (theirs is 0.0075 of the diagonal: a third of a pixel here), nine thresholds, and no thinning of the predictions, whose
thick lines cost precision, as each true pixel matches one.
"""

import itertools

import numpy as np
import scipy
import torch

THRESHOLDS = tuple(round(0.1 * number, 1) for number in range(1, 10))


def ods_f(strength, truth, tolerance=1.0, thresholds=THRESHOLDS):
    """odsF in [0, 1]; 0 where there is neither a predicted nor a true edge pixel.

    strength: (n, H, W) edge probabilities; truth: (n, H, W), edges where not 0; tolerance in pixels.
    Raises ValueError where the shapes differ, a strength is not in [0, 1], the tolerance is negative or no threshold is given.
    """
    if strength.ndim != 3 or strength.shape != truth.shape:
        raise ValueError(f"truth: got shape {tuple(truth.shape)} with strengths {tuple(strength.shape)}, "
                         "expected both (n, H, W)")
    if not ((strength >= 0) & (strength <= 1)).all():
        raise ValueError("strength: got a value outside 0 to 1 or NaN, expected probabilities")
    if tolerance < 0:
        raise ValueError(f"tolerance: got {tolerance}, expected at least 0 pixels")
    if not thresholds:
        raise ValueError("thresholds: got none, expected at least one")
    true, best = truth != 0, 0.0
    predicted = {threshold: strength >= threshold for threshold in thresholds}
    highest = {threshold: _all_matched(found, true) for threshold, found in predicted.items()}
    for threshold in sorted(thresholds, key=highest.get, reverse=True):
        if highest[threshold] > best:                                         # else matching could change nothing
            best = max(best, f_score(*edge_counts(predicted[threshold], true, tolerance)))
    return best


def _all_matched(predicted, true):
    """F where as many pixels are matched as there can be."""
    sizes = int(predicted.sum()), int(true.sum())
    return f_score(min(sizes), *sizes)


def f_score(matched, predicted, true):
    """2 matched / (predicted + true), 0 where nothing is there."""
    return 2 * matched / (predicted + true) if predicted + true else 0.0


def edge_counts(predicted, true, tolerance):
    """(matched, predicted, true): numbers of edge pixels of boolean (n, H, W) tensors, all scenes together.

    One maximum matching of the bipartite graph whose sides are all predicted and all true pixels: scenes share no link.
    """
    found, wanted = predicted.numpy(), true.numpy()
    number = np.cumsum(wanted.ravel()).reshape(wanted.shape) - 1              # of every true pixel
    own = np.cumsum(found.ravel()).reshape(found.shape) - 1
    rows, columns = [], []
    for dy, dx in _offsets(tolerance):
        here, there = _shifted(found.shape, dy, dx)
        both = found[here] & wanted[there]
        rows.append(own[here][both])
        columns.append(number[there][both])
    rows, columns = np.concatenate(rows), np.concatenate(columns)
    links = scipy.sparse.csr_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(found.sum(), wanted.sum()))
    matched = int((scipy.sparse.csgraph.maximum_bipartite_matching(links, perm_type="column") >= 0).sum()) if len(rows) else 0
    return matched, int(found.sum()), int(wanted.sum())


def _offsets(tolerance):
    reach = range(-int(tolerance), int(tolerance) + 1)
    return [(dy, dx) for dy, dx in itertools.product(reach, reach) if dy * dy + dx * dx <= tolerance * tolerance]


def _shifted(shape, dy, dx):
    """Slices of a (n, H, W) array and of the array moved by (dy, dx), of equal shape."""
    def pair(size, move):
        return slice(max(0, -move), size - max(0, move)), slice(max(0, move), size - max(0, -move))
    (top, top_moved), (left, left_moved) = pair(shape[1], dy), pair(shape[2], dx)
    return (slice(None), top, left), (slice(None), top_moved, left_moved)


def edge_score(logits, target):
    """`ods_f` in percent of class logits (n, 2, H, W), class 1 being the edge, and truth (n, H, W)."""
    return 100 * ods_f(logits.softmax(1)[:, 1], torch.as_tensor(target))

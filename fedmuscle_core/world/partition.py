"""Non-IID private data: the clients of one task share its scenes unequally, class by class.

Class of a scene: its first digit in reading order, for every task (our choice: a multi-label scene has no single label); of
real data see `real.splits.sample_classes`.
For every class the clients' shares are drawn from a symmetric Dirichlet law: a small concentration gives it to few of them.
"""

import numpy as np
import torch

from ..seeds import generator, stream_seed

NUM_CLASSES = 10
LEAST = 16                 # scenes that every client must have: shares that leave one with fewer are drawn again
TRIES = 1000


def first_digits(scenes):
    """(n,) the first digit of every scene in reading order."""
    first = (scenes.classes >= 0).int().argmax(1)
    return scenes.classes.gather(1, first[:, None])[:, 0]


def split_by_class(classes, sizes, concentration, seed, *names, num_classes=NUM_CLASSES):
    """Rows of each client, a list of sorted tensors that make up all rows, and the shares (num_classes, clients) they follow.

    sizes: scenes that each client would have in the IID case; its expected share is in proportion.  concentration: of
    Dirichlet(concentration * sizes / mean size).  Raises ValueError where no draw gives every client LEAST scenes, or
    a quarter of an equal part where that is less.
    """
    sizes = np.asarray(sizes, dtype=float)
    rng = np.random.default_rng(stream_seed(seed, *names, "shares"))
    order, least = generator(seed, *names, "rows"), max(1, min(LEAST, len(classes) // (4 * len(sizes))))
    for _ in range(TRIES):
        shares = rng.dirichlet(concentration * sizes / sizes.mean(), num_classes)
        rows = deal(classes, shares, order)
        if min(map(len, rows)) >= least:
            return rows, shares
    raise ValueError(f"dirichlet: got {concentration}, for which {TRIES} draws left a client with fewer than {least} scenes")


def deal(classes, shares, order):
    """Rows of each client, a list of sorted tensors: every sample goes to one, by the shares of its class.

    classes: (n,); shares: (num_classes, clients); order: a torch generator.
    """
    owner = torch.multinomial(torch.tensor(shares)[classes] + 1e-12, 1, generator=order)[:, 0]
    return [(owner == client).nonzero()[:, 0] for client in range(shares.shape[1])]


def like(classes, proportions):
    """Rows of as many scenes as can be had with these class proportions, (NUM_CLASSES,): a sorted tensor.

    Each class gives its first scenes; classes of less than a thousandth are left out.  Raises ValueError where there is no
    scene of a class that is asked for.
    """
    proportions = np.asarray(proportions) / np.sum(proportions)
    counts = np.bincount(classes, minlength=NUM_CLASSES)
    asked = proportions > 1e-3
    if missing := np.flatnonzero(asked & (counts == 0)).tolist():
        raise ValueError(f"classes: got no scene of {missing}, expected some of every class asked for: use more scenes")
    total = (counts[asked] / proportions[asked]).min()
    rows = [(classes == name).nonzero()[:round(total * proportions[name]), 0] for name in np.flatnonzero(asked)]
    return torch.cat(rows).sort().values

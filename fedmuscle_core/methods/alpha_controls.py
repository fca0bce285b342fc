"""What else learned alpha could be: a constant margin, or any weights of that spread.  Controls, not methods to choose among.

Where FedMuscle is no better than `ConstantMargin` at its best margin, alpha is a margin; where it is no better than
`ShuffledAlpha`, whose weights are the same numbers at the wrong tuples, it matters that weights vary, not which tuples they
favour.
"""

from dataclasses import dataclass

import torch

from ..checks import number, one_of
from ..losses import pair_log_alpha
from ..seeds import generator
from ..tuple_sum import TupleLogSum, exact
from .fedmuscle import FedMuscle, Pairwise


def margin_loss(anchor, peers, tau, margin):
    """alpha = 1 and a margin:  mean_i sum_m logsumexp_j (z_i . z^m_j / tau - margin [i = j]) - (z_i . z^m_i / tau - margin).

    anchor (B, d), peers (M, B, d), unit rows; margin in nats, 0: the sum of the InfoNCE losses.
    """
    logits = anchor @ peers.mT / tau                                          # (M, B, B)
    logits = logits - margin * torch.eye(len(anchor), dtype=logits.dtype, device=logits.device)
    return (logits.logsumexp(2) - logits.diagonal(dim1=1, dim2=2)).sum(0).mean()


def shuffled_loss(anchor, peers, tau, tau_prev, rng):
    """The Muscle loss, see `losses.muscle_loss`, with the B^2 numbers log alpha of every pair of peers in random order.

    anchor (B, d), peers (M, B, d), unit rows; tau, tau_prev: numbers; rng: torch.Generator.
    """
    num_peers, batch_size, _ = peers.shape
    ones = torch.ones(num_peers + 1, num_peers + 1, dtype=torch.float64)
    table = pair_log_alpha(peers, tau * ones, tau_prev * ones[1:, 1:]).flatten(2)
    orders = torch.rand(table.shape, generator=rng).argsort(2).to(table.device)
    table = table.gather(2, orders).view(num_peers, num_peers, batch_size, batch_size).detach()
    logits = anchor @ peers.mT / tau
    own = logits.diagonal(dim1=1, dim2=2).sum(0) + table.diagonal(dim1=2, dim2=3).sum((0, 1))
    return (TupleLogSum.apply(logits, table, exact)[0] - own).mean()


@dataclass(frozen=True)
class ConstantMargin(Pairwise):
    """alpha = 1 with a `margin` in nats on every positive pair, see `margin_loss`.  Further hyperparameters: see `Pairwise`."""

    name, label, colour, group = "constant_margin", "Constant margin", "#a16207", "control"
    grid = {"contrastive_lr": (1e-4, 3e-4, 1e-3), "margin": (0.5, 1.0, 2.0, 4.0)}

    margin: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        number("margin", self.margin, least=0)
        check_plain(self)

    def loss(self, client, anchor, payload, kinds, where):
        return margin_loss(anchor, *payload, self.temperatures(kinds)[0], self.margin)


@dataclass(frozen=True)
class ShuffledAlpha(FedMuscle):
    """Learned alpha at the wrong tuples, see `shuffled_loss`.  Hyperparameters: see `FedMuscle`."""

    name, label, colour, group = "shuffled_alpha", "Shuffled alpha", "#64748b", "control"

    def __post_init__(self):
        super().__post_init__()
        check_plain(self)
        if self.num_samples:
            raise ValueError(f"num_samples: got {self.num_samples}, expected 0: all tuples are summed")

    def loss(self, client, anchor, payload, kinds, where):
        rng = generator(client.seed, "shuffled alpha", client.name, *where)
        return shuffled_loss(anchor, *payload, *self.temperatures(kinds), rng)


def check_plain(method):
    """ValueError unless a control gets its peers' representations, and has one temperature for all pairs."""
    one_of("protocol", method.protocol, ("matrices",))
    if method.tau_cross is not None:
        raise ValueError(f"tau_cross: got {method.tau_cross}, expected None with {method.label}: all pairs have tau")

"""What travels between clients and server in a contrastive step, in two protocols, and the ledger of its bytes.

Every client uploads its representations of the public batch, B*d numbers.  Downlink, to a client with M peers:
"tuples" [paper]: S (B^M, d), the sums over every tuple, and log alpha (B^M,): the client sees sums of peers' rows only.
"matrices" [ours]: the peers' M*B*d numbers; the client computes the rest: same loss, same gradients, far fewer bytes,
but it sees each peer's representations one by one.
"""

import pandas as pd
import torch

from . import checks
from .losses import muscle_loss, pair_log_alpha

PROTOCOLS = ("matrices", "tuples")


def downlink(peers, protocol, tau, tau_prev, weighting="learned"):
    """The payload for one client, a tuple of tensors, from its peers' unit-length representations (M, B, d)."""
    checks.one_of("protocol", protocol, PROTOCOLS)
    return (peers,) if protocol == "matrices" else tuple_payload(peers, tau, tau_prev, weighting)


def loss_from_downlink(anchor, payload, protocol, tau, tau_prev, weighting="learned", num_samples=0, generator=None):
    """Muscle loss of `anchor` (B, d), unit rows, from what `downlink` sent; the same scalar in both protocols.

    num_samples: tuples drawn an anchor with `generator` ("matrices" only); 0 for the exact sum.
    """
    if protocol == "tuples":
        return tuple_loss(anchor, *payload)
    sampling = {"estimator": "sampled", "num_samples": num_samples, "generator": generator} if num_samples else {}
    return muscle_loss(anchor, *payload, tau=tau, tau_prev=tau_prev, weighting=weighting, normalize=False, **sampling)


def tuple_payload(peers, tau, tau_prev, weighting="learned"):
    """S (B^M, d) with S_j = sum_m z^m_{j_m} / tau_m, and log alpha (B^M,), tuples in lexicographic order.

    The paper sends alpha and undivided sums; the division lets every pair have its own temperature, and the logarithm
    cannot overflow.  The sizes are the same.
    """
    num_peers, batch_size, _ = peers.shape
    tau, tau_prev = checks.temperatures(tau, tau_prev, num_peers, like=peers)
    rows = torch.cartesian_prod(*[torch.arange(batch_size)] * num_peers).view(-1, num_peers)    # (B^M, M)
    sums = sum(peers[m, rows[:, m]] / tau[0, m + 1].to(peers) for m in range(num_peers))
    log_alpha = peers.new_zeros(len(rows))
    if weighting == "learned":
        pairs = pair_log_alpha(peers, tau, tau_prev)
        for m in range(num_peers):
            for k in range(m + 1, num_peers):
                log_alpha += pairs[m, k, rows[:, m], rows[:, k]]
    return sums, log_alpha


def tuple_loss(anchor, sums, log_alpha):
    """Mean Muscle loss of `anchor` (B, d), unit rows, from S and log alpha, all B^M tuples written out."""
    logits = anchor @ sums.T + log_alpha                                      # (B, B^M)
    batch_size = len(anchor)
    stride, own = 1, 0
    while stride < len(sums):
        own, stride = own + stride, stride * batch_size
    positive = logits.gather(1, torch.arange(batch_size, device=anchor.device)[:, None] * own)[:, 0]
    return (logits.logsumexp(1) - positive).mean()


def bytes_per_step(batch_size, num_peers, dim, protocol, itemsize=4):
    """Closed form: (uplink, downlink) bytes of one client in one contrastive step; float32 has itemsize 4."""
    checks.one_of("protocol", protocol, PROTOCOLS)
    up = batch_size * dim
    down = num_peers * batch_size * dim if protocol == "matrices" else batch_size ** num_peers * (dim + 1)
    return up * itemsize, down * itemsize


class Ledger:
    """Counts the bytes of every payload really exchanged, by round, client and direction ("up" or "down")."""

    def __init__(self):
        self.entries = {}

    def send(self, payload, *, round, client, direction):
        """Record a tensor, or a sequence of them, and hand it on."""
        tensors = [payload] if isinstance(payload, torch.Tensor) else payload
        size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        key = (round, client, checks.one_of("direction", direction, ("up", "down")))
        self.entries[key] = self.entries.get(key, 0) + size
        return payload

    def total(self, round, client):
        """Bytes up and down of one client in one round."""
        return self.entries.get((round, client, "up"), 0) + self.entries.get((round, client, "down"), 0)

    def table(self):
        """One row per (round, client, direction) with its bytes."""
        rows = [(*key, size) for key, size in sorted(self.entries.items())]
        return pd.DataFrame(rows, columns=["round", "client", "direction", "bytes"])

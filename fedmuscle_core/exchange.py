"""The boundary between clients and server: messages, what is checked and counted there, and the two protocols of the Muscle
loss.

A message is a mapping of names to tensors, numbers, words, or lists of these; nothing else travels.  A method asks its clients
by stages: each names a client function, the message of each client, and what a good reply holds.

Downlink of a contrastive step, to a client with M peers, in two protocols:
"tuples" [paper]: S (B^M, d), the sums over every tuple, and log alpha (B^M,): the client sees sums of peers' rows only.
"matrices" [ours]: the peers' M*B*d numbers; the client computes the rest: same loss, same gradients, far fewer bytes,
but it sees each peer's representations one by one.
"""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch

from . import checks
from .losses import muscle_loss, pair_log_alpha

PROTOCOLS = ("matrices", "tuples")


class Stage(NamedTuple):
    """The server asks `clients` to call the method's client function `function` on `message_of(client)` each.

    check(client, reply): raises ValueError, without the client's name, where a reply is not what it should be; None: not
    checked.
    uncounted: names of what is in a message for measurement alone, which the ledger leaves out.  ends: whether the clients'
    round is over after it, so that what they are asked next can go along in the same message.
    """

    function: str
    clients: list
    message_of: Callable
    check: Callable | None = None
    uncounted: tuple = ()
    ends: bool = False


def expect(reply, like, finite=True):
    """Raise ValueError where the tensors of `reply` are not those of `like`, {name: tensor}: names, shapes, types, and, with
    `finite`, finite values."""
    sent = {name: value for name, value in reply.items() if isinstance(value, torch.Tensor)}
    for name in sorted(like.keys() - sent.keys()):
        raise ValueError(f"got {type(reply[name]).__name__ if name in reply else 'nothing'} as {name!r}, expected "
                         f"{_described(like[name])}")
    for name, value in sorted(sent.items()):
        if name not in like:
            raise ValueError(f"got a tensor {name!r} of shape {tuple(value.shape)}, expected no such tensor")
        if value.shape != like[name].shape or value.dtype != like[name].dtype:
            raise ValueError(f"got {name!r} as {_described(value)}, expected {_described(like[name])}")
        if finite and value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(f"got NaN or infinity in {name!r}, expected finite numbers")


def _described(tensor):
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"


def size_of(value):
    """Bytes of the tensors in a message, or a part of it; numbers and words are for steering and the log, and count nothing."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    return sum(map(size_of, value)) if isinstance(value, (list, tuple)) else 0


class Ledger:
    """Counts the bytes of every message really exchanged, by round, client and direction ("up" or "down")."""

    def __init__(self):
        self.entries = {}

    def send(self, message, *, round, client, direction, uncounted=()):
        """Record a message, without its `uncounted` names, and hand it on."""
        key = (round, client, checks.one_of("direction", direction, ("up", "down")))
        if size := size_of({name: value for name, value in message.items() if name not in uncounted}):
            self.entries[key] = self.entries.get(key, 0) + size
        return message

    def total(self, round, client):
        """Bytes up and down of one client in one round."""
        return self.entries.get((round, client, "up"), 0) + self.entries.get((round, client, "down"), 0)

    def table(self):
        """One row per (round, client, direction) with its bytes."""
        rows = [(*key, size) for key, size in sorted(self.entries.items())]
        return pd.DataFrame(rows, columns=["round", "client", "direction", "bytes"])


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

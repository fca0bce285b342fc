"""The boundary between clients and server: messages, what is checked and counted there, and the two protocols of the Muscle
loss.

A message is a mapping of names to tensors, numbers, words, or lists of these; nothing else travels.  A method asks its clients
by stages: each names a client function, the message of each client, and what a good reply holds.

Downlink of a contrastive step, to a client with M peers, in two protocols:
"tuples" [paper]: S (B^M, d), the sums over every tuple, and log alpha (B^M,): the client sees sums of peers' rows only.
"matrices" [ours]: the peers' M*B*d numbers; the client computes the rest: same loss, same gradients, far fewer bytes,
but it sees each peer's representations one by one.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import pandas as pd
import torch

from . import checks
from .losses import muscle_loss, pair_log_alpha

PROTOCOLS = ("matrices", "tuples")
LARGEST = torch.finfo(torch.float32).max              # of a number in a reply: what is beyond it counts as infinite
HIGHEST = 1e12      # of a value in a tensor (our choice): running variances of inputs of 16 bits are below 1e10


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


class Diverged(ValueError):
    """Numbers that training should not give in what a client sent, be it a loss: NaN, infinity, or far too large ones.

    client, round: whose, and when.
    """

    def __init__(self, message, client=None, round=None):
        super().__init__(message)
        self.client, self.round = client, round


def expect(reply, like, finite=True):
    """Raise ValueError where `reply` is not as `like` says, {name: tensor, or `float` for a number}: names, shapes and types.
    Beside these it may hold further numbers, as methods measure things, and nothing else.

    Tensors must be dense and without a graph.  Raises `Diverged` for NaN, infinity and what is beyond HIGHEST, of tensors only
    with `finite`.
    """
    for name, wanted in like.items():
        if name not in reply:
            raise ValueError(f"got nothing as {name!r}, expected {_described(wanted)}")
    for name, value in reply.items():
        wanted = like.get(name, float)
        if wanted is float:
            if not is_number(value):
                raise ValueError(f"got {_described(value)} as {name!r}, expected "
                                 f"{_described(wanted) if name in like else 'no such thing'}")
            if not abs(value) <= LARGEST:
                raise Diverged(f"{name.replace('_', ' ')} is {'NaN' if value != value else 'infinite'}")
        elif not isinstance(value, torch.Tensor):
            raise ValueError(f"got {_described(value)} as {name!r}, expected {_described(wanted)}")
        elif (value.shape, value.dtype) != (wanted.shape, wanted.dtype):
            raise ValueError(f"got {name!r} as {_described(value)}, expected {_described(wanted)}")
        elif value.layout != torch.strided or value.is_meta or value.requires_grad:
            raise ValueError(f"got a tensor that is sparse, empty or has a graph as {name!r}, expected plain numbers")
        elif finite and value.numel() and not (most := value.double().abs().max().item()) <= HIGHEST:
            got = f"{most:.3g}" if math.isfinite(most) else "NaN or infinity"
            raise Diverged(f"got {got} in {name!r}, expected finite numbers of at most {HIGHEST:g}")


def is_number(value):
    """Whether it is an integer or floating-point number, NaN and infinity among them."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _described(value):
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    return "a number" if value is float else type(value).__name__


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

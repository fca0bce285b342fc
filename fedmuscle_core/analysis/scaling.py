"""What a federation of FedMuscle costs a round, in closed form, and what breaks first when it grows."""

from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from ..checks import number, one_of, positive_int
from ..exchange import bytes_per_step
from ..methods.contrastive import REFRESHES

USUAL = {"clients": 30, "num_peers": 3, "batch_size": 32, "dim": 32}          # of the benchmark, one of which is varied


class Plan(NamedTuple):
    """A round of N clients of which a share takes part.  Bytes of float32 numbers; seconds by `Limits`.

    client_up, client_down: of one client that takes part.  server_in, server_out: of the server.  server_memory: what it keeps
    of uploads.  server_seconds: its own work.  link_seconds: its link, in and out together.  client_seconds: one client's link.
    waits: how often the server waits for its slowest client.
    """

    client_up: float
    client_down: float
    server_in: float
    server_out: float
    server_memory: float
    server_seconds: float
    link_seconds: float
    client_seconds: float
    waits: int


class Limits(NamedTuple):
    """server_link, client_link: bytes a second.  server_memory: bytes.  seconds: that a round may take.  server_work,
    server_draw: seconds of the server's own work for one client and step, and of it for each client there is to draw from, see
    `server_work`."""

    server_link: float = 1.25e9
    client_link: float = 1.25e6
    server_memory: float = 256e9
    seconds: float = 3600.0
    server_work: float = 1e-4
    server_draw: float = 1e-8


def plan(num_clients, *, num_peers=3, batch_size=32, dim=256, steps=60, public_size=5000, refresh="round", share=1.0,
         protocol="matrices", limits=None):
    """The `Plan` of a round.

    refresh "batch": T uploads of B d numbers a client, the server keeps one batch of those who take part; "round": one upload
    of the whole public set, P d numbers, which the server keeps of all clients, and draws peers for all of them.  Down, T times
    M B d numbers, or B^M (d + 1) with protocol "tuples".  Waits: for the upload and the step of every batch and the local
    phase, 2 T + 1, or once.
    """
    for name, value in (("num_clients", num_clients), ("num_peers", num_peers), ("batch_size", batch_size), ("dim", dim),
                        ("steps", steps), ("public_size", public_size)):
        positive_int(name, value)
    one_of("refresh", refresh, REFRESHES)
    if number("share", share, above=0) > 1:
        raise ValueError(f"share: got {share}, expected at most 1")
    limits, present = limits or Limits(), share * num_clients
    up, down = (steps * size for size in bytes_per_step(batch_size, num_peers, dim, protocol))
    kept, served, waits = 4 * present * batch_size * dim, present, 2 * steps + 1
    if refresh == "round":
        up, kept, served, waits = 4 * public_size * dim, 4 * num_clients * public_size * dim, num_clients, 1
    work = steps * (limits.server_work * present + limits.server_draw * served ** 2)
    return Plan(up, down, present * up, present * down, kept, work, present * (up + down) / limits.server_link,
                (up + down) / limits.client_link, waits)


def breaks(found, limits=None):
    """[(what, how many times its limit)] of a `Plan`, the worst first, those within their limit left out."""
    limits = limits or Limits()
    shares = {"the server's memory": found.server_memory / limits.server_memory,
              "the server's link": found.link_seconds / limits.seconds,
              "the server's work": found.server_seconds / limits.seconds,
              "a client's link": found.client_seconds / limits.seconds}
    return sorted(((what, times) for what, times in shares.items() if times > 1), key=lambda entry: -entry[1])


def server_work(rows):
    """(a, b): the server's own work for one client and step in seconds, a + b N, by least squares over the rows of
    `benchmarks.scaling` that differ in the number of clients N alone; neither below 0.

    Peers are drawn among all others, which is what grows.  Messages of other sizes than those measured cost more.
    """
    usual = [row for row in rows if all(row[name] == value for name, value in USUAL.items() if name != "clients")]
    counts = np.array([row["clients"] for row in usual], dtype=float)
    each = np.array([(row["seconds"] - row["client_seconds"]) / row["clients"] / row["steps"] for row in usual])
    found, _ = nnls(np.stack([np.ones_like(counts), counts], 1), each)
    return float(found[0]), float(found[1])

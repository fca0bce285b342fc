"""Encoder only: one encoder for all clients, decoders never leave them.

The sharing of FedPer (Arivazhagan et al., 2019) and FedRep (Collins et al., 2021): the server averages encoders over all
clients, weighted by their private scenes.  Encoder and decoder train together, as in FedPer; FedRep takes turns.
"""

from ..aggregation import mean_over_clients
from . import sharing


def play_round(federation, round):
    """One round."""
    return sharing.play(federation, round, merge, parts=("encoder",))


def merge(uploads, tasks):
    """The same encoder for every client, no decoders."""
    return dict.fromkeys(tasks, mean_over_clients(uploads)), {}

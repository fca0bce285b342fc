"""Encoder only: one encoder for all clients, decoders never leave them.

The sharing of FedPer (Arivazhagan et al., 2019) and FedRep (Collins et al., 2021): the server averages encoders over all
clients, weighted by their private samples.  Encoder and decoder train together, as in FedPer; FedRep takes turns.
"""

from dataclasses import dataclass

from ..aggregation import mean_over_clients
from .sharing import Sharing


@dataclass(frozen=True)
class EncoderOnly(Sharing):
    """No hyperparameters of its own."""

    name, label, colour = "encoder_only", "Encoder only", "#059669"
    exchanges, needs = "encoder up, the mean of all down", "one encoder architecture; a server that averages"
    parts = ("encoder",)

    def merge(self, uploads, tasks):
        """The same encoder for every client, no decoders."""
        return dict.fromkeys(tasks, mean_over_clients(uploads, self.averaged)), {}

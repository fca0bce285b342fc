"""Gramian: the exchange of FedMuscle with the Gramian contrastive loss (GRAM) in the place of the Muscle loss."""

from dataclasses import dataclass

from ..losses import gramian_loss
from .contrastive import WithPeers


@dataclass(frozen=True)
class Gramian(WithPeers):
    """The volume of the client's and its peers' vectors, contrasted.  Hyperparameters: see `contrastive.WithPeers`."""

    name, label, colour = "gramian", "Gramian", "#e11d48"

    def __post_init__(self):
        super().__post_init__()
        if self.peer_choice == "bandit":
            raise ValueError("peer_choice: got 'bandit', expected another with Gramian: its clients do not tell their loss")

    def serve(self, peers, kinds):
        return (peers,)

    def loss(self, client, anchor, payload, kinds, where):
        return gramian_loss(anchor, *payload, tau=self.tau, normalize=False)

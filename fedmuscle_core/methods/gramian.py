"""Gramian: the exchange of FedMuscle with the Gramian contrastive loss (GRAM) in the place of the Muscle loss."""

from ..losses import gramian_loss
from . import local
from .contrastive import contrastive_phase


def play_round(federation, round):
    """Contrastive phase with the volume of the client's and its peers' vectors, then local phase."""
    def loss_of(anchor, payload, members, number):
        return gramian_loss(anchor, *payload, tau=federation.settings.tau, normalize=False)

    losses = contrastive_phase(federation, round, lambda peers, members: (peers,), loss_of)
    return {"contrastive_loss": losses, **local.play_round(federation, round)}

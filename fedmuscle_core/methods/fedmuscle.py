"""FedMuscle: align representations of public batches with the Muscle loss, then train locally.

Pairwise is the paper's ablation: the same with alpha = 1.
"""

from ..exchange import downlink, loss_from_downlink
from ..server import pair_temperatures
from . import local
from .contrastive import contrastive_phase


def play_round(federation, round, weighting="learned"):
    """Contrastive phase, then local phase: a round ends locally, so that the heads follow the representations."""
    losses = muscle_phase(federation, round, weighting)
    return {"contrastive_loss": losses, **local.play_round(federation, round)}


def play_pairwise_round(federation, round):
    """The same round with alpha = 1."""
    return play_round(federation, round, weighting="uniform")


def muscle_phase(federation, round, weighting="learned"):
    """The contrastive phase with the Muscle loss, each pair of clients at its own temperature where modalities differ."""
    settings = federation.settings

    def temperatures(members):
        return pair_temperatures(settings, [client.task.modality for client in members])

    def serve(peers, members):
        return downlink(peers, settings.protocol, *temperatures(members), weighting)

    def loss_of(anchor, payload, members):
        return loss_from_downlink(anchor, payload, settings.protocol, *temperatures(members), weighting)

    return contrastive_phase(federation, round, serve, loss_of)

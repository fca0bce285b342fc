"""FedMuscle: align representations of public batches with the Muscle loss, then train locally.

Pairwise is the paper's ablation: the same with alpha = 1.
"""

import torch

from ..exchange import downlink, loss_from_downlink
from ..experiments.setups import SETUPS
from ..peers import credit
from ..seeds import generator
from ..server import pair_temperatures
from ..world.tasks import task_named
from . import local
from .contrastive import contrastive_phase


def play_round(federation, round, weighting="learned"):
    """Contrastive phase, then local phase: a round ends locally, so that the heads follow the representations."""
    used = {}
    losses = muscle_phase(federation, round, weighting, used)
    local_losses = local.play_round(federation, round)["local_loss"]
    if federation.settings.peer_choice == "bandit":
        _report_losses(federation, round, used, local_losses)
    return {"contrastive_loss": losses, "local_loss": local_losses}


def play_pairwise_round(federation, round):
    """The same round with alpha = 1."""
    return play_round(federation, round, weighting="uniform")


def muscle_phase(federation, round, weighting="learned", used=None):
    """The contrastive phase with the Muscle loss, pairs of distant clients at their own temperature.

    used: a dict to note every client's last peers in.
    """
    settings = federation.settings
    kinds = [getattr(task_named(spec.task), "modality" if settings.distant == "modality" else "name")
             for spec in SETUPS[settings.setup]]

    def temperatures(members):
        return pair_temperatures(settings, [kinds[index - 1] for index in members])

    def serve(peers, members):
        return downlink(peers, settings.protocol, *temperatures(members), weighting)

    def loss_of(anchor, payload, members, number):
        if used is not None:
            used[members[0]] = members[1:]
        draws = generator(settings.seed, "tuples", members[0], round, number) if settings.num_samples else None
        return loss_from_downlink(anchor, payload, settings.protocol, *temperatures(members), weighting,
                                  settings.num_samples, draws)

    return contrastive_phase(federation, round, serve, loss_of)


def _report_losses(federation, round, used, losses):
    """Every client uploads its local loss, one number; the server credits the peers of the round."""
    for client, loss in losses.items():
        federation.ledger.send(torch.tensor(loss), round=round, client=client, direction="up")
    if federation.losses and used:
        credit(federation.gains, used, federation.losses, losses)
    federation.losses = losses

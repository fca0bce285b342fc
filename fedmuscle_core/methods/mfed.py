"""M-Fed: one encoder for all clients, one decoder a task, and a decoder of its own for every client.

A reconstruction [ours]: the paper's loss was not found.  Client c of task t receives the encoder E and the task's decoder D_t,
trains E and its own D_c, and minimises, with D_t fixed,

    decoder_term "loss":      L(D_c(E(x))) + lam L(D_t(E(x)))
    decoder_term "distance":  L(D_c(E(x))) + lam (round / rounds) |D_c - D_t|^2, so that D_c comes to D_t in the end

The server takes D_t = mean over the task's clients, weighted by private scenes, and E = mean over tasks of the tasks' weighted
means.  `share` "encoder": decoders are not averaged, so there is no term either; "decoder": the encoder stays as it was
pretrained.  A client is scored with its own D_c; D_t serves training alone.
"""

import copy

from ..aggregation import mean_over_tasks, mean_per_task
from . import sharing

PARTS = {"both": ("encoder", "decoder"), "encoder": ("encoder",), "decoder": ("decoder",)}                 # by `share`


def play_round(federation, round):
    """One round."""
    settings = federation.settings

    def objective(client, received, round):
        if "encoder" not in received:
            freeze(client)
        return decoder_term(client, received["decoder"], settings, round) if settings.lam and "decoder" in received else None

    return sharing.play(federation, round, merge, PARTS[settings.share], personal=("decoder",), objective=objective)


def merge(uploads, tasks):
    """One encoder for all and one decoder a task, from what was uploaded."""
    encoders = dict.fromkeys(tasks, mean_over_tasks(uploads)) if uploads[0].encoder else {}
    return encoders, mean_per_task(uploads, "decoder") if uploads[0].decoder else {}


def decoder_term(client, decoder, settings, round):
    """The `extend` of `client.local_phase` that adds the term of the task's global `decoder`, a state."""
    if settings.decoder_term == "distance":
        weight = settings.lam * round / settings.rounds
        return lambda loss, step: loss + weight * sharing.squared_distance(client, {"decoder": decoder})
    fixed = copy.deepcopy(client.model).requires_grad_(False)
    fixed.decoder().load_state_dict(decoder)
    return lambda loss, step: loss + settings.lam * client.task.loss(fixed.decode(step.features), step.wanted)


def freeze(client):
    """Keep the client's encoder exactly as it is: no gradients, and no weight decay in the optimiser, which holds the decoder,
    too."""
    client.model.encoder().requires_grad_(False)
    client.local_optimizer.param_groups[0]["weight_decay"] = 0.0

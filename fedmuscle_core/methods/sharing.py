"""The round of the methods that exchange parameters: upload, aggregate, download, train locally.

The first round begins with what the server has, the encoder of client 1 and the decoder of each task's first client, and
nothing is uploaded; it ends locally, as a round of every method does.  Optimisers keep their state when parameters arrive
(our choice).
"""

import torch
import torch.nn.functional as F

from ..aggregation import Upload, accepted
from ..client import local_phase
from ..experiments.setups import SETUPS

PARTS = ("encoder", "decoder")
GRADIENT_SCENES = 32


def play(federation, round, merge, parts=PARTS, personal=(), objective=None):
    """One round.  Returns {metric: {client index: value}}: the local loss; the encoders' gradients, see `agreement`; left_out:
    1 for every client whose upload was refused.

    merge(uploads, tasks): ({client: encoder}, {task: decoder}) from the accepted `Upload`s; tasks: {client: task} of all.
    parts: what travels.  personal: parts that clients receive but do not take over after the first round.
    objective(client, received, round): the `extend` of the client's local phase, or None; received: {part: state}.
    """
    settings, server = federation.settings, federation.memory
    tasks = {index: spec.task for index, spec in enumerate(SETUPS[settings.setup], 1)}
    if round == 1:
        server.update(first_states(federation))
    else:
        gather(federation, round, merge, parts, tasks)
    losses, gradients = {}, {}
    for client in federation.clients:
        served = {"encoder": server["encoders"][client.index], "decoder": server["decoders"][tasks[client.index]]}
        received = {part: served[part] for part in parts}
        federation.ledger.send([value for state in received.values() for value in state.values()], round=round,
                               client=client.index, direction="down")
        if client.index in server["refused"]:
            start_anew(client, served)
        for part, state in received.items():
            if part not in personal or round == 1:
                getattr(client.model, part)().load_state_dict(state)
        extend = objective(client, received, round) if objective else None
        gradients[client.index] = encoder_gradient(client)
        losses[client.index] = local_phase(client, settings, round, extend)
    return {"local_loss": losses, **agreement(gradients, tasks), "left_out": dict.fromkeys(sorted(server["refused"]), 1.0)}


def first_states(federation):
    """What the server begins with: encoders {client: state}, decoders {task: state}, refused: clients left out last."""
    states = {client.index: (client.task.name, copied(client.model.encoder()), copied(client.model.decoder()))
              for client in federation.clients}
    decoders = {states[index][0]: states[index][2] for index in sorted(states, reverse=True)}
    return {"encoders": dict.fromkeys(sorted(states), states[min(states)][1]), "decoders": decoders, "refused": set()}


def gather(federation, round, merge, parts, tasks):
    """All clients upload; the server merges what it accepts.  Where nothing new comes, it keeps what it sent last."""
    server, uploads = federation.memory, []
    for client in federation.clients:
        states = {part: copied(getattr(client.model, part)()) if part in parts else None for part in PARTS}
        federation.ledger.send([value for state in states.values() if state for value in state.values()], round=round,
                               client=client.index, direction="up")
        uploads.append(Upload(client.index, client.task.name, len(client.data["train"][1]), **states))
    expected = {index: (task, server["encoders"][index], server["decoders"][task]) for index, task in tasks.items()}
    good = accepted(uploads, expected, parts, federation.settings.bad_uploads)
    server["refused"] = set(tasks) - {upload.client for upload in good}
    if good:
        encoders, decoders = merge(good, tasks)
        server["encoders"] |= encoders
        server["decoders"] |= decoders


def start_anew(client, served):
    """A client whose upload was refused takes all that the server has (its first decoder, where decoders stay private) and a
    fresh optimiser."""
    for part, state in served.items():
        getattr(client.model, part)().load_state_dict(state)
    client.local_optimizer.state.clear()


def encoder_gradient(client):
    """Gradient of the client's task loss with respect to its encoder, as one vector, on its first private scenes, at the
    parameters that it begins its local phase with; None where the encoder is frozen."""
    parameters = list(client.model.encoder().parameters())
    if not all(parameter.requires_grad for parameter in parameters):
        return None
    inputs, wanted = (values[:GRADIENT_SCENES].to(client.device) for values in client.data["train"])
    client.model.eval()
    loss = client.task.loss(client.model(inputs), wanted)
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])


def agreement(gradients, tasks):
    """How long the clients' encoder gradients are and how they agree, from {client: vector or None}: {metric: {client: value}}.

    gradient_norm: Euclidean length.  gradient_cosine_same, gradient_cosine_other: mean cosine to the other clients of the same
    task, and to those of other tasks; left out for a client that has none.  Vectors with NaN or infinity, of length 0, and None
    do not take part.
    """
    usable = {index: vector for index, vector in sorted(gradients.items())
              if vector is not None and torch.isfinite(vector).all() and vector.any()}
    found = {"gradient_norm": {index: vector.norm().item() for index, vector in usable.items()}}
    for name, same in (("gradient_cosine_same", True), ("gradient_cosine_other", False)):
        found[name] = {}
        for index, vector in usable.items():
            others = [usable[other] for other in usable if other != index and (tasks[other] == tasks[index]) == same]
            if others:
                found[name][index] = F.cosine_similarity(vector[None], torch.stack(others)).mean().item()
    return found


def squared_distance(client, received):
    """Sum over all parameters of the `received` parts {part: state} of the squared difference to the client's own."""
    return sum((own - state[name]).square().sum() for part, state in received.items()
               for name, own in getattr(client.model, part)().named_parameters())


def copied(module):
    """A module's state, apart from the module: {name: tensor}."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}

"""The round of the methods that exchange parameters: upload, aggregate, download, train locally.

The first round begins with what the server has, the encoder of client 1 and the decoder of each task's first client, and
nothing is uploaded; it ends locally, as a round of every method does.  Optimisers keep their state when parameters arrive
(our choice).
"""

import torch
import torch.nn.functional as F

from ..aggregation import Upload, accepted
from ..client import local_phase
from ..setups import SETUPS

PARTS = ("encoder", "decoder")


def play(federation, round, merge, parts=PARTS, personal=(), objective=None):
    """One round.  Returns {metric: {client index: value}}: the local loss, and how the encoders moved, see `movement`.

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
    losses, moved = {}, {}
    for client in federation.clients:
        served = {"encoder": server["encoders"][client.index], "decoder": server["decoders"][tasks[client.index]]}
        received = {part: served[part] for part in parts}
        federation.ledger.send([value for state in received.values() for value in state.values()], round=round,
                               client=client.index, direction="down")
        take_over(client, received, () if round == 1 else personal, client.index in server["refused"])
        before = vector(client.model.encoder())
        extend = objective(client, received, round) if objective else None
        losses[client.index] = local_phase(client, settings, round, extend)
        moved[client.index] = vector(client.model.encoder()) - before
    return {"local_loss": losses, **movement(moved, tasks)}


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
    good = accepted(uploads, expected, federation.settings.bad_uploads)
    server["refused"] = set(tasks) - {upload.client for upload in good}
    if good:
        encoders, decoders = merge(good, tasks)
        server["encoders"] |= encoders
        server["decoders"] |= decoders


def take_over(client, received, personal, refused):
    """Load what the client received, personal parts left out; one whose upload was refused loads all and starts anew."""
    for part, state in received.items():
        if part not in personal or refused:
            getattr(client.model, part)().load_state_dict(state)
    if refused:
        client.local_optimizer.state.clear()


def movement(moved, tasks):
    """How the encoders moved in a local phase, from {client: difference as a vector}: {metric: {client: value}}.

    update_norm: Euclidean length.  update_cosine_same, update_cosine_other: mean cosine to the other clients of the same task,
    and to those of other tasks; left out for a client that has none.
    """
    found = {"update_norm": {}, "update_cosine_same": {}, "update_cosine_other": {}}
    for index, vector in moved.items():
        found["update_norm"][index] = vector.norm().item()
        for name, same in (("update_cosine_same", True), ("update_cosine_other", False)):
            others = [other for other in sorted(moved) if other != index and (tasks[other] == tasks[index]) == same]
            if others:
                cosines = [F.cosine_similarity(vector, moved[other], dim=0).item() for other in others]
                found[name][index] = sum(cosines) / len(cosines)
    return found


def copied(module):
    """A module's state, apart from the module: {name: tensor}."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def vector(module):
    """All parameters of a module as one vector."""
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])

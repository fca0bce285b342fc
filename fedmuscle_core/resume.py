"""A run's state between two rounds, in one file: what a killed run goes on from, with the same result.

Randomness needs no place in it: every stream is named by seed, client and round.
"""

from pathlib import Path

import torch

from .placement import at_work


def trainable(model):
    """{name: tensor} of the parameters that learn; the others are those of the checkpoint the model began with."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def save_state(path, federation, round, rows, before):
    """Write the state after `round` to `path`, whole or not at all.  rows, before: of `federation.train`."""
    clients = {}
    for client in federation.clients:
        with at_work(client):
            clients[client.index] = {"model": {name: value.cpu() for name, value in trainable(client.model).items()},
                                     "local": client.local_optimizer.state_dict(),
                                     "contrastive": client.contrastive_optimizer.state_dict()}
    state = {"key": federation.settings.key(), "round": round, "rows": rows, "before": before,
             "ledger": federation.ledger.entries, "memory": federation.memory, "gains": federation.gains,
             "losses": federation.losses, "clients": clients}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    torch.save(state, temporary)
    temporary.replace(path)


def load_state(path, federation):
    """(round, rows, before) of the state in `path`, put into `federation`; (0, [], None) where there is none.

    Raises ValueError naming the file where it is of other settings or not whole.
    """
    if not Path(path).is_file():
        return 0, [], None
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:   # noqa: BLE001 - whatever is wrong with the file, the cure is the same
        raise ValueError(f"{path}: not a whole state of a run ({error}); delete it to begin anew") from error
    if state["key"] != federation.settings.key():
        raise ValueError(f"{path}: got the state of other settings ({state['key']}), expected {federation.settings.key()}; "
                         "delete it to begin anew")
    for client in federation.clients:
        saved = state["clients"][client.index]
        with at_work(client), torch.no_grad():
            for name, parameter in trainable(client.model).items():
                parameter.copy_(saved["model"][name])
            client.local_optimizer.load_state_dict(saved["local"])
            client.contrastive_optimizer.load_state_dict(saved["contrastive"])
    federation.ledger.entries = state["ledger"]
    federation.memory, federation.gains, federation.losses = state["memory"], state["gains"], state["losses"]
    return state["round"], [tuple(row) for row in state["rows"]], state["before"]

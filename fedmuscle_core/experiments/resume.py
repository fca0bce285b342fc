"""A run's state between two rounds, in one file: what a killed run goes on from, on a CPU with the same result to the last bit.

Randomness needs no place in it: every stream is named by seed, client and round.
"""

import time
from datetime import UTC, datetime
from pathlib import Path

import torch


def trainable(model):
    """{name: tensor} of the parameters that learn; the others are those of the checkpoint the model began with."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


class State:
    """The file `path` and what must be the same when a run goes on: `identity`, a JSON-like dict.

    seconds: what earlier processes spent on the run, known after `load`.
    """

    def __init__(self, path, identity):
        self.path, self.identity, self.seconds, self.begun = Path(path), identity, 0.0, time.perf_counter()

    def forget_if_older(self, moment):
        """Delete a file written before `moment` (ISO 8601, UTC; "" for never)."""
        if moment and self.path.is_file() and datetime.fromtimestamp(self.path.stat().st_mtime, UTC).isoformat() < moment:
            self.path.unlink()

    def save(self, federation, round, rows, before):
        """Write the state after `round`, whole or not at all.  rows, before: of `federation.train`."""
        clients = {client.index: {"model": {name: value.cpu() for name, value in trainable(client.model).items()},
                                  "local": client.local_optimizer.state_dict(),
                                  "contrastive": client.contrastive_optimizer.state_dict()} for client in federation.clients}
        state = {"key": federation.settings.key(), "identity": self.identity, "round": round, "rows": rows, "before": before,
                 "seconds": self.seconds + time.perf_counter() - self.begun, "ledger": federation.ledger.entries,
                 "memory": federation.memory, "gains": federation.gains, "losses": federation.losses, "clients": clients}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f"{self.path.name}.part")
        torch.save(state, temporary)
        temporary.replace(self.path)

    def load(self, federation):
        """(round, rows, before) of the file, put into `federation`; (0, [], None) where there is none.

        Raises ValueError naming the file where it is of other settings, data, backbones or another device, or not whole.
        """
        if not self.path.is_file():
            return 0, [], None
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
        except Exception as error:   # noqa: BLE001 - whatever is wrong with the file, the cure is the same
            raise ValueError(f"{self.path}: not a whole state of a run ({error}); delete it to begin anew") from error
        if (state.get("key"), state.get("identity")) != (federation.settings.key(), self.identity):
            raise ValueError(f"{self.path}: got the state of a run with other settings, data, backbones or another device; "
                             "expected the same as now: delete it to begin anew")
        for client in federation.clients:
            saved = state["clients"][client.index]
            with torch.no_grad():
                for name, parameter in trainable(client.model).items():
                    parameter.copy_(saved["model"][name])
            client.local_optimizer.load_state_dict(saved["local"])
            client.contrastive_optimizer.load_state_dict(saved["contrastive"])
        federation.ledger.entries, self.seconds = state["ledger"], state["seconds"]
        federation.memory, federation.gains, federation.losses = state["memory"], state["gains"], state["losses"]
        return state["round"], [tuple(row) for row in state["rows"]], state["before"]

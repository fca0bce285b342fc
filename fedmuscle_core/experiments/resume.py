"""A run's state between two rounds, in one file: what a killed run goes on from, on a CPU with the same result to the last
bit."""

import os
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

EVERY = 20.0    # seconds of training that a kill may cost at most, and one round


class State:
    """The file `path` and what must be the same when a run goes on: `identity`, a JSON-like dict.

    seconds: what earlier processes spent on the run, known after `load`.
    """

    def __init__(self, path, identity):
        self.path, self.identity, self.seconds = Path(path), identity, 0.0
        self.begun = self.saved = time.perf_counter()

    def forget_if_older(self, moment):
        """Delete a file written before `moment` (ISO 8601, UTC; "" for never)."""
        if moment and self.path.is_file() and datetime.fromtimestamp(self.path.stat().st_mtime, UTC).isoformat() < moment:
            self.path.unlink()

    def save(self, federation):
        """Write the state after a round, whole or not at all, where the last one is older than EVERY seconds."""
        now = time.perf_counter()
        if now - self.saved < EVERY or federation.round == federation.server.rounds:
            return
        state = {"identity": self.identity, "seconds": self.seconds + now - self.begun, "federation": federation.state()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.part")
        try:
            torch.save(state, temporary)
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self.saved = now

    def load(self, federation):
        """Put what the file holds into `federation`; nothing where there is none.

        Raises ValueError naming the file where it is of other settings, data, backbones or another device, or not whole.
        """
        if not self.path.is_file():
            return
        try:
            state = torch.load(self.path, weights_only=True, map_location="cpu")
        except Exception as error:   # noqa: BLE001 - whatever is wrong with the file, the cure is the same
            raise ValueError(f"{self.path}: not a whole state of a run ({error}); delete it to begin anew") from error
        if state.get("identity") != self.identity:
            raise ValueError(f"{self.path}: got the state of a run with other settings, data, backbones or another device; "
                             "expected the same as now: delete it to begin anew")
        federation.load(state["federation"])
        self.seconds = state["seconds"]

"""A run's state between two rounds, in one file: what a killed run goes on from, on a CPU with the same result to the last
bit."""

import contextlib
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

from ..files import load_state, save_state

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
        if moment and self.path.is_file():
            with contextlib.suppress(FileNotFoundError):                      # another process finished the run
                if datetime.fromtimestamp(self.path.stat().st_mtime, UTC).isoformat() < moment:
                    self.path.unlink()

    def save(self, federation):
        """Write the state after a round, whole or not at all, where the last one is older than EVERY seconds.

        A run goes on without its state where the file cannot be written, with a warning.
        """
        now = time.perf_counter()
        if now - self.saved < EVERY or federation.round == federation.server.rounds:
            return
        state = {"identity": self.identity, "seconds": self.seconds + now - self.begun, "federation": federation.state()}
        self.saved = now
        try:
            save_state(state, self.path)
        except OSError as error:
            warnings.warn(f"{error}; the run goes on, but a kill costs more than {EVERY:g} s", stacklevel=2)

    def load(self, federation):
        """Put what the file holds into `federation`; nothing where there is none, or, with a warning, a damaged one.

        Raises ValueError naming the file where it is of other settings, data, backbones or another device.
        """
        try:
            state = load_state(self.path)
        except FileNotFoundError:
            return
        except ValueError as error:
            warnings.warn(f"{error}; it is deleted and the run begins anew", stacklevel=2)
            self.path.unlink(missing_ok=True)
            return
        if state["identity"] != self.identity:
            raise ValueError(f"{self.path}: got the state of a run with other settings, data, backbones or another device; "
                             "expected the same as now: delete it to begin anew")
        federation.load(state["federation"])
        self.seconds = state["seconds"]

"""Flower carries the messages: between machines, where `flwr run` starts an app, or of clients that are simulated side by side.

An app is a `client_app`, a `server_app`, and what `fedmuscle flower init` writes around them.  One Flower message a client for
all that `exchange.Stage`s ask of it in one go.  A client keeps its state in a file and numbers the messages it has done: it
goes on after a restart, gives the same reply to the same message, and refuses what comes late.  Flower is the extra `[flower]`.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

from .client import client_app, learnt  # noqa: E402
from .messages import refuse_what_stays  # noqa: E402
from .server import server_app  # noqa: E402
from .simulation import Simulation  # noqa: E402

__all__ = ["client_app", "connect", "learnt", "server_app"]


def connect(federation):
    """The engine of `Federation.fit(engine="flower")`; ValueError where its method cannot travel or its clients are not all in
    memory."""
    refuse_what_stays(federation.method)
    if not isinstance(federation.clients, list):
        raise ValueError(f"clients: got {type(federation.clients).__name__}, expected a list to simulate")
    return Simulation(federation)

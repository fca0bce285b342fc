"""Local: every client trains alone; nothing is exchanged."""

from ..client import local_phase


def play_round(federation, round):
    """One local phase of every client."""
    return {"local_loss": {client.index: local_phase(client, federation.settings, round) for client in federation.clients}}

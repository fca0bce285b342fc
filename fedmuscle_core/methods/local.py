"""Local: every client trains alone; nothing is exchanged."""

from ..client import local_phase


def play_round(federation, round):
    """One local phase of every client."""
    settings = federation.settings
    losses = {client.index: local_phase(client, settings.local_epochs, settings.local_batch_size, round)
              for client in federation.clients}
    return {"local_loss": losses}

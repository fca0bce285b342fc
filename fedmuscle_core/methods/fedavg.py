"""FedAvg and FedProx within each task: what conventional federated learning can do where tasks differ.

The server takes the mean of encoder and decoder over the clients of a task, weighted by their private scenes; clients of
different tasks learn nothing from one another.  FedProx adds (mu / 2) |w - w_global|^2 to the local loss, w all parameters.
"""

from ..aggregation import mean_per_task
from . import sharing


def play_round(federation, round):
    """One round of FedAvg."""
    return sharing.play(federation, round, merge)


def play_proximal_round(federation, round):
    """One round of FedProx."""
    def objective(client, received, round):
        return lambda loss, step: loss + federation.settings.mu / 2 * sharing.squared_distance(client, received)
    return sharing.play(federation, round, merge, objective=objective)


def merge(uploads, tasks):
    """Encoders and decoders of every task by `aggregation.mean_per_task`."""
    encoders = mean_per_task(uploads, "encoder")
    return {index: encoders[task] for index, task in tasks.items() if task in encoders}, mean_per_task(uploads, "decoder")


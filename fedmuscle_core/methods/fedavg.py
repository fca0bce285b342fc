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
        return proximal_term(client, received, federation.settings.mu)
    return sharing.play(federation, round, merge, objective=objective)


def merge(uploads, tasks):
    """Encoders and decoders of every task by `aggregation.mean_per_task`."""
    encoders = mean_per_task(uploads, "encoder")
    return {index: encoders[task] for index, task in tasks.items() if task in encoders}, mean_per_task(uploads, "decoder")


def proximal_term(client, received, mu):
    """The `extend` of `client.local_phase` that adds (mu / 2) times the squared distance to the `received` states."""
    pairs = [(parameter, state[name]) for part, state in received.items()
             for name, parameter in getattr(client.model, part)().named_parameters()]

    def extend(loss, step):
        return loss + mu / 2 * sum((own - received).square().sum() for own, received in pairs)
    return extend

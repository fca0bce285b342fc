"""FedAvg and FedProx within each task: what conventional federated learning can do where tasks differ.

The server takes the mean of encoder and decoder over the clients of a task, weighted by their private samples; clients of
different tasks learn nothing from one another.  FedProx adds (mu / 2) |w - w_global|^2 to the local loss, w all parameters.
"""

from dataclasses import dataclass

from ..aggregation import mean_per_task
from ..checks import number
from .sharing import FURTHER_TERM, PARTS, RATES, Sharing, distance_to


@dataclass(frozen=True)
class FedAvg(Sharing):
    """No hyperparameters of its own."""

    name, label, colour = "fedavg", "FedAvg in task", "#d97706"
    exchanges = "encoder and decoder up, their task's means down"
    needs = "several clients of a task, one architecture; a server that averages"

    def merge(self, uploads, tasks):
        """Encoders and decoders of every task by `aggregation.mean_per_task`."""
        encoders, decoders = (mean_per_task(uploads, part, self.averaged) for part in PARTS)
        return {client: encoders[task] for client, task in tasks.items() if task in encoders}, decoders


@dataclass(frozen=True)
class FedProx(FedAvg):
    """mu: weight of the distance to what was received."""

    name, label, colour = "fedprox", "FedProx in task", "#7c2d12"
    grid = {"local_lr": RATES[1:], "mu": (1e-3, 1e-2, 1e-1, 1.0)}

    mu: float = 0.01

    def __post_init__(self):
        super().__post_init__()
        number("mu", self.mu, least=0)

    @property
    def tells(self):
        return super().tells or FURTHER_TERM

    def objective(self, client, received, message):
        if received:
            return lambda loss, step: loss + self.mu / 2 * distance_to(client, received)
        return None

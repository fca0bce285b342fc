"""Local: every client trains alone; nothing is exchanged."""

from dataclasses import dataclass

from ..method import Method


@dataclass(frozen=True)
class Local(Method):
    """No hyperparameters."""

    name, label, colour = "local", "Local", "#6b7280"
    grid = {"local_lr": (1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3), "local_batch_size": (8, 16)}

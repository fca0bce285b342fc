"""Local: every client trains alone; nothing is exchanged."""

from dataclasses import dataclass

from ..method import Method


@dataclass(frozen=True)
class Local(Method):
    """No hyperparameters."""

    name, label, colour = "local", "Local", "#6b7280"
    grid = ([{"local_lr": rate} for rate in (2.5e-4, 5e-4, 1e-3, 2e-3)], [])

"""A replication of FedMuscle (arXiv 2602.01626); see README.md.

Imports are lazy: `from fedmuscle_core import muscle_loss` loads torch and the losses, nothing else.
"""

import importlib

_HOME = {"muscle_loss": "losses", "info_nce": "losses", "gramian_loss": "losses", "mi_lower_bound": "losses",
         "Settings": "experiments.settings", "run": "experiments.runs", "sweep": "experiments.runs"}
__all__ = sorted(_HOME)
__version__ = "0.5.0"


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module 'fedmuscle_core' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__():
    return [*__all__, "__version__"]

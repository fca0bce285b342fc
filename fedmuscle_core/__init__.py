"""A replication of FedMuscle (arXiv 2602.01626) and M-Fed (arXiv 2504.09800); see README.md.

Imports are lazy: `from fedmuscle_core import muscle_loss` loads torch and the losses, nothing else.
"""

import importlib

_HOME = {
    "losses": ("muscle_loss", "info_nce", "gramian_loss", "nt_xent", "mi_lower_bound"),
    "client": ("Client", "Training"),
    "network": ("Network",),
    "federation": ("Federation",),
    "method": ("Method", "by_metric"),
    "exchange": ("Stage",),
    "tasks": ("Task", "classification", "multilabel", "segmentation"),
    "methods": ("Local", "SimCLR", "CoFED", "FedHeNN", "Gramian", "Pairwise", "FedMuscle", "FedAvg", "FedProx", "EncoderOnly",
                "MaTFL", "MFed", "Centralised"),
    "experiments.settings": ("Settings",),
    "experiments.setups": ("Setup", "ClientSpec"),
    "experiments.runs": ("run", "sweep"),
}
_MODULE_OF = {name: module for module, names in _HOME.items() for name in names}
__all__ = sorted(_MODULE_OF)
__version__ = "0.9.1"


def __getattr__(name):
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'fedmuscle_core' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__():
    return [*__all__, "__version__"]

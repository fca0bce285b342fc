"""The methods, one file each.  To add one: write the file, and import it here (or anywhere else, before it is used)."""

from ..checks import one_of
from ..method import METHODS
from .local import Local  # isort: skip
from .simclr import SimCLR  # isort: skip
from .cofed import CoFED  # isort: skip
from .fedhenn import FedHeNN  # isort: skip
from .gramian import Gramian  # isort: skip
from .fedmuscle import FedMuscle, Pairwise  # isort: skip
from .fedavg import FedAvg, FedProx  # isort: skip
from .encoder_only import EncoderOnly  # isort: skip
from .matfl import MaTFL  # isort: skip
from .mfed import MFed  # isort: skip
from .centralised import Centralised  # isort: skip

__all__ = ["METHODS", "Centralised", "CoFED", "EncoderOnly", "FedAvg", "FedHeNN", "FedMuscle", "FedProx", "Gramian", "Local",
           "MFed", "MaTFL", "Pairwise", "SimCLR", "method_named", "of_group"]


def method_named(name):
    """The class of that name; ValueError for one that no imported module defines."""
    return METHODS[one_of("method", name, METHODS)]


def of_group(group):
    """Names of the methods that are "aligning" or "sharing", see `Method.group`."""
    return tuple(name for name, method in METHODS.items() if method.group == group)

# ruff: noqa: F401, I001 - imported to be known, in the order of tables
"""The methods, one file each.  To add one: write the file, and import it here (or anywhere else, before it is used)."""

from ..checks import one_of
from ..method import METHODS
from .local import Local
from .simclr import SimCLR, SimCLRSamples
from .cofed import CoFED
from .fedhenn import FedHeNN
from .gramian import Gramian
from .fedmuscle import FedMuscle, FedMuscleViews, Pairwise
from .fedavg import FedAvg, FedProx
from .encoder_only import EncoderOnly
from .matfl import MaTFL
from .mfed import MFed, MFedProximal
from .centralised import Centralised
from .muscle_mfed import MFedPerArchitecture, MuscleMFed
from .traced import TracedFedMuscle
from .creamfl import CreamFL, CreamFLMuscle, Distilled
from .alpha_controls import ConstantMargin, ShuffledAlpha

__all__ = ["METHODS", *sorted(method.__name__ for method in METHODS.values()), "method_named", "of_group"]


def method_named(name):
    """The class of that name; ValueError for one that no imported module defines."""
    return METHODS[one_of("method", name, METHODS)]


def of_group(group):
    """Names of the methods that are "aligning", "sharing", "server" or a "control", see `Method.group`."""
    return tuple(name for name, method in METHODS.items() if method.group == group)

"""Everything a user can set about one run: what all runs share, how they compute, and the method's own hyperparameters.

With the seed, the setup's fingerprint and the code it decides the result.
"""

import dataclasses
import hashlib
import json
import re

from ..checks import boolean, number, one_of, positive_int
from ..client import Training
from ..method import Method
from ..methods import METHODS, FedMuscle, method_named
from ..networks.adaptation import ADAPTATIONS
from ..server import BAD_UPLOADS
from .setups import Setup, setup_named

PRECISIONS = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Compute:
    """image_size: side that images are resized to for a backbone whose configuration names none; adaptation, lora_rank: how
    backbones are fine-tuned, see `networks.adaptation.adapt`; last_stages: how many of its stages learn with "last", None for
    the usual number of its kind, see `networks.last`; views: with "last", of every public sample, for methods that draw views;
    precision: of the backbones; micro_batch_size: samples that go through a network at a time, None for whole batches, which
    SimCLR's pairs of views and the local losses of CoFED, FedHeNN and the methods that share parameters keep; offload: clients
    wait in host memory, one at a time is on the accelerator."""

    image_size: int | None = None
    adaptation: str = "full"
    last_stages: int | None = None
    views: int = 8
    lora_rank: int = 16
    precision: str = "float32"
    micro_batch_size: int | None = None
    offload: bool = False

    def __post_init__(self):
        one_of("adaptation", self.adaptation, ADAPTATIONS)
        one_of("precision", self.precision, PRECISIONS)
        positive_int("lora_rank", self.lora_rank)
        positive_int("views", self.views)
        if self.last_stages is not None:
            positive_int("last_stages", self.last_stages, least=0)
            if self.adaptation != "last":
                raise ValueError(f"last_stages: got {self.last_stages} with adaptation {self.adaptation!r}, expected None")
        for name in ("image_size", "micro_batch_size"):
            if getattr(self, name) is not None:
                positive_int(name, getattr(self, name))
        boolean("offload", self.offload)


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of one run.  Symbols of the paper in brackets; what the papers leave open is our choice.

    setup: a name of `setups.SETUPS` or a `Setup`.  method: a `Method`, or its name for one with its defaults.  rounds [R];
    dim [d].  public_domain, public_size: the public data, a domain of `world.scenes.SCENE_DOMAINS` or a real source.
    dirichlet: concentration of the clients' shares of each class, see `world.partition`; None: every client has all alike.
    absence, bad_uploads: see `server.Server`.  validation_size, test_size: samples each client is scored on, every round and at
    the end (0: no test).  training: of the local phase, see `client.Training`.
    Raises ValueError naming the field, what came and what was expected.
    """

    setup: Setup = "embedded1"
    method: Method = dataclasses.field(default_factory=FedMuscle)
    seed: int = 0
    rounds: int = 15
    dim: int = 64
    public_domain: str = "single"
    public_size: int = 512
    dirichlet: float | None = None
    absence: float = 0.0
    bad_uploads: str = "raise"
    validation_size: int = 400
    test_size: int = 2000
    training: Training = Training()
    compute: Compute = Compute()

    def __post_init__(self):
        object.__setattr__(self, "setup", setup_named(self.setup))
        if isinstance(self.method, str):
            object.__setattr__(self, "method", method_named(self.method)())
        if not isinstance(self.method, Method):
            raise ValueError(f"method: got {self.method!r}, expected a method such as FedMuscle(), or its name")
        for name, kind in (("training", Training), ("compute", Compute)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected a {kind.__name__}")
        check_method(type(self.method))
        for name in ("rounds", "dim", "public_size", "validation_size"):
            positive_int(name, getattr(self, name))
        for name in ("seed", "test_size"):
            positive_int(name, getattr(self, name), least=0)
        if self.dirichlet is not None:
            number("dirichlet", self.dirichlet, above=0)
        number("absence", self.absence, least=0, below=1)
        one_of("bad_uploads", self.bad_uploads, BAD_UPLOADS)

    @classmethod
    def of(cls, setup="embedded1", method="fedmuscle", **values):
        """Settings of a setup and a method, each given or named: what the setup needs, and `values` by name, whichever group
        they belong to.  A given method keeps its own hyperparameters where `values` do not name them."""
        settings = cls(setup, method)
        own = set() if isinstance(method, str) else field_names(type(method))
        needed = {name: value for name, value in settings.setup.settings.items() if name not in own}
        return settings.replace(**needed | values)

    def replace(self, **changes):
        """A copy with some values changed, whichever group they belong to; those of other methods have no effect.

        With another `method` by name, values that both have stay.  Raises ValueError for a name that nothing has.
        """
        known = {name for method in METHODS.values() for name in field_names(method)}
        known |= {name for group in (Settings, Training, Compute) for name in field_names(group)}
        if unknown := set(changes) - known:
            raise ValueError(f"settings: got unknown {sorted(unknown)}, expected fields of Settings, Training, Compute or a "
                             "method")
        method = changes.pop("method", self.method)
        if isinstance(method, str):
            both = field_names(method_named(method)) & field_names(type(self.method))
            method = method_named(method)(**{name: getattr(self.method, name) for name in both})
        groups = {"method": method, **{name: changes.pop(name, getattr(self, name)) for name in ("training", "compute")}}
        own = {name: value for name, value in changes.items() if name in field_names(Settings)}
        return dataclasses.replace(self, **{name: with_values(group, changes) for name, group in groups.items()} | own)

    def flat(self):
        """{name: value} of all groups, setup and method by name: what is stored of them."""
        groups = (self, self.training, self.method, self.compute)
        both = {field.name: _as_declared(field, getattr(group, field.name)) for group in groups
                for field in dataclasses.fields(group) if field.name not in ("setup", "method", "training", "compute")}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in sorted(both.items())}
        return {"setup": self.setup.name, "method": self.method.name, **plain}

    def canonical(self):
        """The same settings with what the method does not use at its default: equal results share one stored run."""
        unread = {}
        if not self.method.uses_public:
            unread |= {"public_domain": Settings.public_domain, "public_size": Settings.public_size}
        if self.method.exchanges == "nothing" or self.method.ceiling:
            unread |= {"absence": Settings.absence, "bad_uploads": Settings.bad_uploads}
        return self.replace(**unread)

    def key(self):
        """Short hash of the setup's name and of all values but the seed that differ from their defaults: a new field leaves
        stored runs valid."""
        usual = Settings().flat() | {field.name: field.default for field in dataclasses.fields(self.method)} | {"setup": None}
        fields = {name: value for name, value in self.flat().items() if name != "seed" and value != usual[name]}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:10]

    def run(self):
        """Name of the run in its setup's store."""
        return f"{self.method.name}-{self.key()}-seed{self.seed}"

    def describe(self):
        """The run for people."""
        return f"{self.setup.name} {self.method.name} seed {self.seed}"


def check_method(method):
    """ValueError where a method's class has no name of its own, or hyperparameters called as something all runs share."""
    if METHODS.get(method.name, method) is not method:
        raise ValueError(f"method: got {method.__name__}, named {method.name!r}, expected a `name` that no other method has")
    if not re.fullmatch(r"[a-z0-9_]+", method.name):
        raise ValueError(f"method: got the name {method.name!r}, expected lower-case letters, digits and _")
    if both := field_names(method) & set.union(*(field_names(group) for group in (Settings, Training, Compute))):
        raise ValueError(f"method: got hyperparameters {sorted(both)} of {method.name}, expected other names: all runs have "
                         "these")


def _as_declared(field, value):
    """1 as 1.0 where a field takes numbers: equal settings have one name."""
    return float(value) if type(value) is int and field.type in (float, float | None, "float", "float | None") else value


def field_names(group):
    """Names of a dataclass's fields."""
    return {field.name for field in dataclasses.fields(group)}


def with_values(group, values):
    """A copy of a dataclass with those of `values` that it has, lists as the tuples they were before they were stored; what is
    none as it is."""
    if not dataclasses.is_dataclass(type(group)):
        return group
    return dataclasses.replace(group, **{name: tuple(value) if isinstance(value, list) else value
                                         for name, value in values.items() if name in field_names(type(group))})

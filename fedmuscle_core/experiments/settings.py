"""Everything a user can set about one run; with the seed, the setup's fingerprint and the code it decides the result."""

import dataclasses
import hashlib
import json

from ..aggregation import BAD_UPLOADS
from ..checks import one_of, positive_int
from ..exchange import PROTOCOLS
from ..networks.adaptation import ADAPTATIONS
from ..world.real.sources import sources
from ..world.scenes import PUBLIC_DOMAINS

EXCHANGE_FIELDS = ("num_peers", "batch_size", "tau", "tau_prev", "protocol", "public_domain", "public_size",
                   "contrastive_lr", "contrastive_epochs", "contrastive_steps", "augment", "tau_cross", "distant", "eta",
                   "vote_margin", "vote_share", "num_samples", "peer_choice", "absence", "refresh", "mu", "lam", "decoder_term",
                   "share", "group_shift", "bad_uploads")
PEER_CHOICES = ("random", "held", "similar", "task", "bandit")
REFRESHES = ("batch", "round")
DISTANT = ("modality", "task")
SHARES = ("both", "encoder", "decoder")
DECODER_TERMS = ("loss", "distance")
PRECISIONS = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of one run.  Symbols of the paper in brackets; what the papers leave open is our choice.

    setup, method: names, see `setups.SETUPS` and `methods.METHODS`.  num_peers [M], batch_size [B] of the public
    batches, dim [d], tau, tau_prev: the loss.  rounds [R], local_epochs [E], contrastive_epochs [T].
    contrastive_steps: public batches a round instead of whole epochs, as many passes as they take.  num_samples: tuples
    drawn an anchor, 0 for the exact loss.  peer_choice: how the server picks peers, see `peers`.
    absence: share of rounds that each client misses the exchange.  refresh: "batch", peers' representations are of this
    very batch, or "round", of the beginning of the round (an absent client's: of the last round it took part in).
    dirichlet: concentration of the clients' shares of each class, see `partition`; None: every client has all alike.
    local_lr, contrastive_lr: AdamW; local_batch_size: private batches; min_local_steps: see `client.local_phase`.
    tau_cross: temperature of pairs of clients that are distant, of another modality or task as `distant` says, their
    tau_prev in the same ratio; None: as the others.
    public_domain, public_size: the public data.  augment: every public batch is seen through one random augmentation.
    eta: weight of FedHeNN's kernel term.  vote_margin, vote_share: see `methods.cofed`.
    mu: weight of FedProx's term.  lam [lambda], decoder_term, share: see `methods.mfed`.  group_shift: of MaT-FL, see
    `aggregation.soft_groups`.  bad_uploads: what the server does with parameters it cannot average, see `aggregation.accepted`.
    validation_size, test_size: scenes each client is scored on, every round and at the end (0: no test).
    With real data: public_domain is the name of a source; image_size: side that images are resized to for a backbone whose
    configuration names none; adaptation, lora_rank: how backbones are fine-tuned, see `adaptation.adapt`; precision: of the
    backbones; micro_batch_size: samples that go through a network at a time, None for whole batches, which SimCLR's pairs of
    views and the local losses of CoFED, FedHeNN and the methods that exchange parameters keep; offload: clients wait in host
    memory, one at a time is on the accelerator.
    Raises ValueError naming the field, what came and what was expected.
    """

    setup: str = "setup1"
    method: str = "fedmuscle"
    seed: int = 0
    rounds: int = 15
    local_epochs: int = 1
    contrastive_epochs: int = 1
    contrastive_steps: int | None = None
    num_peers: int = 3
    batch_size: int = 32
    dim: int = 64
    tau: float = 0.2
    tau_prev: float = 0.15
    protocol: str = "matrices"
    public_domain: str = "single"
    public_size: int = 512
    augment: bool = False
    tau_cross: float | None = None
    distant: str = "modality"
    num_samples: int = 0
    peer_choice: str = "random"
    absence: float = 0.0
    refresh: str = "batch"
    dirichlet: float | None = None
    eta: float = 1.0
    vote_margin: float = 0.3
    vote_share: float = 0.3
    mu: float = 0.01
    lam: float = 1.0
    decoder_term: str = "loss"
    share: str = "both"
    group_shift: float = 0.0
    bad_uploads: str = "raise"
    local_lr: float = 1e-3
    contrastive_lr: float = 1e-3
    local_batch_size: int = 16
    min_local_steps: int = 10
    validation_size: int = 400
    test_size: int = 2000
    image_size: int | None = None
    adaptation: str = "full"
    lora_rank: int = 16
    precision: str = "float32"
    micro_batch_size: int | None = None
    offload: bool = False

    def __post_init__(self):
        for name in ("rounds", "local_epochs", "contrastive_epochs", "num_peers", "batch_size", "dim", "public_size",
                     "local_batch_size", "min_local_steps", "validation_size", "lora_rank"):
            positive_int(name, getattr(self, name))
        for name in ("seed", "test_size", "num_samples"):
            positive_int(name, getattr(self, name), least=0)
        for name in ("contrastive_steps", "image_size", "micro_batch_size"):
            if getattr(self, name) is not None:
                positive_int(name, getattr(self, name))
        one_of("protocol", self.protocol, PROTOCOLS)
        if self.public_domain not in PUBLIC_DOMAINS:
            one_of("public_domain", self.public_domain, (*PUBLIC_DOMAINS, *sources()))
        one_of("adaptation", self.adaptation, ADAPTATIONS)
        one_of("precision", self.precision, PRECISIONS)
        one_of("distant", self.distant, DISTANT)
        one_of("peer_choice", self.peer_choice, PEER_CHOICES)
        one_of("refresh", self.refresh, REFRESHES)
        one_of("decoder_term", self.decoder_term, DECODER_TERMS)
        one_of("share", self.share, SHARES)
        one_of("bad_uploads", self.bad_uploads, BAD_UPLOADS)
        given = [name for name in ("tau_cross", "dirichlet") if getattr(self, name) is not None]
        for name in ("tau", "tau_prev", *given, "eta", "local_lr", "contrastive_lr"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ValueError(f"{name}: got {value!r}, expected a finite number above 0")
        for name in ("vote_margin", "vote_share", "absence"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < 1:
                raise ValueError(f"{name}: got {value!r}, expected a number from 0 to below 1")
        for name in ("mu", "lam", "group_shift"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 <= value < float("inf"):
                raise ValueError(f"{name}: got {value!r}, expected a finite number of at least 0")
        for name in ("augment", "offload"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected True or False")

    def replace(self, **changes):
        """A copy with some fields changed; an unknown field is a ValueError."""
        unknown = set(changes) - {field.name for field in dataclasses.fields(self)}
        if unknown:
            raise ValueError(f"settings: got unknown {sorted(unknown)}, expected fields of Settings")
        return dataclasses.replace(self, **changes)

    def canonical(self, reads):
        """The same settings with every exchange field that the method does not read (`reads`) at its default."""
        unread = {field.name: field.default for field in dataclasses.fields(self)
                  if field.name in EXCHANGE_FIELDS and field.name not in reads}
        return self.replace(**unread)

    def key(self):
        """Short hash of all fields but the seed that differ from their defaults: a new field leaves stored runs valid."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)
                  if field.name != "seed" and getattr(self, field.name) != field.default}
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:10]

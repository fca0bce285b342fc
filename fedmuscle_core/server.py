"""The server: what it knows of its clients, who takes part in a round, which replies it accepts."""

import warnings
from dataclasses import dataclass, field

import torch

from .checks import number, one_of, positive_int
from .exchange import Diverged
from .seeds import generator

BAD_UPLOADS = ("raise", "skip")


@dataclass
class Server:
    """cards: {client: what it registered, see `Method.register`}.  absence: share of the rounds that each client misses the
    exchange.  bad_uploads: "raise", or "skip": who sends what cannot be used is left out of this exchange, with a warning.
    max_samples: as many may a client register, as averages weigh by them.

    rounds: how many there will be.  memory: the method's, see `Method.memory`.  left_out: {client: times in this round}.
    """

    seed: int
    absence: float = 0.0
    bad_uploads: str = "raise"
    max_samples: int = 10 ** 6
    rounds: int = 0
    cards: dict = field(default_factory=dict)
    memory: object = None
    left_out: dict = field(default_factory=dict)

    def __post_init__(self):
        number("absence", self.absence, least=0, below=1)
        one_of("bad_uploads", self.bad_uploads, BAD_UPLOADS)
        positive_int("max_samples", self.max_samples)

    @property
    def clients(self):
        """Names of all clients, sorted."""
        return sorted(self.cards)

    @property
    def public_size(self):
        """Number of public samples."""
        return next(iter(self.cards.values()))["public_size"]

    def known(self, name):
        """{client: what it registered as `name`}."""
        return {client: self.cards[client][name] for client in self.clients}

    def present(self, round):
        """Names of the clients that take part in this round's exchange; all others train locally."""
        return [client for client in self.clients if not self.absence or
                torch.rand(1, generator=generator(self.seed, "absence", round, client)).item() >= self.absence]

    def accepted(self, stage, replies, round=0):
        """{client: reply} of the good ones, sorted by client; the others raise a ValueError that names the client, `Diverged`
        for NaN or infinity, or are left out."""
        good = {}
        for client in sorted(replies):
            try:
                if not isinstance(replies[client], dict):
                    raise ValueError(f"got {type(replies[client]).__name__}, expected a message")
                if stage.check:
                    stage.check(client, replies[client])
                good[client] = replies[client]
            except Exception as error:   # whatever a check stumbles over is the sender's
                said = (f"{error}" if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")[:300]
                if self.bad_uploads == "raise" and isinstance(error, Diverged):
                    raise Diverged(f"client {client}: round {round}: {said} ({stage.function})", client, round) from error
                if self.bad_uploads == "raise":
                    raise ValueError(f"client {client}: {stage.function}: {said}") from error
                warnings.warn(f"client {client} is left out of {stage.function!r}: {said}", stacklevel=2)
                self.left_out[client] = self.left_out.get(client, 0) + 1
        return good

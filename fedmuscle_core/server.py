"""The server: what it knows of its clients, who takes part in a round, which replies it accepts."""

import warnings
from dataclasses import dataclass, field

import torch

from .checks import number, one_of
from .seeds import generator

BAD_UPLOADS = ("raise", "skip")


@dataclass
class Server:
    """cards: {client: what it registered, see `Method.register`}.  absence: share of the rounds that each client misses the
    exchange.  bad_uploads: "raise", or "skip": who sends what cannot be used is left out of this exchange, with a warning.

    rounds: how many there will be.  memory: the method's, see `Method.memory`.  left_out: {client: times in this round}.
    """

    seed: int
    absence: float = 0.0
    bad_uploads: str = "raise"
    rounds: int = 0
    cards: dict = field(default_factory=dict)
    memory: object = None
    left_out: dict = field(default_factory=dict)

    def __post_init__(self):
        number("absence", self.absence, least=0, below=1)
        one_of("bad_uploads", self.bad_uploads, BAD_UPLOADS)

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

    def accepted(self, stage, replies):
        """{client: reply} of the good ones, sorted by client; the others raise a ValueError that names the client, or are
        left out."""
        good = {}
        for client in sorted(replies):
            try:
                if not isinstance(replies[client], dict):
                    raise ValueError(f"got {type(replies[client]).__name__}, expected a message")
                if stage.check:
                    stage.check(client, replies[client])
                good[client] = replies[client]
            except ValueError as error:
                if self.bad_uploads == "raise":
                    raise ValueError(f"client {client}: {stage.function}: {error}") from error
                warnings.warn(f"client {client} is left out of {stage.function!r}: {error}", stacklevel=2)
                self.left_out[client] = self.left_out.get(client, 0) + 1
        return good

"""FedMuscle: align representations of public batches with the Muscle loss, then train locally.

Pairwise is the paper's ablation: the same with alpha = 1.
"""

from dataclasses import dataclass

import torch

from ..checks import number, one_of, positive_int
from ..client import local_phase
from ..exchange import PROTOCOLS, downlink, loss_from_downlink
from ..peers import credit
from ..seeds import generator
from .contrastive import WithPeers

DISTANT = ("modality", "task")
EXACT_LIMIT = 2 ** 33      # multiply-adds of one exact loss: a few seconds
TUPLES_LIMIT = 2 ** 29     # numbers in one payload: two GiB


@dataclass(frozen=True)
class Muscle(WithPeers):
    """protocol: what the server sends, see `exchange`.  tau_cross: temperature of pairs of clients that are distant, of another
    modality or task as `distant` says, their tau_prev in the same ratio; None: as the others.  Further: see `WithPeers`."""

    weighting = "learned"

    protocol: str = "matrices"
    tau_cross: float | None = None
    distant: str = "modality"

    def __post_init__(self):
        super().__post_init__()
        one_of("protocol", self.protocol, PROTOCOLS)
        one_of("distant", self.distant, DISTANT)
        if self.tau_cross is not None:
            number("tau_cross", self.tau_cross, above=0)

    def check(self, num_clients, public_size=None, dim=None):
        super().check(num_clients, public_size, dim)
        if self.protocol == "tuples" and dim and self.batch_size ** self.num_peers * dim > TUPLES_LIMIT:
            raise ValueError(f"protocol: got 'tuples' with {self.num_peers} peers and batches of {self.batch_size}, "
                             "expected 'matrices': the payload is B^M (d + 1) numbers")

    def kinds(self, server):
        return server.known(self.distant)

    def temperatures(self, kinds):
        """(tau, tau_prev) for a client and its M peers, whose kinds come in that order, the client's own first.

        Numbers, unless `tau_cross` gives pairs of different kinds a temperature of their own: then the (M+1, M+1) and (M, M)
        matrices that `losses.muscle_loss` takes, with tau_prev in the same ratio to tau for every pair.
        """
        tau_prev = getattr(self, "tau_prev", self.tau)
        if self.tau_cross is None or len(set(kinds)) == 1:
            return self.tau, tau_prev
        differ = torch.tensor([[own != other for other in kinds] for own in kinds])
        tau = torch.where(differ, self.tau_cross, self.tau).double()
        return tau, tau[1:, 1:] * (tau_prev / self.tau)

    def serve(self, peers, kinds):
        return downlink(peers, self.protocol, *self.temperatures(kinds), self.weighting)

    def loss(self, client, anchor, payload, kinds, where):
        return loss_from_downlink(anchor, payload, self.protocol, *self.temperatures(kinds), self.weighting)

    def local_phases(self, server, round):
        """With a bandit, the clients that take part tell their loss."""
        told = server.present(round) if self.peer_choice == "bandit" else []
        return super().local_phases(server, round, lambda client: {"tell": client in told},
                                    lambda client: {"told": torch.tensor(0.0)} if client in told else {})

    def settle(self, server, peers, told):
        """With a bandit, the peers of the round are credited."""
        memory, losses = server.memory, {client: reply["local_loss"] for client, reply in told.items() if "told" in reply}
        used = {client: several for client, several in peers.items() if memory.losses.get(client) and client in losses}
        if used:
            credit(memory.gains, used, memory.losses, losses)
        memory.losses = memory.losses | losses

    def local(self, client, message):
        """A local phase; with a bandit the loss is told to the server, one number."""
        loss = local_phase(client, message["round"])
        return {"local_loss": loss} | ({"told": torch.tensor(loss)} if message["tell"] else {})


@dataclass(frozen=True)
class Pairwise(Muscle):
    """alpha = 1: the sum of the InfoNCE losses against each peer.  Hyperparameters: see `Muscle`."""

    name, label, colour = "pairwise", "Pairwise", "#d97706"
    weighting = "uniform"


@dataclass(frozen=True)
class FedMuscle(Muscle):
    """tau [tau^(N)], tau_prev [tau^(N-1)]: temperatures of the loss, see `losses.muscle_loss`.  num_samples: tuples drawn an
    anchor, 0 for the exact loss.  Further hyperparameters: see `Muscle`."""

    name, label, colour = "fedmuscle", "FedMuscle", "#2563eb"
    tied = {"tau_prev": ("tau", 0.75)}

    tau_prev: float = 0.15
    num_samples: int = 0

    def __post_init__(self):
        super().__post_init__()
        number("tau_prev", self.tau_prev, above=0)
        positive_int("num_samples", self.num_samples, least=0)
        if self.tau_prev > self.tau:
            raise ValueError(f"tau_prev: got {self.tau_prev}, expected at most tau = {self.tau}")
        if self.num_samples and self.protocol == "tuples":
            raise ValueError(f"num_samples: got {self.num_samples}, expected 0 with protocol 'tuples', which sends every tuple")

    def check(self, num_clients, public_size=None, dim=None):
        super().check(num_clients, public_size, dim)
        exact = not self.num_samples and self.protocol == "matrices"
        if exact and self.batch_size ** (self.num_peers + 1) > EXACT_LIMIT:
            raise ValueError(f"num_samples: got 0 with {self.num_peers} peers and batches of {self.batch_size}, expected a "
                             "number of tuples to draw, such as 64: the exact sum takes B^(M+1) multiply-adds")

    def loss(self, client, anchor, payload, kinds, where):
        draws = generator(client.seed, "tuples", client.name, *where) if self.num_samples else None
        return loss_from_downlink(anchor, payload, self.protocol, *self.temperatures(kinds), self.weighting,
                                  self.num_samples, draws)


@dataclass(frozen=True)
class FedMuscleViews(FedMuscle):
    """FedMuscle whose clients see every public batch through random views of their own, as SimCLR's do."""

    name, label, colour = "fedmuscle_views", "FedMuscle, own views", "#a2c1d4"

    augment: bool = True
    own_views: bool = True

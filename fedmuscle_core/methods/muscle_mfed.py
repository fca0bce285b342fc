"""Both systems together: parameters shared among clients of one architecture, representations aligned across all.

M-Fed needs one encoder architecture.  Where clients have several, those of one are a group with an encoder of its own, and each
task within it a decoder (`MFedPerArchitecture`).  Between groups nothing can be averaged, but representations of public samples
can be compared: `MuscleMFed` opens every round with the contrastive phase of FedMuscle over all clients, then averages and
trains as M-Fed does.  Before the first, all of a group take over the encoder and the decoders that M-Fed begins with: averages
of networks that never were alike mean nothing.  Our choice: neither paper combines them.
"""

import hashlib
import json
from dataclasses import dataclass

from ..aggregation import mean_over_tasks, mean_per_task
from ..exchange import Stage, expect
from .contrastive import PeerMemory
from .fedmuscle import FedMuscle
from .mfed import MFed
from .sharing import RATES, ServerParameters, flattened, of_part


@dataclass(frozen=True)
class MFedPerArchitecture(MFed):
    """M-Fed among the clients whose encoders have the same names and shapes of parameters.  Encoder gradients, of different
    lengths, are not compared."""

    name, label, colour = "mfed_per_architecture", "M-Fed per architecture", "#9f1239"
    group = "control"
    needs = "several clients of an architecture; a server that averages"

    measure_gradients: bool = False

    def __post_init__(self):
        super().__post_init__()
        if self.measure_gradients:
            raise ValueError("measure_gradients: got True, expected False: gradients of two architectures have no cosine")

    def encoder_groups(self, cards):
        return {client: digest(card["shapes"]["encoder"]) for client, card in cards.items()}

    def merge(self, uploads, groups):
        """As M-Fed, within each architecture, by which the names of the groups end."""
        kinds = {client: group.rsplit(" ", 1)[1] for client, group in groups.items()}
        encoders = {}
        for kind in sorted({kinds[upload.client] for upload in uploads}) if "encoder" in self.parts else ():
            mean = mean_over_tasks([upload for upload in uploads if kinds[upload.client] == kind], self.averaged)
            encoders |= {client: mean for client in kinds if kinds[client] == kind}
        return encoders, mean_per_task(uploads, "decoder", self.averaged) if "decoder" in self.parts else {}


def digest(shapes):
    """Short name of an architecture."""
    return hashlib.sha256(json.dumps(shapes, sort_keys=True).encode()).hexdigest()[:8]


@dataclass
class BothMemories(PeerMemory, ServerParameters):
    """What the servers of both systems remember."""


@dataclass(frozen=True)
class MuscleMFed(MFedPerArchitecture, FedMuscle):
    """Hyperparameters: see `mfed.MFed` and `fedmuscle.FedMuscle`; peers are drawn from all clients, whatever their
    architecture."""

    name, label, colour = "muscle_mfed", "FedMuscle with M-Fed", "#6d28d9"
    exchanges = "representations as in FedMuscle, parameters as in M-Fed"
    needs = "public data; several clients of an architecture; a server that relays and averages"
    grid = {"local_lr": RATES[1:3], "contrastive_lr": (3e-4, 1e-3), "lam": (0.3, 1.0, 3.0)}
    follows = {"tau": "fedmuscle"}
    sometimes = ("contrastive_loss",)

    def __post_init__(self):
        MFedPerArchitecture.__post_init__(self)
        FedMuscle.__post_init__(self)
        if self.peer_choice == "bandit":
            raise ValueError("peer_choice: got 'bandit', expected another: averages change the losses that it learns from")

    @property
    def stays(self):
        return FedMuscle.stays.fget(self)

    @property
    def tells(self):
        return MFedPerArchitecture.tells.fget(self)

    def memory(self):
        return BothMemories()

    def opening(self, server, round):
        return FedMuscle.opening(self, server, round)

    def play(self, server, round):
        if round == 1:
            yield self.beginning(server)
        losses, _, _ = yield from self.contrast_phase(server, round)
        yield from self.gather(server, round)
        found = yield from self.train_all(server, round)
        return {"contrastive_loss": losses, **found}

    def beginning(self, server):
        """The stage in which the clients that take part in the first round take over what the server begins with."""
        groups = self.decoder_groups(server.cards)
        return Stage("begin", server.present(1), lambda client: flattened(server.memory.state_for(client, groups[client])),
                     lambda client, reply: expect(reply, {}))

    def begin(self, client, message):
        for part in ("encoder", "decoder"):
            getattr(client.network, part)().load_state_dict(of_part(message, part))
        return {}

"""M-Fed: one encoder for all clients, one decoder a task.

Of the source: every round, client c of task t receives the encoder E and the task's decoder D_t and trains on from both; the
server takes D_t = mean over the task's clients, weighted by private samples, and E = mean over tasks of the tasks' weighted
means.  The loss was not found; ours, with D_c the decoder that the client trains and D_t as it was received, fixed:

    decoder_term "loss":      L(D_c(E(x))) + lam L(D_t(E(x)))
    decoder_term "distance":  L(D_c(E(x))) + lam (round / rounds) |D_c - D_t|^2, which holds decoders together in the end

`share` "encoder": decoders stay with their clients, so there is no term either; "decoder": the encoder stays as it was
pretrained.  A client is scored with its own D_c, after its local phase.
"""

import copy
from dataclasses import dataclass

from ..aggregation import mean_over_tasks, mean_per_task
from ..checks import number, one_of
from .sharing import PARTS, RATES, Sharing, distance_to

SHARES = {"both": PARTS, "encoder": ("encoder",), "decoder": ("decoder",)}
DECODER_TERMS = ("loss", "distance")


@dataclass(frozen=True)
class MFed(Sharing):
    """lam [lambda], decoder_term, share: see the head of this module."""

    name, label, colour = "mfed", "M-Fed", "#e11d48"
    exchanges = "encoder and decoder up, the mean encoder and the task's decoder down"
    needs = "one encoder architecture, one decoder a task; a server that averages"
    grid = {"local_lr": RATES[1:], "lam": (0.1, 0.3, 1.0, 3.0)}

    lam: float = 1.0
    decoder_term: str = "loss"
    share: str = "both"

    def __post_init__(self):
        super().__post_init__()
        number("lam", self.lam, least=0)
        one_of("decoder_term", self.decoder_term, DECODER_TERMS)
        one_of("share", self.share, SHARES)

    @property
    def parts(self):
        return SHARES[self.share]

    def merge(self, uploads, tasks):
        """One encoder for all and one decoder a task, from what was uploaded.  Another `average` than the mean is taken within
        tasks and then over tasks: it protects where a task has three clients, or there are three tasks."""
        encoders = dict.fromkeys(tasks, mean_over_tasks(uploads, self.averaged)) if "encoder" in self.parts else {}
        return encoders, mean_per_task(uploads, "decoder", self.averaged) if "decoder" in self.parts else {}

    def objective(self, client, received, message):
        if self.share == "decoder":
            freeze(client)
        if not self.lam or "decoder" not in received:
            return None
        return self.term(client, received["decoder"], message["round"] / message["rounds"])

    def term(self, client, decoder, progress):
        """The `extend` of `client.local_phase` that adds the term of the task's global `decoder`, a state; progress: share of
        the rounds played."""
        if self.decoder_term == "distance":
            weight = self.lam * progress
            return lambda loss, step: loss + weight * distance_to(client, {"decoder": decoder})
        encoder = client.network.encoder()
        fixed = copy.deepcopy(client.network, {id(encoder): encoder})             # which is not called: not copied either
        fixed.decoder().requires_grad_(False).eval().to(client.works_on).load_state_dict(decoder)
        return lambda loss, step: loss + self.lam * client.task.loss(fixed.decode(step.features), step.wanted)


@dataclass(frozen=True)
class MFedProximal(MFed):
    """M-Fed with the term "distance", whose weight has another scale."""

    name, label, colour = "mfed_proximal", "M-Fed, proximal", "#a2c1d4"
    grid = {"local_lr": RATES[1:], "lam": (1e-4, 1e-3, 3e-3, 1e-2)}

    lam: float = 1e-3
    decoder_term: str = "distance"


def freeze(client):
    """Keep the client's encoder exactly as it is: no gradients, and no weight decay in the optimiser, which holds the decoder,
    too."""
    client.network.encoder().requires_grad_(False)
    client.local_optimizer.param_groups[0]["weight_decay"] = 0.0

"""CreamFL (Yu et al., 2023): clients with images, texts or both teach a server's model of both by their representations of
public pairs; and the same with the Muscle loss in the place of both of its contrastive terms.

One round, k a public pair, z the representation of a client, g those of the server's model, all of unit length:

    server   sends g_k^image, g_k^text of all public pairs
    clients  steps on  L_inter + L_intra  for batches of public pairs, then their local phase; then send z_k:
               L_inter = - log ( exp(z_k . g_k^other / tau) / sum_l exp(z_k . g_l^other / tau) ),  the other modality's
               L_intra = - log ( exp(z_k . g_k^own / tau) / (exp(z_k . g_k^own / tau) + exp(z_k . z_k^before / tau)) ),
                         z^before of the client as it was when the round began
    server   weighs client c at pair k:  s_k^c = log ( exp(z_k^c . g_k^other) / sum_{l != k} exp(z_k^c . g_l^other) ),
               aggregate_k = sum_c softmax_c(s_k^c) z_k^c,  for images and texts apart
             trains its model on the public pairs, first on L_retrieval, then on the distillation alone:
               kd / d (|g_k^image - aggregate_k^image|^2 + the same of texts),  d numbers a representation

With Muscle: the loss of z against two peers, g^own and g^other, whose tuples (k, l) are pairs of an image and a text.  Sources:
section 3 of that paper for the terms; contrastive steps before the local phase instead of beside it, tau, and as many steps of
distillation as of a local phase, by the same optimiser (AdamW, to which kd matters little), are our choice, as is what "with
Muscle" contrasts with what: the sources at hand do not say.

The server's model is client `centre`: its private data are the public pairs, and what goes there and comes from there is not
counted, as it never leaves the server.  A client with both modalities steps on the sum of both losses.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from ..checks import number
from ..client import embed, local_phase, or_nan, own_randomness, step
from ..exchange import Stage, expect
from ..losses import info_nce, muscle_loss
from ..method import by_metric
from ..network import in_batches
from ..placement import at_work
from .contrastive import Contrastive, expect_unit

OTHER = {"image": "text", "text": "image"}


@dataclass(frozen=True)
class CreamFL(Contrastive):
    """centre: name of the client that stands for the server.  kd: weight of the distillation [0.3].  Further: see
    `contrastive.Contrastive`."""

    name, label, colour = "creamfl", "CreamFL", "#0e7490"
    tells = "the local objective has a further term"
    group = "server"
    exchanges = "representations of all public pairs up and down"
    needs = "public pairs of images and texts; a server that trains a model of its own"
    sometimes = ("contrastive_loss", "distance")
    measures: ClassVar[tuple] = ("contrastive_loss", "local_loss")            # of every client that learns

    centre: int | str = 1
    kd: float = 0.3

    def __post_init__(self):
        super().__post_init__()
        number("kd", self.kd, above=0)
        if isinstance(self.centre, bool) or not isinstance(self.centre, (int, str)):
            raise ValueError(f"centre: got {self.centre!r}, expected the name of a client")

    def check_cards(self, cards):
        if self.centre not in cards:
            raise ValueError(f"centre: got {self.centre!r}, expected one of the clients {sorted(cards)}")
        card = cards[self.centre]
        if card["modality"] != "both" or card["samples"] != card["public_size"]:
            raise ValueError(f"centre: got client {self.centre} that reads {card['modality']!r} and has {card['samples']} "
                             f"private samples, expected 'both' and the {card['public_size']} public pairs")
        if len(cards) < 2:
            raise ValueError("clients: got the centre alone, expected others, too")

    def parts(self, server, client):
        """Modalities of a client."""
        modality = server.cards[client]["modality"]
        return ("image", "text") if modality == "both" else (modality,)

    def like(self, server, modalities):
        """What representations of all public pairs look like."""
        card = server.cards[self.centre]
        return {name: torch.empty(card["public_size"], card["dim"], device="meta") for name in modalities}

    def checked(self, reply, like):
        """ValueError where a reply is not as `like` says, its representations of unit length."""
        expect(reply, like)
        for name in OTHER:
            if name in like:
                expect_unit(f"{name} representations", reply[name])

    def play(self, server, round):
        centre, inside = self.centre, tuple(OTHER)
        sent = (yield Stage("show", [centre], lambda client: {}, lambda client, reply: self.checked(
            reply, self.like(server, inside)), uncounted=inside)).get(centre)
        if sent is None:                                                      # lost, or refused: this round is lost with it
            return by_metric((yield self.local_phases(server, round)))
        present = [client for client in server.present(round) if client != centre]
        away = [client for client in server.clients if client not in (centre, *present)]
        loss = dict.fromkeys(self.measures, float)
        answers, alone = yield [
            Stage("learn", present, lambda client: {"round": round, "rounds": server.rounds, "image": sent["image"],
                                                      "text": sent["text"]},
                  lambda client, reply: self.checked(reply, self.like(server, self.parts(server, client)) | loss)),
            Stage("local", away, lambda client: {"round": round}, lambda client, reply: expect(reply, {"local_loss": float}))]
        wanted = {name: aggregate([reply[name] for reply in answers.values() if name in reply], sent[other])
                  for name, other in OTHER.items() if any(name in reply for reply in answers.values())}
        distilled = yield Stage("distil", [centre], lambda client: {"round": round, **wanted},
                                lambda client, reply: expect(reply, dict.fromkeys(
                                    ("local_loss", "distance") if wanted else ("local_loss",), float)), uncounted=inside,
                                ends=True)
        return by_metric(answers | alone | distilled)

    # Client functions.

    def show(self, client, message):
        """The representations of all public pairs by the server's model."""
        return represented(client)

    def learn(self, client, message):
        """Contrastive steps, a local phase, and what the client then makes of all public pairs."""
        before, losses = represented(client), []
        self.set_rate(client, message["round"], message["rounds"])
        with at_work(client):
            held = {name: message[name].to(client.device) for name in OTHER}
            for number, rows in enumerate(self.rows(client, message["round"])):
                batch = client.public.take(rows)[0].to(client.device)
                loss = 0.0
                for name, z in seen(client, batch, message["round"], number).items():
                    own, other, old = held[name][rows], held[OTHER[name]][rows], before[name][rows].to(z.device)
                    loss = loss + or_nan(lambda z, served=(own, other, old): self.terms(z, *served), z)
                losses.append(step(client.contrastive_optimizer, loss))
        loss = local_phase(client, message["round"])
        measured = {"contrastive_loss": sum(losses) / max(1, len(losses)), "local_loss": loss}
        return represented(client) | {name: measured[name] for name in self.measures}

    def terms(self, z, own, other, before):
        """L_inter + L_intra of unit-length rows (B, d): the client's, the server's of the same and of the other modality, and
        the client's before the round."""
        return info_nce(z, other, tau=self.tau, normalize=False) + intra(z, own, before, self.tau)

    def distil(self, client, message):
        """A local phase of the server's model, then one on its distance to what the clients' representations came to."""
        distances = []

        def instead(loss, step):
            pairs = dict(zip(OTHER, step.features.chunk(2, 1), strict=True))
            rows = step.wanted.cpu()
            apart = sum((pairs[name] - message[name][rows].to(loss.device)).square().mean()
                        for name in OTHER if name in message)
            distances.append(apart.item())
            return self.kd * apart

        loss = local_phase(client, message["round"])
        if not any(name in message for name in OTHER):                        # nobody was there
            return {"local_loss": loss}
        local_phase(client, message["round"], instead)
        return {"local_loss": loss, "distance": sum(distances) / len(distances)}

    def forwards(self, work):
        return (1 + work.back) * self.num_batches(work.public_size) * self.batch_size + 2 * work.public_size

    def turns(self, work):
        return 3


@dataclass(frozen=True)
class CreamFLMuscle(CreamFL):
    """CreamFL whose clients step on the Muscle loss against the server's image and text representations.  tau_prev: see
    `losses.muscle_loss`."""

    name, label, colour = "creamfl_muscle", "CreamFL with Muscle", "#c026d3"
    tied = {"tau_prev": ("tau", 0.75)}

    tau_prev: float = 0.15

    def __post_init__(self):
        super().__post_init__()
        number("tau_prev", self.tau_prev, above=0)
        if self.tau_prev > self.tau:
            raise ValueError(f"tau_prev: got {self.tau_prev}, expected at most tau = {self.tau}")

    def terms(self, z, own, other, before):
        return muscle_loss(z, [own, other], tau=self.tau, tau_prev=self.tau_prev, normalize=False)


@dataclass(frozen=True)
class Distilled(CreamFL):
    """CreamFL without contrastive terms: clients train locally, the server aggregates and distils.  Nothing is left to tune: kd
    stays the source's in all of CreamFL."""

    name, label, colour = "distilled", "Distillation alone", "#65a30d"
    measures = ("local_loss",)
    grid = {}

    def rows(self, client, round):
        return ()

    def forwards(self, work):
        return 2 * work.public_size


def intra(z, own, before, tau):
    """- mean_k log ( e^(z_k . own_k / tau) / (e^(z_k . own_k / tau) + e^(z_k . before_k / tau)) )."""
    return F.softplus(((z * before).sum(1) - (z * own).sum(1)) / tau).mean()


def aggregate(several, others):
    """(P, d) sum_c softmax_c(s^c) z^c of the clients' representations, a list of (P, d), by how well each row tells its own row
    of `others` (P, d), the server's of the other modality, from the rest: s_k = z_k . o_k - log sum_{l != k} exp(z_k . o_l)."""
    scores = []
    for z in several:
        similar = z @ others.T
        own = similar.diagonal().clone()
        scores.append(own - similar.fill_diagonal_(-torch.inf).logsumexp(1))
    weights = torch.stack(scores).softmax(0)                                  # (C, P)
    return (weights[..., None] * torch.stack(several)).sum(0)


def seen(client, batch, *stream):
    """{modality: (B, d)} of a public batch, at unit length, with their graph."""
    if client.task.modality != "both":
        return {client.task.modality: embed(client, batch, *stream)}
    if not client.network.training:
        client.network.train()
    with own_randomness(client, "embed", *stream):
        return dict(zip(OTHER, client.network(batch).chunk(2, 1), strict=True))


def represented(client):
    """{modality: (P, d)} of all public pairs, at unit length, in host memory."""
    client.network.eval()
    both = client.task.modality == "both"
    with at_work(client):
        found = in_batches(client.network if both else client.network.representation, client.public, device=client.device)
    if both:
        return {name: part.float().contiguous() for name, part in zip(OTHER, found.chunk(2, 1), strict=True)}
    return {client.task.modality: F.normalize(found.float(), dim=1)}

"""What the methods with a contrastive phase share: public batches, and the exchange of representations with peers."""

from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F

from .. import checks
from ..checks import boolean, one_of, positive_int
from ..client import embed, or_nan, public_batch, represent, step
from ..exchange import Stage, bytes_per_step, expect
from ..method import Method, by_metric
from ..peers import PEER_CHOICES, choose
from ..placement import at_work
from ..seeds import generator

REFRESHES = ("batch", "round")
UNIT = 1e-3                                           # how far the length of a representation may be from 1


@dataclass(frozen=True)
class Contrastive(Method):
    """batch_size [B] of the public batches; contrastive_lr: AdamW on the representation model; contrastive_epochs [T]: passes
    over the public set a round, or contrastive_steps: batches a round, as many passes as they take; tau: temperature."""

    uses_public, group, needs = True, "aligning", "public data"
    grid = {"contrastive_lr": (1e-4, 3e-4, 1e-3), "tau": (0.1, 0.2, 0.5, 1.0)}

    batch_size: int = 32
    contrastive_lr: float = 1e-3
    contrastive_epochs: int = 1
    contrastive_steps: int | None = None
    tau: float = 0.2

    def __post_init__(self):
        positive_int("batch_size", self.batch_size)
        positive_int("contrastive_epochs", self.contrastive_epochs)
        if self.contrastive_steps is not None:
            positive_int("contrastive_steps", self.contrastive_steps)
        checks.number("contrastive_lr", self.contrastive_lr, above=0)
        checks.number("tau", self.tau, above=0)

    def check(self, num_clients, public_size=None, dim=None):
        check_public_size(public_size, self.batch_size)

    def public_batches(self, seed, public_size, round):
        """(the rows of every public batch of a round, the generator to go on with); the same for every method and client."""
        rng, batches = generator(seed, "contrastive", round), []
        steps = self.num_batches(public_size)
        while len(batches) < steps:
            batches += full_batches(public_size, self.batch_size, rng)
        return batches[:steps], rng

    def num_batches(self, public_size):
        """Public batches a round."""
        return self.contrastive_steps or self.contrastive_epochs * (public_size // self.batch_size)

    def rows(self, client, round):
        """The rows of every public batch of a round, as a client draws them."""
        return _batches(self, client.seed, client.public.size, round)


@lru_cache(maxsize=4)
def _batches(method, seed, public_size, round):
    return method.public_batches(seed, public_size, round)[0]


def full_batches(size, batch_size, rng):
    """Shuffled row indices in batches of exactly `batch_size`; the incomplete rest of an epoch is left out."""
    order = torch.randperm(size, generator=rng)
    return order[:size - size % batch_size].split(batch_size)


def check_public_size(public_size, batch_size):
    """ValueError where there are fewer public samples than a batch has."""
    if public_size is not None and public_size < batch_size:
        raise ValueError(f"public_size: got {public_size}, expected at least batch_size = {batch_size}")


@dataclass
class PeerMemory:
    """uploads: {client: its last representations of the whole public set}, with `refresh` "round".  gains, losses: of the peers
    and of the round before, with `peer_choice` "bandit", see `peers.credit`."""

    uploads: dict = field(default_factory=dict)
    gains: dict = field(default_factory=dict)
    losses: dict = field(default_factory=dict)


@dataclass(frozen=True)
class WithPeers(Contrastive):
    """num_peers [M] of the other clients serve each client.  augment: every public batch is seen through one random view, the
    same for all clients; with own_views every client's is another.  peer_choice: see `peers`.  refresh: "batch", peers'
    representations are of this very batch, or "round", of the beginning of the round (those of an absent client: of the last
    round it took part in)."""

    exchanges, needs = "B x d representations up, those of M peers down", "public data; a server that relays"

    num_peers: int = 3
    augment: bool = False
    own_views: bool = False
    peer_choice: str = "random"
    refresh: str = "batch"

    def __post_init__(self):
        super().__post_init__()
        positive_int("num_peers", self.num_peers)
        boolean("augment", self.augment)
        boolean("own_views", self.own_views)
        if self.own_views and not self.augment:
            raise ValueError("own_views: got True without augment, expected False: there are no views")
        one_of("peer_choice", self.peer_choice, PEER_CHOICES)
        one_of("refresh", self.refresh, REFRESHES)
        if self.refresh == "round" and self.augment:
            raise ValueError("augment: got True, expected False with refresh 'round', whose uploads serve every batch")

    def check(self, num_clients, public_size=None, dim=None):
        super().check(num_clients, public_size, dim)
        if self.num_peers >= num_clients:
            least = f"1 to {num_clients - 1}" if num_clients > 1 else "more clients"
            raise ValueError(f"num_peers: got {self.num_peers}, expected {least}: there are {num_clients} clients")

    @property
    def changes_public(self):
        return self.augment

    @property
    def stays(self):
        without = ", without augment" if self.augment else ""
        waits = f"refresh is 'batch', expected 'round'{without}: a graph waits for each batch's peers"
        return waits if self.refresh == "batch" else ""

    def memory(self):
        return PeerMemory()

    def serve(self, peers, kinds):
        """Server: the payload for a client, a tuple of tensors, from its peers' unit-length representations (M, B, d)."""
        raise NotImplementedError

    def loss(self, client, anchor, payload, kinds, where):
        """Client: scalar, from its own representations (B, d) and what it was served.  kinds: what tells distant ones apart, of
        the client and its M peers; where: (round, number of the batch)."""
        raise NotImplementedError

    def kinds(self, server):
        """{client: what tells distant pairs apart}."""
        return dict.fromkeys(server.clients, "")

    def opening(self, server, round):
        """With `refresh` "round" the clients that take part upload the whole public set."""
        return self.upload(server, round, None, server.public_size) if self.refresh == "round" else None

    def upload(self, server, round, number, size):
        """The stage of representations (size, d) of the public batch of this number, or of the whole public set."""
        return Stage("embed", server.present(round), lambda client: {"round": round, "batch": number},
                     lambda client, reply: self.check_upload(reply, size, server.cards[client]["dim"]))

    def play(self, server, round):
        """Contrastive phase, then local phase: a round ends locally, so that the heads follow the representations.

        Every batch, or with `refresh` "round" all at once: the clients upload; the server draws each one's M peers (fewer where
        fewer are there) and serves them; each client steps.
        """
        batches, rng = self.public_batches(server.seed, server.public_size, round)
        every, sums, local = list(range(len(batches))), {}, self.local_phases(server, round)
        if self.refresh == "round":
            sent = by_name((yield self.opening(server, round)), "representations")
            server.memory.uploads = server.memory.uploads | sent
            uploads = {client: [rows[batch] for batch in batches] for client, rows in server.memory.uploads.items()}
            stages, peers = self.serve_all(server, round, every, list(sent), uploads, rng)
            *steps, told = yield [*stages, local]
            add_losses(sums, steps)
        else:
            peers = {}
            for number in every:
                sent = by_name((yield self.upload(server, round, number, self.batch_size)), "representations")
                uploads = {client: [rows] for client, rows in sent.items()}
                stages, now = self.serve_all(server, round, [number], list(sent), uploads, rng)
                add_losses(sums, (yield stages))
                peers |= now
            told = yield local
        self.settle(server, {client: peers[client] for client in sums}, told)
        return {"contrastive_loss": {client: total / len(batches) for client, total in sums.items()}, **by_metric(told)}

    def settle(self, server, peers, told):
        """What the server makes of a round.  peers: {client: its peers of the last batch}; told: replies of the local
        phases."""

    def serve_all(self, server, round, numbers, takers, uploads, rng):
        """The peers of every batch are drawn: ([the stage in which each of `takers` steps on what it is served], {client: its
        peers of the last batch}); ([], {}) where fewer than two uploaded.

        uploads: {client: its representations (B, d) of each batch}.
        """
        if len(uploads) < 2:
            return [], {}
        tasks, kinds, places = server.known("task"), self.kinds(server), range(len(numbers))
        chosen = [choose(self.peer_choice, self.num_peers, {client: parts[place] for client, parts in uploads.items()}, rng,
                         seed=server.seed, round=round, tasks=tasks, gains=server.memory.gains) for place in places]

        def message_of(client):
            members = [[client, *peers[client]] for peers in chosen]
            own = [[kinds[member] for member in several] for several in members]
            payloads = [self.serve(torch.stack([uploads[peer][place] for peer in members[place][1:]]), own[place])
                        for place in places]
            return {"round": round, "batches": numbers, "kinds": own, "payloads": payloads}

        return [Stage("contrast", takers, message_of, lambda client, reply: expect(reply, {"loss": float}))], chosen[-1]

    def check_upload(self, reply, rows, dim):
        """ValueError where a reply is not `rows` representations (rows, dim) of unit length."""
        expect(reply, {"representations": torch.empty(rows, dim, device="meta")}, finite=False)
        lengths = torch.linalg.vector_norm(reply["representations"], dim=1)
        if not ((lengths - 1).abs() <= UNIT).all():                           # as with NaN
            expect(reply, {"representations": reply["representations"]})
            raise ValueError(f"got representations of lengths {lengths.min():.3g} to {lengths.max():.3g}, expected 1")

    # Client functions.

    def embed(self, client, message):
        """Representations of the public batch, whose graph is kept for the step, or of the whole public set."""
        if self.refresh == "round":
            return {"representations": F.normalize(represent(client, client.public).float(), dim=1)}
        where = message["round"], message["batch"]
        if makes_graph_again(client):
            with at_work(client), torch.no_grad():
                parts = [embed(client, part, *where, place) for place, part in enumerate(self.micro_batches(client, where))]
                upload = client.kept["upload"] = torch.cat(parts)
        else:
            client.kept["graph"] = embed(client, self.public_batch(client, where), *where)
            upload = client.kept["graph"].detach()
        return {"representations": upload.float()}

    def contrast(self, client, message):
        """One step on the loss for every batch of the message; {"loss": sum}."""
        total = 0.0
        with at_work(client):
            for number, kinds, payload in zip(message["batches"], message["kinds"], message["payloads"], strict=True):
                where = message["round"], number
                payload = tuple(part.to(client.device) for part in payload)

                def loss_of(anchor, payload=payload, kinds=kinds, where=where):
                    return self.loss(client, anchor, payload, kinds, where)

                if self.refresh == "batch" and makes_graph_again(client):
                    total += self.step_again(client, loss_of, where)
                    continue
                graph = client.kept.pop("graph", None)
                anchor = embed(client, self.public_batch(client, where), *where) if graph is None else graph
                total += step(client.contrastive_optimizer, or_nan(loss_of, anchor))
        return {"loss": total}

    def step_again(self, client, loss_of, where):
        """One step with no graph kept while other clients were at work: the graph is made again part by part.  Returns the
        loss.

        The chain rule lets every part go through the network by itself: the gradient of <z_part(w), gradient_part> with respect
        to w, summed over parts, is that of the loss (GradCache, Gao et al. 2021).  Dropout repeats, as its stream is named.
        """
        anchor = client.kept.pop("upload").requires_grad_()
        loss = loss_of(anchor)
        loss.backward()
        parts = self.micro_batches(client, where)
        for place, (part, wanted) in enumerate(zip(parts, anchor.grad.split([len(part) for part in parts]), strict=True)):
            (embed(client, part, *where, place) * wanted).sum().backward()
        client.contrastive_optimizer.step()
        client.contrastive_optimizer.param_groups[0]["params"][0].grad.zero_()
        return loss.item()

    def public_batch(self, client, where):
        """The public batch `where` = (round, number) as the client reads it."""
        stream = (*where, client.name) if self.own_views else where
        return public_batch(client, self.rows(client, where[0])[where[1]], self.augment, *stream)

    def micro_batches(self, client, where):
        """The same in parts of the client's `micro_batch_size` samples."""
        batch = self.public_batch(client, where)
        return batch.split(client.micro_batch_size or len(batch))

    def forwards(self, work):
        return (1 + work.back + bool(work.micro or work.offload)) * self.num_batches(work.public_size) * self.batch_size

    def turns(self, work):
        return 2 + 2 * self.num_batches(work.public_size)

    def samples_at_once(self, work):
        largest = max(self.batch_size, work.local_batch)
        return min(largest, work.micro or largest)

    def bytes_per_round(self, work):
        if work.absence or self.refresh != "batch":
            return None
        each = bytes_per_step(self.batch_size, self.num_peers, work.dim, getattr(self, "protocol", "matrices"))
        return self.num_batches(work.public_size) * sum(each)


def by_name(replies, name):
    """{client: what its reply has under a name}."""
    return {client: reply[name] for client, reply in replies.items()}


def add_losses(sums, replies):
    """Add the losses of {client: reply} of each stage to the clients' `sums`."""
    for found in replies:
        for client, reply in found.items():
            sums[client] = sums.get(client, 0.0) + reply["loss"]


def makes_graph_again(client):
    """Whether the client's graph is not kept between upload and step."""
    return client.micro_batch_size is not None or client.offload

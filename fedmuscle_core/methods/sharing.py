"""What the methods share that exchange parameters: upload, aggregate, download, train locally.

The first round begins with what the server has, the encoder of the first client and the decoder of each task's first client,
and nothing is uploaded; it ends locally, as a round of every method does.  Optimisers keep their state when parameters arrive
(our choice).
"""

import math
import warnings
from dataclasses import dataclass, field
from functools import partial
from statistics import median_low
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _NormBase

from ..aggregation import AVERAGES, Upload, of_type
from ..checks import boolean, number, one_of
from ..client import local_phase
from ..exchange import Diverged, Stage, expect
from ..method import Method
from ..privacy import secure_sum
from ..seeds import stream_seed

PARTS = ("encoder", "decoder")
FURTHER_TERM = "the local objective has a further term"
GROWTH, SMALL = 100.0, {"parameters": 0.1, "buffers": 1e4}     # how far from what was sent, see `check_upload` (our choice)
GRADIENT_SAMPLES = 32
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3)                     # of the local phase, for tuning


@dataclass
class ServerParameters:
    """What the server sends next: encoders {client: state}, decoders {group: state}, see `Sharing.decoder_groups`.  refused:
    clients whose upload was left out last."""

    encoders: dict = field(default_factory=dict)
    decoders: dict = field(default_factory=dict)
    refused: list = field(default_factory=list)

    def state_for(self, client, group):
        """{part: state} that the client is sent."""
        return {"encoder": self.encoders[client], "decoder": self.decoders[group]}


@dataclass(frozen=True)
class Sharing(Method):
    """measure_gradients: whether clients hand in the gradient of their loss with respect to the encoder at the beginning of
    each local phase, which the server compares, see `gradient_agreement`; not counted as exchanged, as the method does not need
    it.  average: how uploads become one, of `aggregation.AVERAGES`.  All but "mean" leave samples aside, and of one or two
    uploads they are the plain mean: nothing protects there.

    masked: from the second round on clients upload their parameters, times the share that these have in the server's mean, as
    `privacy.secure_sum.masked` integers, so that the server learns each mean and no part of it.  8 bytes a number go up; a mean
    that lacks a client's upload is lost, and what was sent last stays; who spoils one cannot be named.  The seeds of the masks
    follow from that of the federation: whoever knows it sees through them."""

    group: ClassVar[str] = "sharing"
    grid: ClassVar[dict] = {"local_lr": RATES, "local_batch_size": (8, 16, 32)}
    parts: ClassVar[tuple] = PARTS                    # what travels

    measure_gradients: bool = True
    average: str = "mean"
    masked: bool = False

    def __post_init__(self):
        one_of("average", self.average, AVERAGES)
        boolean("measure_gradients", self.measure_gradients)
        if boolean("masked", self.masked) and (self.measure_gradients or self.average != "mean"):
            raise ValueError(f"masked: got True with measure_gradients {self.measure_gradients} and average {self.average!r}, "
                             "expected False and 'mean': single gradients tell more, and other averages need single uploads")

    def check_card(self, card):
        for part in PARTS:
            state_like(card["shapes"][part])
            for what in SMALL:
                number(f"scales: {part}: {what}", card["scales"][part][what], least=0)

    def check_cards(self, cards):
        check_architectures(cards, {"encoder": self.encoder_groups(cards), "decoder": self.decoder_groups(cards)}, self.label)
        for part, several in self.sums(cards, sorted(cards)).items() if self.masked else ():
            if alone := [client for members, _ in several for client in members if len(members) == 1]:
                raise ValueError(f"masked: got client {alone[0]} with nobody to share its {part} with, expected two clients or "
                                 "more: the mean of one is its upload")

    @property
    def stays(self):
        return "measure_gradients is True: whole gradients are compared" if self.measure_gradients else ""

    @property
    def tells(self):
        return "measure_gradients is True: gradients of private samples are compared" if self.measure_gradients else ""

    def memory(self):
        return ServerParameters()

    @property
    def averaged(self):
        """The function of `average`: (states, weights) -> state."""
        return AVERAGES[self.average]

    def encoder_groups(self, cards):
        """{client: name of those whose encoders have one architecture}; cards: {client: what it registered}."""
        return dict.fromkeys(cards, "")

    def decoder_groups(self, cards):
        """{client: name of those who have one decoder}: their task, within its `encoder_groups`."""
        return {client: f"{cards[client]['task']} {group}".strip() for client, group in self.encoder_groups(cards).items()}

    def merge(self, uploads, groups):
        """Server: ({client: encoder}, {group: decoder}) from the accepted `aggregation.Upload`s, whose `task` is the group;
        groups: {client: group} of all."""
        raise NotImplementedError

    def sums(self, cards, present):
        """{part: [({client: its share}, receivers)]}: the means that `merge` would take over the clients `present`, and the
        keys under which it would hand them out; found by merging unit vectors, as every mean is linear."""
        groups, units = self.decoder_groups(cards), torch.eye(len(present), dtype=torch.float64)
        merged = self.merge([Upload(client, groups[client], cards[client]["samples"], *[{"share": unit}] * 2)
                             for client, unit in zip(present, units, strict=True)], groups) if present else ({}, {})
        found = {}
        for part, states in zip(PARTS, merged, strict=True):
            receivers = {}
            for receiver, state in states.items():
                receivers.setdefault(tuple(state["share"].tolist()), []).append(receiver)
            found[part] = [({client: share for client, share in zip(present, shares, strict=True) if share}, several)
                           for shares, several in receivers.items()]
        return found

    def objective(self, client, received, message):
        """Client: the `extend` of its local phase, or None; received: {part: state}."""
        return

    def first(self, server):
        """The encoder of the first client of each kind, and the decoder of each group's first client."""
        kinds, groups, memory = self.encoder_groups(server.cards), self.decoder_groups(server.cards), server.memory
        lowest, owners = ({several[client]: client for client in reversed(server.clients)} for several in (kinds, groups))

        def parts_of(client):
            return [part for part, owner in (("encoder", lowest[kinds[client]]), ("decoder", owners[groups[client]]))
                    if owner == client]

        def check(client, reply):
            mates = {part: [one for one in server.clients if several[one] == several[client]]
                     for part, several in (("encoder", kinds), ("decoder", groups))}
            scales = {part: [server.cards[one]["scales"][part] for one in mates[part]] for part in parts_of(client)}
            check_upload(reply, server.cards[client]["shapes"], {
                part: {what: median_low(one[what] for one in several) for what in SMALL} for part, several in scales.items()})

        asked = sorted({*lowest.values(), *owners.values()})
        handed = yield Stage("hand_in", asked, lambda client: {"parts": parts_of(client)}, check)
        if missing := sorted(set(asked) - set(handed)):
            raise ValueError(f"client {missing[0]}: hand_in: got nothing that can be used, expected what all begin with")
        begun = {kind: of_part(handed[client], "encoder") for kind, client in lowest.items()}
        memory.encoders = {client: begun[kinds[client]] for client in server.clients}
        memory.decoders = {group: of_part(handed[client], "decoder") for group, client in owners.items()}

    def play(self, server, round):
        """One round.  Returns the local loss and the encoders' gradients, see `gradient_agreement`."""
        if round > 1:
            yield from self.gather(server, round)
        return (yield from self.train_all(server, round))

    def train_all(self, server, round):
        """Clients take over what the server has and train locally; returns as `play`."""
        memory, groups, present = server.memory, self.decoder_groups(server.cards), server.present(round)

        def message_of(client):
            message = {"round": round, "rounds": server.rounds}
            if client not in present:
                return message | {"adopt": []}
            states = memory.state_for(client, groups[client])
            anew = client in memory.refused
            sent = PARTS if anew else self.parts
            return message | {"adopt": list(sent), "start_anew": anew} | flattened({part: states[part] for part in sent})

        def check(client, reply):
            like = {"local_loss": float}
            if "gradient" in reply:
                own = parameters_of(memory.encoders[client], server.cards[client]["shapes"]["encoder"])
                like["gradient"] = torch.cat([one.flatten().to("meta") for one in own])
            expect(reply, like, finite=False)

        replies = yield Stage("train", server.clients, message_of, check, uncounted=("gradient",), ends=True)
        gradients = {client: reply.get("gradient") for client, reply in replies.items()}
        losses = {client: reply["local_loss"] for client, reply in replies.items()}
        return {"local_loss": losses, **gradient_agreement(gradients, server.known("task"))}

    def opening(self, server, round):
        """From the second round on, the parameters of the clients that take part."""
        return self.hand_over(server, round) if round > 1 else None

    def hand_over(self, server, round):
        """The stage in which the clients that take part hand in their parameters."""
        if self.masked:
            return self.hand_over_masked(server, round)
        groups = self.decoder_groups(server.cards)

        def check(client, reply):
            sent, shapes = server.memory.state_for(client, groups[client]), server.cards[client]["shapes"]
            check_upload(reply, shapes, {part: scale_of(sent[part], shapes[part]) for part in self.parts})

        return Stage("hand_in", server.present(round), lambda client: {"parts": list(self.parts)}, check)

    def hand_over_masked(self, server, round):
        """Likewise, masked: each client's share in every sum that it is part of, and who else is; nobody adds up alone."""
        own = {}
        for part, several in self.sums(server.cards, server.present(round)).items():
            for shares, _ in several:
                for client in shares if len(shares) > 1 else ():
                    own.setdefault(client, {})[part] = {"with": list(shares), "share": shares[client]}

        def message_of(client):
            return {"round": round, "parts": list(own[client]), "sums": own[client]}

        def check(client, reply):
            like = flattened({part: state_like(server.cards[client]["shapes"][part]) for part in own[client]})
            expect(reply, {name: value.to(torch.uint64) for name, value in like.items()}, finite=False)

        return Stage("hand_in", sorted(own), message_of, check)

    def gather(self, server, round):
        """Clients upload; the server merges what it accepts.  Where nothing new comes, it keeps what it sent last."""
        memory, groups = server.memory, self.decoder_groups(server.cards)
        replies = yield self.hand_over(server, round)
        if self.masked:
            self.unmask(server, round, replies)
            return
        uploads = [Upload(client, groups[client], server.cards[client]["samples"],
                          *(of_part(reply, part) if part in self.parts else None for part in PARTS))
                   for client, reply in replies.items()]
        memory.refused = sorted(set(server.left_out) - set(replies))            # not those who did not answer
        if uploads:
            encoders, decoders = self.merge(uploads, groups)
            memory.encoders, memory.decoders = memory.encoders | encoders, memory.decoders | decoders

    def unmask(self, server, round, replies):
        """Take over the means of masked uploads; one that lacks a client, or is out of bounds, leaves what was sent last."""
        memory, sums = server.memory, self.sums(server.cards, server.present(round))
        memory.refused = sorted(set(server.left_out) - set(replies))
        for part, known in zip(PARTS, (memory.encoders, memory.decoders), strict=True):
            for shares, receivers in sums[part]:
                if len(shares) == 1 or not set(shares) <= set(replies):
                    continue
                last, shapes = known[receivers[0]], server.cards[next(iter(shares))]["shapes"]
                mean = {name: of_type(value, secure_sum.unmasked_sum([replies[client][f"{part}.{name}"].numpy()
                                                                      for client in shares])).to(value.device)
                        for name, value in last.items()}
                try:
                    check_upload(flattened({part: mean}), shapes, {part: scale_of(last, shapes[part])})
                except ValueError as error:
                    said = f"round {round}: {error}, in the mean over clients {list(shares)}, whose uploads are masked"
                    if server.bad_uploads == "raise":
                        raise Diverged(said, round=round) from error
                    warnings.warn(f"what was sent last stays: {said}", stacklevel=2)
                    continue
                known.update(dict.fromkeys(receivers, mean))

    # Client functions.

    def register(self, client, message):
        """scales: see `scale_of`, of both parts."""
        shapes = shapes_of(client.network)
        return super().register(client, message) | {"shapes": shapes, "scales": {
            part: scale_of(getattr(client.network, part)().state_dict(), shapes[part]) for part in PARTS}}

    def hand_in(self, client, message):
        """The client's parameters of the parts asked for, masked where it is told what sums they are for; nothing where one is
        NaN, or too large to be masked."""
        state = flattened({part: copied(getattr(client.network, part)()) for part in message["parts"]})
        if "sums" not in message:
            return state

        def hidden(name, value):
            own = message["sums"][name.split(".")[0]]
            seed_of = partial(stream_seed, client.seed, "mask", name, message["round"])
            return torch.from_numpy(secure_sum.masked(own["share"] * value.double(), client.name, own["with"], seed_of))
        try:
            return {name: hidden(name, value) for name, value in state.items()}
        except ValueError:
            return {}

    def train(self, client, message):
        """Take over what is to be adopted, then a local phase with the method's objective.

        start_anew: after a refused upload; the optimiser forgets, too.
        """
        received = {part: of_part(message, part) for part in PARTS if any(name.startswith(f"{part}.") for name in message)}
        for part in message["adopt"]:
            getattr(client.network, part)().load_state_dict(received[part])
        if message.get("start_anew"):
            client.local_optimizer.state.clear()
        received = {part: state for part, state in received.items() if part in self.parts}
        extend = self.objective(client, received, message)
        gradient = encoder_gradient(client) if self.measure_gradients else None
        loss = local_phase(client, message["round"], extend)
        return {"local_loss": loss} | ({} if gradient is None else {"gradient": gradient})

    def bytes_per_round(self, work):
        return None


def shapes_of(network):
    """{part: {name: [type, "parameter", "buffer" or "variance", *shape]}} of a network's state; variances are the buffers of
    normalisation layers that must not be negative."""
    found = {}
    for part in PARTS:
        module = getattr(network, part)()
        kinds = {name: "parameter" for name, _ in module.named_parameters(remove_duplicate=False)}
        kinds |= {f"{name}.running_var".removeprefix("."): "variance" for name, layer in module.named_modules()
                  if isinstance(layer, _NormBase)}
        found[part] = {name: [str(value.dtype).removeprefix("torch."), kinds.get(name, "buffer"), *value.shape]
                       for name, value in module.state_dict().items()}
    return found


def state_like(shapes):
    """{name: tensor without numbers} of one part of `shapes_of`."""
    return {name: torch.empty(shape, dtype=getattr(torch, kind), device="meta") for name, (kind, _, *shape) in shapes.items()}


def parameters_of(state, shapes):
    """The tensors of a state that are parameters; buffers are not."""
    return [value for name, value in state.items() if shapes[name][1] == "parameter"]


def scale_of(state, shapes):
    """{"parameters", "buffers"}: root mean square of these floating-point values of a state, in float64; 0.0 where there are
    none."""
    values = {what: [] for what in SMALL}
    for name, value in state.items():
        if value.is_floating_point():
            values["parameters" if shapes[name][1] == "parameter" else "buffers"].append(value.detach().double())
    return {what: math.sqrt(sum(value.square().sum().item() for value in several)
                            / max(1, sum(value.numel() for value in several))) for what, several in values.items()}


def check_upload(reply, shapes, scales):
    """ValueError where a reply is not the parts of `scales`, {part: `scale_of` what was sent}, of these `shapes`; `Diverged`
    where that of a part's parameters or buffers is more than GROWTH times what was sent, or GROWTH * SMALL where that is more,
    far beyond what a round of training gives, and for a negative variance."""
    expect(reply, flattened({part: state_like(shapes[part]) for part in scales}))
    for part, sent in scales.items():
        state = of_part(reply, part)
        for what, got in scale_of(state, shapes[part]).items():
            most = GROWTH * max(sent[what], SMALL[what])
            if got > most:
                raise Diverged(f"got {what} of root mean square {got:.3g} in the {part}, expected at most {most:.3g}")
        for name, value in state.items():
            if shapes[part][name][1] == "variance" and value.min() < 0:
                raise Diverged(f"got {value.min():.3g} in {name!r} of the {part}, a variance, expected at least 0")


def check_architectures(cards, groups, label):
    """ValueError where the encoders, or the decoders, of two clients of a group differ in their parameters; groups: {part:
    {client: group}}."""
    first = {}
    for client in sorted(cards):
        for part, of in groups.items():
            other = first.setdefault((part, of[client]), client)
            if cards[client]["shapes"][part] != cards[other]["shapes"][part]:
                raise ValueError(f"client {client}: {part}: got other parameters than client {other} has, expected the same "
                                 f"names and shapes: {label} exchanges them")


def flattened(states):
    """{"part.name": tensor} of {part: {name: tensor}}."""
    return {f"{part}.{name}": value for part, state in states.items() for name, value in state.items()}


def of_part(message, part):
    """{name: tensor} of one part of a message."""
    return {name.removeprefix(f"{part}."): value for name, value in message.items() if name.startswith(f"{part}.")}


def encoder_gradient(client):
    """Gradient of the client's task loss with respect to its encoder, as one vector, on its first private samples, at the
    parameters that it begins its local phase with; None where any of it is frozen."""
    parameters = list(client.network.encoder().parameters())
    if not all(parameter.requires_grad for parameter in parameters):
        return None
    data = client.data["train"]
    inputs, wanted = (part.to(client.device) for part in data.take(torch.arange(min(GRADIENT_SAMPLES, data.size))))
    client.network.eval()
    loss = client.task.loss(client.network(inputs), wanted)
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters, materialize_grads=True)])


def gradient_agreement(gradients, tasks):
    """How long the clients' encoder gradients are and how they agree, from {client: vector or None}: {metric: {client: value}}.

    gradient_norm: Euclidean length.  gradient_cosine_<task>: mean cosine to the other clients of that task; left out for a
    client that finds none.  Vectors with NaN or infinity, of length 0, and None do not take part.
    """
    usable = {client: vector for client, vector in sorted(gradients.items())
              if vector is not None and vector.any() and torch.isfinite(vector.norm())}
    found = {"gradient_norm": {client: vector.norm().item() for client, vector in usable.items()}}
    for task in dict.fromkeys(tasks[client] for client in sorted(tasks)):
        found[f"gradient_cosine_{task}"] = cosines = {}
        for client, vector in usable.items():
            others = [usable[other] for other in usable if other != client and tasks[other] == task]
            if others:
                cosines[client] = F.cosine_similarity(vector[None], torch.stack(others)).mean().item()
    return found


def distance_to(client, received):
    """Sum over all parameters of the `received` parts {part: state} of the squared difference to the client's own."""
    return sum((own - state[name].to(own.device)).square().sum() for part, state in received.items()
               for name, own in getattr(client.network, part)().named_parameters())


def copied(module):
    """A module's state, apart from the module: {name: tensor}."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}

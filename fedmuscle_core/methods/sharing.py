"""What the methods share that exchange parameters: upload, aggregate, download, train locally.

The first round begins with what the server has, the encoder of the first client and the decoder of each task's first client,
and nothing is uploaded; it ends locally, as a round of every method does.  Optimisers keep their state when parameters arrive
(our choice).
"""

import math
from dataclasses import dataclass, field
from statistics import median_low
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch.nn.modules.batchnorm import _NormBase

from ..aggregation import AVERAGES, Upload
from ..checks import boolean, number, one_of
from ..client import local_phase
from ..exchange import Diverged, Stage, expect
from ..method import Method

PARTS = ("encoder", "decoder")
GROWTH, SMALL = 100.0, {"parameters": 0.1, "buffers": 1e4}     # how far from what was sent, see `check_upload` (our choice)
GRADIENT_SAMPLES = 32
RATES = (2.5e-4, 5e-4, 1e-3, 2e-3)                     # of the local phase, for tuning


@dataclass
class ServerParameters:
    """What the server sends next: encoders {client: state}, decoders {task: state}.  refused: clients whose upload was left out
    last."""

    encoders: dict = field(default_factory=dict)
    decoders: dict = field(default_factory=dict)
    refused: list = field(default_factory=list)

    def state_for(self, client, task):
        """{part: state} that the client is sent."""
        return {"encoder": self.encoders[client], "decoder": self.decoders[task]}


@dataclass(frozen=True)
class Sharing(Method):
    """measure_gradients: whether clients hand in the gradient of their loss with respect to the encoder at the beginning of
    each local phase, which the server compares, see `gradient_agreement`; not counted as exchanged, as the method does not need
    it.  average: how uploads become one, of `aggregation.AVERAGES`.  All but "mean" leave samples aside, and of one or two
    uploads they are the plain mean: nothing protects there."""

    group: ClassVar[str] = "sharing"
    grid: ClassVar[dict] = {"local_lr": RATES, "local_batch_size": (8, 16, 32)}
    parts: ClassVar[tuple] = PARTS                    # what travels

    measure_gradients: bool = True
    average: str = "mean"

    def __post_init__(self):
        one_of("average", self.average, AVERAGES)
        boolean("measure_gradients", self.measure_gradients)

    def check_card(self, card):
        for part in PARTS:
            state_like(card["shapes"][part])
            for what in SMALL:
                number(f"scales: {part}: {what}", card["scales"][part][what], least=0)

    def check_cards(self, cards):
        check_architectures(cards, self.label)

    @property
    def stays(self):
        return "measure_gradients is True: whole gradients are compared" if self.measure_gradients else ""

    def memory(self):
        return ServerParameters()

    @property
    def averaged(self):
        """The function of `average`: (states, weights) -> state."""
        return AVERAGES[self.average]

    def merge(self, uploads, tasks):
        """Server: ({client: encoder}, {task: decoder}) from the accepted `aggregation.Upload`s; tasks: {client: task} of
        all."""
        raise NotImplementedError

    def objective(self, client, received, message):
        """Client: the `extend` of its local phase, or None; received: {part: state}."""
        return

    def first(self, server):
        """The encoder of the first client, and the decoder of each task's first client."""
        tasks, memory = server.known("task"), server.memory
        owners = {tasks[client]: client for client in reversed(server.clients)}
        lowest = server.clients[0]

        def parts_of(client):
            return [part for part, owner in (("encoder", lowest), ("decoder", owners[tasks[client]])) if owner == client]

        def check(client, reply):
            mates = {"encoder": server.clients, "decoder": [one for one in server.clients if tasks[one] == tasks[client]]}
            scales = {part: [server.cards[one]["scales"][part] for one in mates[part]] for part in parts_of(client)}
            check_upload(reply, server.cards[client]["shapes"], {
                part: {what: median_low(one[what] for one in several) for what in SMALL} for part, several in scales.items()})

        handed = yield Stage("hand_in", sorted({lowest, *owners.values()}), lambda client: {"parts": parts_of(client)}, check)
        if missing := sorted({lowest, *owners.values()} - set(handed)):
            raise ValueError(f"client {missing[0]}: hand_in: got nothing that can be used, expected what all begin with")
        memory.encoders = dict.fromkeys(server.clients, of_part(handed[lowest], "encoder"))
        memory.decoders = {task: of_part(handed[client], "decoder") for task, client in owners.items()}

    def play(self, server, round):
        """One round.  Returns the local loss and the encoders' gradients, see `gradient_agreement`."""
        if round > 1:
            yield from self.gather(server, round)
        memory, tasks, present = server.memory, server.known("task"), server.present(round)

        def message_of(client):
            message = {"round": round, "rounds": server.rounds}
            if client not in present:
                return message | {"adopt": []}
            states = memory.state_for(client, tasks[client])
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
        return {"local_loss": losses, **gradient_agreement(gradients, tasks)}

    def opening(self, server, round):
        """From the second round on, the parameters of the clients that take part."""
        def check(client, reply):
            card = server.cards[client]
            sent, shapes = server.memory.state_for(client, card["task"]), card["shapes"]
            check_upload(reply, shapes, {part: scale_of(sent[part], shapes[part]) for part in self.parts})

        return Stage("hand_in", server.present(round), lambda client: {"parts": list(self.parts)}, check) if round > 1 else None

    def gather(self, server, round):
        """Clients upload; the server merges what it accepts.  Where nothing new comes, it keeps what it sent last."""
        memory, tasks = server.memory, server.known("task")
        replies = yield self.opening(server, round)
        uploads = [Upload(client, tasks[client], server.cards[client]["samples"],
                          *(of_part(reply, part) if part in self.parts else None for part in PARTS))
                   for client, reply in replies.items()]
        memory.refused = sorted(set(server.left_out) - set(replies))            # not those who did not answer
        if uploads:
            encoders, decoders = self.merge(uploads, tasks)
            memory.encoders, memory.decoders = memory.encoders | encoders, memory.decoders | decoders

    # Client functions.

    def register(self, client, message):
        """scales: see `scale_of`, of both parts."""
        shapes = shapes_of(client.network)
        return super().register(client, message) | {"shapes": shapes, "scales": {
            part: scale_of(getattr(client.network, part)().state_dict(), shapes[part]) for part in PARTS}}

    def hand_in(self, client, message):
        """The client's parameters of the parts asked for."""
        return flattened({part: copied(getattr(client.network, part)()) for part in message["parts"]})

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


def check_architectures(cards, label):
    """ValueError where the encoders of two clients, or the decoders of two of one task, differ in their parameters."""
    first = {}
    for client in sorted(cards):
        for part, task in (("encoder", None), ("decoder", cards[client]["task"])):
            other = first.setdefault((part, task), client)
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

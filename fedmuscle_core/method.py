"""What a method is: its hyperparameters, what its clients do, what its server does, and what is told about it.

A method is a frozen dataclass, a subclass of `Method` with `name` and `label`; to be known to tables, tuning and forecasts it
only has to be imported.  Its server side is `play(server, round)`, a generator: it yields `exchange.Stage`s, gets {client:
reply} of those that answered back for each, and returns what it measured, {metric: {client: number}}.  Its client side are the
functions that stages name: function(client, message) -> reply.  Neither touches the other's objects.
"""

from typing import ClassVar

from . import client as on_client
from .exchange import Stage, expect

METHODS = {}                                          # {name: class}, in the order in which they were imported


class Method:
    """Plays Local: every client trains alone.

    name, label: for settings and for people.  colour: of its lines; None: one that is free.  group: "aligning", models and
    tasks may differ, "sharing", one architecture, or "control", shown where it is asked for.  exchanges, needs: for people,
    what travels each round and what is asked of clients and server.  uses_public: whether clients need public data.
    contrastive_lr: rate of an optimiser for the representation model alone, None where none is needed.  grid: for tuning,
    {field of the settings: values}, all combinations, twelve; tied: {field: (field that it follows, factor)}.  ceiling: not
    federated, a bound for the others.  stays: why its messages cannot leave this process, empty if they can.  changes_public:
    whether it augments public samples.
    """

    name: ClassVar[str] = ""
    label: ClassVar[str] = ""
    colour: ClassVar[str | None] = None
    group: ClassVar[str] = "aligning"
    exchanges: ClassVar[str] = "nothing"
    needs: ClassVar[str] = "nothing"
    uses_public: ClassVar[bool] = False
    ceiling: ClassVar[bool] = False
    stays: ClassVar[str] = ""
    changes_public: ClassVar[bool] = False
    grid: ClassVar[dict] = {}
    tied: ClassVar[dict] = {}
    contrastive_lr: ClassVar[float | None] = None

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        if cls.__dict__.get("name"):
            METHODS[cls.name] = cls

    def check(self, num_clients, public_size=None, dim=None):
        """Raise ValueError where the hyperparameters do not fit so many clients, public samples, or numbers a
        representation."""

    def check_card(self, card):
        """Raise an error, without the client's name, where what a client registered is not what the method's `register`
        gives."""

    def check_cards(self, cards):
        """Raise ValueError where what the clients registered, {client: card}, does not fit the method."""

    def memory(self):
        """What the server remembers between rounds, a dataclass of numbers, tensors, and lists and dicts of these."""
        return

    def first(self, server):
        """Generator of the stages before the first round, played again when a run goes on: what the server must know."""
        return
        yield

    def opening(self, server, round):
        """The stage that a round opens with, the clients' uploads, where it depends on nothing but the round: it then goes
        along with the last message of the round before.  None where there is none."""
        return

    def play(self, server, round):
        """Generator of the stages of one round: it yields a `Stage`, or a list of them, which go in one message a client, and
        gets {client: reply} back, or a list of these."""
        return by_metric((yield self.local_phases(server, round)))

    def local_phases(self, server, round, message_of=lambda client: {}, tensors_of=lambda client: {}):
        """The stage in which all clients train locally; it ends their round.  They reply with their `local_loss`, any other
        numbers, and tensors as tensors_of(client), {name: tensor}."""
        return Stage("local", server.clients, lambda client: {"round": round, **message_of(client)},
                     lambda client, reply: expect(reply, {"local_loss": float, **tensors_of(client)}), ends=True)

    # Client functions that every method has.

    def local(self, client, message):
        """A local phase."""
        return {"local_loss": on_client.local_phase(client, message["round"])}

    def register(self, client, message):
        """What the server knows of a client from the start.  ValueError where its view cannot be had that is needed."""
        if self.changes_public and client.public and client.views is None:
            on_client.check_view(client)
        return {"task": client.label_space, "metric": client.task.metric, "modality": client.task.modality, "dim": client.dim,
                "num_outputs": client.task.num_outputs, "samples": client.data["train"].size, "splits": list(client.data),
                "public_size": client.public.size if client.public else 0,
                "held_out": client.held_out.size if client.held_out else 0}

    def score(self, client, message):
        """The client's score on a split, in percent."""
        return {"score": on_client.score(client, message["split"])}

    def represent(self, client, message):
        """The client's representations of held-out public samples, (n, d)."""
        return {"representations": on_client.represent(client, client.held_out).float()}

    # What a run costs, in numbers of samples that go through a client's network; see `experiments.forecast`.

    def forwards(self, work):
        """Samples a round, forward passes counted, that go through the network beyond the local phase and validation."""
        return 0

    def turns(self, work):
        """How often a round the network comes to the accelerator, where it waits in host memory."""
        return 2

    def samples_at_once(self, work):
        """Samples whose activations a client keeps at the same time, at most."""
        return min(work.local_batch, work.micro or work.local_batch)

    def bytes_per_round(self, work):
        """Bytes up and down of one client and round; None where they are counted only when it runs."""
        return 0 if self.exchanges == "nothing" else None


def by_metric(replies):
    """{metric: {client: number}} of {client: {metric: number}}; what is no number is left out."""
    found = {}
    for client in sorted(replies):
        for metric, value in replies[client].items():
            if isinstance(value, (int, float)):
                found.setdefault(metric, {})[client] = value
    return found

"""The round loop: clients, a method, rounds; the history of their scores, and every byte they exchanged."""

import importlib
from collections.abc import Iterable

import pandas as pd
import torch
from tqdm.auto import tqdm

from .alignment import alignment_matrices
from .checks import one_of, positive_int
from .client import Client, Training, put_back, what_learns
from .exchange import Ledger, Stage, expect, is_number
from .method import Method
from .server import Server

COLUMNS = ["method", "client", "task", "metric", "split", "round", "seed", "value", "bytes"]
SPLITS = ("train", "validation", "test")
ENGINES = ("in_process", "flower")


class Federation:
    """Clients that learn together by one method.

        federation = Federation(clients, FedMuscle(num_peers=1), seed=0)
        history = federation.fit(rounds=20)

    clients: `Client`s of different names, at least one, in any order; `()` where an engine reaches them.  Something that is
    `one_by_one`, such as `experiments.parked.ParkedClients`, gives them in turn whenever it is iterated, each of which has
    `join`ed.  method: see `method.Method`.  training: of the local phase.  seed: of every random stream.  absence, bad_uploads,
    max_samples: see `server.Server`.  ledger: the bytes.
    alignment: {"before", "after"}: how alike the clients' representations of held-out public samples are, see
    `alignment.alignment_matrices`; empty where they have none.  mean_score: over clients, of the last round's validation.
    Raises ValueError, before any training, naming what does not fit; `exchange.Diverged` where training gives NaN or infinity,
    unless bad uploads are skipped.
    """

    def __init__(self, clients, method, *, seed=0, training=None, absence=0.0, bad_uploads="raise", max_samples=10 ** 6):
        positive_int("seed", seed, least=0)
        training = Training() if training is None else training
        for name, value, kind in (("method", method, Method), ("training", training, Training)):
            if not isinstance(value, kind):
                raise ValueError(f"{name}: got {value!r}, expected a {kind.__name__}, such as "
                                 f"{'FedMuscle()' if kind is Method else 'Training(local_lr=1e-3)'}")
        if clients != () and not getattr(clients, "one_by_one", False):
            clients = check_clients(clients)
        self.clients, self.method, self.seed = clients, method, seed
        self.training = training
        self.server, self.ledger = Server(seed, absence, bad_uploads, max_samples), Ledger()
        self.server.memory = method.memory()
        self.round, self.rows, self.alignment, self.engine, self.begun = 0, [], {}, None, False
        self.ahead, self.mean_score, self.under_way = {}, None, None
        if isinstance(clients, list):
            for client in clients:
                self.join(client)
            cards = {client.name: method.register(client, {}) for client in clients}
            self.server.cards = self.server.accepted(self.registration(list(cards)), cards)
            check_cards(self.server, method)

    def join(self, client):
        """Give a client the federation's seed and training, and fresh optimisers.  Returns it."""
        return client.join(self.seed, self.training, self.method.contrastive_lr)

    def registration(self, names):
        """The stage in which clients register."""
        return Stage("register", names, lambda client: {},
                     lambda client, card: check_card(card, self.method, self.server.max_samples))

    def fit(self, rounds, *, engine="in_process", progress=True, after_round=None):
        """Play until `rounds` rounds are played in all, those before included.  Returns the history, a tidy table.

        history: one row per (client, metric, split, round), columns COLUMNS; scores in percent, on validation samples every
        round (0 = before training) and on test samples after the last; as "train", what the method returns, losses in nats;
        bytes: up and down of that client and round.
        engine: one of ENGINES, which moves the messages, or an engine of one's own.  after_round:
        function(federation), called after each round, e.g. to keep `state()`.
        Raises ValueError where an earlier call was interrupted inside of a round.
        """
        positive_int("rounds", rounds, least=max(1, self.round))
        self.check_whole()
        try:
            return self._fit(rounds, engine, progress, after_round)
        finally:
            self.disconnect()

    def _fit(self, rounds, engine, progress, after_round):
        self.connect(engine)
        self.server.rounds = rounds
        if not self.rows:
            self.note_scores("validation", 0)
        if "before" not in self.alignment:
            self.alignment["before"] = self.matrices()
        self.begin()
        bar = tqdm(range(self.round + 1, rounds + 1), f"{self.method.label} seed {self.seed}", initial=self.round, total=rounds,
                   unit="round", disable=not progress)
        for round in bar:
            self.server.left_out, self.under_way = {}, round
            self.note_losses(self.play_round(round), round)
            scores = self.note_scores("validation", round)
            self.mean_score = sum(scores.values()) / len(scores) if scores else None
            if scores:
                bar.set_postfix_str(f"mean score {self.mean_score:.1f} %")
            self.round, self.under_way = round, None
            if after_round:
                after_round(self)
        self.note_scores("test", rounds)
        self.alignment["after"] = self.matrices()
        return self.history()

    def check_whole(self):
        """ValueError where a round was interrupted: some clients have played it, others not."""
        if self.under_way is not None:
            raise ValueError(f"round: got a federation that was interrupted in round {self.under_way}, which some clients have "
                             "played and others not; expected one between rounds: `load` a state, or make clients and "
                             "federation anew")

    def connect(self, engine="in_process"):
        """Reach the clients and register them, once."""
        if self.engine is not None:
            return
        if not hasattr(engine, "ask"):
            engine = importlib.import_module(f"{__package__}.engines.{one_of('engine', engine, ENGINES)}").connect(self)
        self.engine = engine
        names = self.engine.names()
        if not self.server.cards:
            (self.server.cards,) = self.exchange([self.registration(names)], 0)
            check_cards(self.server, self.method)

    def disconnect(self):
        """Let an engine end that has something to end."""
        if hasattr(self.engine, "close"):
            self.engine.close()
        self.engine = None

    def begin(self):
        """Let the method learn what it must know before the first round, once; its bytes are those of round 0."""
        if not self.begun:
            self.under_way = 0
            self.play(self.method.first(self.server), 0)
            self.begun, self.under_way = True, None

    def play_round(self, round):
        """Play one round of the method; returns what it measured.  The scores after it and what the next round opens with are
        asked for in the message that ends it."""
        ahead = [self.score_stage("validation")]
        if round < self.server.rounds and (opening := self.method.opening(self.server, round + 1)):
            ahead.append(self.counted(opening, round + 1))
        return self.play(self.method.play(self.server, round), round, ahead)

    def play(self, stages, round, ahead=()):
        """Play the generator of a method's stages to its end; returns what it returns.

        ahead: further stages that the clients do after one that ends their round; the replies are kept until they are asked
        for.
        """
        replies = None
        while True:
            try:
                asked = stages.send(replies)
            except StopIteration as done:
                return done.value or {}
            together = asked if isinstance(asked, list) else [asked]
            replies = self.exchange(together, round, ahead if any(stage.ends for stage in together) else ())
            replies = replies if together is asked else replies[0]

    def exchange(self, stages, round, ahead=()):
        """Stages in one go, messages down, replies up, counted and checked here: [{client: reply}].  Clients that do not answer
        are absent.  Of what was asked for ahead, see `play`, the replies are there already."""
        if self.engine is None:
            self.connect()
        ready = [self.ahead.pop((stage.function, str(stage.clients)), None) for stage in stages]
        asked = [self.counted(stage, round) for stage, found in zip(stages, ready, strict=True) if found is None]
        came = iter(self.engine.ask([*asked, *ahead]) if asked or ahead else ())
        replies = [next(came) if found is None else found for found in ready]
        self.ahead |= {(stage.function, str(stage.clients)): found for stage, found in zip(ahead, came, strict=True)}
        for stage, found in zip(stages, replies, strict=True):
            for client in sorted(found):
                if isinstance(found[client], dict):
                    self.ledger.send(found[client], round=round, client=client, direction="up", uncounted=stage.uncounted)
        return [self.server.accepted(stage, found, round) for stage, found in zip(stages, replies, strict=True)]

    def counted(self, stage, round):
        """The stage with messages that the ledger counts when they are made."""
        return stage._replace(message_of=lambda client: self.ledger.send(
            stage.message_of(client), round=round, client=client, direction="down", uncounted=stage.uncounted))

    def note_losses(self, measured, round):
        """Rows of what a round returned; {metric: {client: number}}."""
        if self.server.left_out:
            measured = measured | {"left_out": {client: float(times) for client, times in self.server.left_out.items()}}
        for client in self.server.clients:
            for metric, values in measured.items():
                if client in values:                                          # an absent client has no contrastive loss
                    self.note(client, metric, "train", round, values[client])

    def note_scores(self, split, round):
        """Rows of the scores of all clients that have this split; returns them."""
        if any(row[4] == split and row[5] == round for row in self.rows):
            return {}
        (replies,) = self.exchange([self.score_stage(split)], round)
        for client, reply in replies.items():
            self.note(client, self.server.cards[client]["metric"], split, round, reply["score"])
        return {client: reply["score"] for client, reply in replies.items()}

    def score_stage(self, split):
        """The stage in which the clients that have a split are scored on it."""
        scored = [client for client in self.server.clients if split in self.server.cards[client]["splits"]]
        return Stage("score", scored, lambda client: {"split": split}, check_score)

    def note(self, client, metric, split, round, value):
        self.rows.append((self.method.name, client, self.server.cards[client]["task"], metric, split, round, self.seed, value,
                          self.ledger.total(round, client)))

    def history(self):
        """What was noted so far, see `fit`."""
        return pd.DataFrame(self.rows, columns=COLUMNS).sort_values(["round", "client"], kind="stable", ignore_index=True)

    def matrices(self):
        """`alignment.alignment_matrices` of the clients that have held-out public samples, in the order of their names."""
        cards = self.server.cards
        stage = Stage("represent", [client for client in self.server.clients if cards[client]["held_out"]], lambda client: {},
                      lambda client, reply: expect(reply, {"representations": torch.empty(
                          cards[client]["held_out"], cards[client]["dim"], device="meta")}), uncounted=("representations",))
        (replies,) = self.exchange([stage], self.round)
        found = [reply["representations"] for reply in replies.values()]
        alike = len({representations.shape for representations in found}) == 1
        return alignment_matrices(found) if len(found) > 1 and alike else {}

    def state(self):
        """All that the rest of a run depends on, after a round: numbers, texts, tensors in host memory, lists and dicts of
        these.

        Randomness needs no place in it: every stream is named by seed, client and round.  To be stored at once: it shares
        memory with what goes on learning.  Raises ValueError inside of a round, and after one that was interrupted.
        """
        self.check_whole()
        if hasattr(self.engine, "collect"):
            self.engine.collect()
        memory = self.server.memory
        return {"round": self.round, "rows": self.rows, "alignment": self.alignment, "ledger": self.ledger.entries,
                "ahead": [[*key, replies] for key, replies in self.ahead.items()],
                "memory": memory.state() if hasattr(memory, "state") else vars(memory) if memory is not None else {},
                "clients": {client.name: client_state(client) for client in self.clients}}

    def load(self, state, engine="in_process"):
        """Go on from a `state()` of a federation of the same clients, method and seed."""
        self.connect(engine)
        self.begin()
        self.disconnect()
        memory = self.server.memory
        if memory is not None:
            memory.load(state["memory"]) if hasattr(memory, "load") else vars(memory).update(state["memory"])
        for client in self.clients:
            load_client(client, state["clients"][client.name])
        self.round, self.alignment = state["round"], state["alignment"]
        self.ahead = {(function, clients): replies for function, clients, replies in state["ahead"]}
        self.rows, self.ledger.entries = [tuple(row) for row in state["rows"]], dict(state["ledger"])
        self.under_way = None


def client_state(client):
    """What training changes of a client: parameters that learn, buffers, both optimisers, and the best it keeps."""
    return {"network": what_learns(client), "best": client.best, "local": client.local_optimizer.state_dict(),
            "contrastive": client.contrastive_optimizer.state_dict()}


def load_client(client, state):
    """Put a `client_state` back."""
    put_back(client, state["network"])
    client.best = state["best"]
    client.local_optimizer.load_state_dict(state["local"])
    client.contrastive_optimizer.load_state_dict(state["contrastive"])
    client.local_optimizer.param_groups[0]["params"][0].grad.zero_()           # of a step that was interrupted


def check_clients(clients):
    """The `Client`s that an iterable gives, as a list; ValueError where there are none, names do not tell them apart, or public
    sets are not the same samples in the same order."""
    if not isinstance(clients, Iterable):
        raise ValueError(f"clients: got {type(clients).__name__}, expected a list of `Client`s")
    clients = list(clients)
    if wrong := sorted({type(client).__name__ for client in clients if not isinstance(client, Client)}):
        raise ValueError(f"clients: got {', '.join(wrong)} among them, expected `Client`s")
    if not clients:
        raise ValueError("clients: got none, expected at least one")
    names = [client.name for client in clients]
    if len(set(map(str, names))) < len(names) or len({type(name) for name in names}) > 1:
        raise ValueError(f"clients: got names {names}, expected different ones, all words or all numbers")
    owners = {}
    for client in clients:
        for parameter in client.network.parameters():
            if parameter.requires_grad and owners.setdefault(id(parameter), client.name) != client.name:
                raise ValueError(f"clients: got one module for {owners[id(parameter)]} and {client.name}, expected a copy for "
                                 "each")
    seen = {}
    for client in sorted(clients, key=lambda client: client.name):
        if client.public is None or client.public.dataset is not None:
            continue
        inputs = client.public.inputs
        for name, other in seen.items():
            comparable = other is not inputs and (other.shape, other.dtype) == (inputs.shape, inputs.dtype)
            if comparable and not torch.equal(other, inputs) and same_rows(other, inputs):
                raise ValueError(f"public: clients {name} and {client.name} have the same samples in different orders, "
                                 "expected one order for all")
        seen[client.name] = inputs
    return clients


def same_rows(x, y):
    """Whether two tensors (n, ..) hold the same rows in any order, by a random projection."""
    weights = torch.rand(x[0].numel(), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, two = (torch.cat([part.flatten(1).double().cpu() @ weights for part in tensor.split(256)]).sort().values
                for tensor in (x, y))
    return torch.equal(one, two)


def check_card(card, method, max_samples):
    """ValueError where what a client registered is no card, see `Method.register`."""
    for name in ("task", "metric", "modality"):
        if not isinstance(card[name], str):
            raise ValueError(f"{name}: got {type(card[name]).__name__}, expected a word")
    for name, least in (("dim", 1), ("num_outputs", 1), ("samples", 1), ("public_size", 0), ("held_out", 0)):
        positive_int(name, card[name], least)
    if card["samples"] > max_samples:
        raise ValueError(f"samples: got {card['samples']}, expected at most max_samples = {max_samples}")
    for split in card["splits"]:
        one_of("splits", split, SPLITS)
    method.check_card(card)


def check_score(client, reply):
    """ValueError where a reply is no score in percent, up to rounding; nan: there is none."""
    score = reply["score"]
    if not is_number(score) or score < -1e-3 or score > 100 + 1e-3:
        raise ValueError(f"score: got {score if is_number(score) else type(score).__name__}, expected 0 to 100, or nan")


def check_cards(server, method):
    """Raise ValueError where what the clients registered does not fit together, or the method."""
    if not server.cards:
        raise ValueError("clients: got none that registered, expected at least one")
    dims, sizes, kinds = server.known("dim"), server.known("public_size"), {}
    for client, card in sorted(server.cards.items()):
        kind = card["metric"], card["num_outputs"]
        if kinds.setdefault(card["task"], kind) != kind:
            raise ValueError(f"client {client}: got task {card['task']!r} of {kind}, expected {kinds[card['task']]} as others "
                             "have")
    if method.uses_public:
        if without := [client for client, size in sizes.items() if not size]:
            raise ValueError(f"public: clients {without} have no public data, expected some: {method.label} needs them")
        if len(set(sizes.values())) > 1:
            raise ValueError(f"public: got {sizes} samples by client, expected equally many")
        if len(set(dims.values())) > 1:
            raise ValueError(f"encoder: got representations of width {dims} by client, expected one width for all")
    size = server.public_size if method.uses_public else None
    method.check(len(dims), size, next(iter(dims.values())))
    method.check_cards(server.cards)

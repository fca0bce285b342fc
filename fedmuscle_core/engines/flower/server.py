"""The server: the engine over Flower's grid, and the app that plays the rounds."""

import contextlib
import csv
import threading
import time
import warnings
from pathlib import Path

from filelock import FileLock, Timeout

from ...files import load_state, save_state
from .messages import packed, refuse_what_stays, unpacked, weight

PATIENCE = 600.0                    # seconds until a client that does not answer counts as absent
POLL, LOOK = 0.05, 1.0              # seconds between two looks for replies, at first, and for nodes
ASK_AGAIN = {3, 4, 5, 8}            # Flower's errors where a message, a reply, a node or its process was lost


class Grid:
    """The engine over Flower's grid: `ask` pushes one message a client and pulls until all have answered.

    clients: their names; every node is asked for its client's when it is first seen.  A node that was lost and comes back gets
    the message again: its client does it once.  A client that answers with an error, with what cannot be read, or not
    within `patience` seconds, is absent, with a warning; after one that is late, nobody waits until its node has told its name
    anew.
    number: [of the run, of its last message]; a run that goes on brings it along.  safe: number of the last message after which
    the server's state was stored; None: nobody stores it.  log: file to append to what happens, a
    line (seconds since 1970, message, client, event, bytes) each.  stop: an Event; once it is set, waiting ends with
    RuntimeError.
    """

    def __init__(self, grid, clients, patience=PATIENCE, number=None, log=None, stop=None):
        self.grid, self.clients, self.patience, self.log = grid, sorted(clients), patience, log
        self.stop, self.reasons = stop or threading.Event(), {}               # {client: why it is absent from this message}
        self.number = number or [time.time_ns(), 0]                           # above those of an earlier run
        self.nodes, self.foreign, self.sent = {}, set(), {}    # {client: node}, nodes of no client, {message: `asked_of`}
        self.present, self.looked, self.met, self.safe = {}, 0.0, False, None

    def names(self):
        """The names of all clients, once their nodes are there; for a run that goes on, those that come have to do.
        ValueError where they do not come."""
        until = time.monotonic() + self.patience
        while not self.met and (missing := sorted(set(self.clients) - self.nodes.keys())):
            if time.monotonic() > until:
                if not self.number[1] or not self.nodes:
                    raise ValueError(f"clients: got no node of {missing} in {self.patience:g} s, expected one each")
                break
            self.look({}, until)
            self.pull({}, {})
            self.wait(POLL)
        self.met = True
        return self.clients

    def wait(self, seconds):
        """Wait; RuntimeError where the run is to stop."""
        if self.stop.wait(seconds):
            raise RuntimeError(f"the run was stopped at message {self.number[1]}")

    def ask(self, stages):
        calls = {}
        for stage in stages:
            for client in stage.clients:
                calls.setdefault(client, []).append([stage.function, stage.message_of(client)])
        replies = {client: iter(found) for client, found in self.send(calls).items()}
        return [{client: next(replies[client]) for client in stage.clients if client in replies} for stage in stages]

    def send(self, calls):
        """{client: its replies} of {client: calls}; without the clients that fail or are late.

        RuntimeError where no node is left, or of the clients that were called none answered.
        """
        self.number, self.reasons = [self.number[0], self.number[1] + 1], {}
        safe = self.number[1] - 1 if self.safe is None else self.safe
        start, found, self.looked = time.monotonic(), {}, 0.0                 # found: None for those that failed
        until, contents = start + self.patience, {client: packed([self.number, safe, mine]) for client, mine in calls.items()}
        while True:
            self.look({client: content for client, content in contents.items() if client not in found}, until)
            self.pull(found, calls)
            waiting = [client for client in calls if client in self.nodes and client not in found]
            if not waiting and self.nodes or time.monotonic() > until:
                break
            self.wait(min(LOOK, max(POLL, (time.monotonic() - start) / 50)))
        for client in sorted(calls.keys() - found.keys()):
            self.note(client, "absent", why=f"no answer within {self.patience:g} s" if client in waiting else "no node")
            self.nodes.pop(client, None)
        self.sent = {message: asked for message, asked in self.sent.items() if asked[0] is None}
        usable = {client: replies for client, replies in found.items() if replies is not None}
        if not self.nodes or calls and not usable:
            why = "; ".join(f"client {client}: {reason}" for client, reason in list(self.reasons.items())[-3:]) or "no node"
            raise RuntimeError(f"clients: got no answer of any to message {self.number[1]}, expected one at least ({why})")
        return usable

    def look(self, contents, until):
        """Look for nodes; push {client: content} to those of the clients, and to new ones the question for their name."""
        from flwr.app import Message

        if time.monotonic() - self.looked < LOOK:
            return
        self.looked, self.present = time.monotonic(), {node.node_id: node for node in self.grid.get_nodes()}
        known = set(self.nodes.values())
        wanted = [(client, self.nodes[client]) for client in contents if self.nodes.get(client) in self.present]
        wanted += [(None, node) for node in self.present if node not in known and self.asked_of(None, node) not in self.foreign]
        for client, node in wanted:
            if self.asked_of(client, node) in self.sent.values():
                continue
            content, ttl = packed([self.number, 0, []]), None
            if client is not None:                                            # what comes back too late gets no old messages
                content, ttl = contents[client], max(until - time.monotonic(), LOOK)
                self.note(client, "asked", weight(content))
            message = Message(content, node, "query", ttl=ttl, group_id=str(self.number[1]))
            self.sent |= {name: self.asked_of(client, node) for name in self.grid.push_messages([message]) if name}

    def asked_of(self, client, node):
        """(client, or None for its name; node; since when the node is there): what makes a message to be sent again."""
        return client, node, self.present[node].last_activated_at

    def pull(self, found, calls):
        """Pull what has come; put replies to the `calls` of each client into `found`, None where one is absent."""
        for message in self.grid.pull_messages(set(self.sent)) if self.sent else ():
            client, node, since = self.sent.pop(message.metadata.reply_to_message_id)
            if client in found or message.has_error() and message.error.code in ASK_AGAIN:
                continue
            try:
                replies, size = opened(message, 1 if client is None else len(calls[client]))
                if client is None:
                    check_name_card(*replies)
            except ValueError as error:
                if client is None:
                    self.foreign.add((client, node, since))
                    warnings.warn(f"node {node} takes no part: {error}", stacklevel=2)
                else:
                    found[client] = None
                    self.note(client, "absent", why=str(error))
                continue
            if client is None:
                self.welcome(node, since, *replies)
            else:
                found[client] = replies
                self.note(client, "answered", size)

    def welcome(self, node, since, card):
        """Note whose a node is, if it is one of ours: not known by another name, and in the state that the run left it."""
        client, registered = card["name"], getattr(self.present.get(node), "name", "")
        if client not in self.clients or registered not in (None, "", str(client)):
            self.foreign.add((None, node, since))
            warnings.warn(f"node {node} takes no part: got client {client!r}, expected "
                          f"{registered or f'one of {self.clients}'}", stacklevel=2)
            return
        self.nodes[client] = node
        self.note(client, "there")
        if self.number[1] > 1 and card["number"][0] != self.number[0]:
            warnings.warn(f"client {client} begins untrained: it has no state of this run", stacklevel=2)

    def note(self, client, event, size=0, why=""):
        """Append to the log; warn of an absence."""
        if event == "absent":
            self.reasons[client] = why
            warnings.warn(f"message {self.number[1]}: client {client} is absent: {why}", stacklevel=2)
        if self.log:
            with Path(self.log).open("a", newline="") as file:
                csv.writer(file).writerow([f"{time.time():.2f}", self.number[1], client, event, size])


def opened(message, count):
    """([`count` replies], their bytes) of a Flower message; ValueError where it is an error or cannot be read."""
    if message.has_error():
        raise ValueError(f"error {message.error.code}: {message.error.reason}")
    try:
        replies, size = unpacked(message.content), weight(message.content)
    except Exception as error:   # it comes from a client
        raise ValueError(f"its reply cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(replies, list) or len(replies) != count:
        got = f"{len(replies)} replies" if isinstance(replies, list) else type(replies).__name__
        raise ValueError(f"its reply cannot be read: got {got}, expected a list of {count}")
    return replies, size


def check_name_card(card):
    """ValueError where a node's card is not {"name": word or number, "number": [of a run, of a message]}."""
    name, number = (card.get("name"), card.get("number")) if isinstance(card, dict) else (None, None)
    if type(name) not in (str, int) or not isinstance(number, list) or [type(part) for part in number] != [int, int]:
        raise ValueError(f"its reply cannot be read: got the card {str(card)[:80]}, expected a name and a message's number")


def server_app(federation_of, clients):
    """A Flower `ServerApp` that plays the rounds of the `Federation` that `federation_of()` gives, without clients of its own.

    clients: their names.  The run's configuration has the number of `rounds`, `patience` in seconds, see `Grid`, and the
    `folder`, relative to where the SuperLink was started, see `play`.
    """
    from flwr.serverapp import ServerApp

    app = ServerApp()

    @app.main()
    def main(grid, context):
        config = context.run_config
        play(federation_of(), grid, clients, config["rounds"], config["folder"], config["patience"])

    return app


def play(federation, grid, clients, rounds, folder, patience=PATIENCE):
    """Play all rounds over Flower's grid.  Returns the history.

    In `folder`: history.csv and bytes.csv, written after every round; log.csv, see `Grid`; state.pt until all rounds are
    played: a server that is killed and started again goes on after its last round; lock.
    Raises ValueError where another server plays in the folder, or state.pt is of a run of another method, seed, training or
    other clients.
    """
    refuse_what_stays(federation.method)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        return play_alone(federation, grid, sorted(clients), rounds, folder, patience)


@contextlib.contextmanager
def alone_in(folder):
    """Context of the one server that plays in a folder; ValueError where there is one already."""
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise ValueError(f"folder: got {folder}, where another run is being played, expected one of its own.  Ctrl-C of run.sh "
                         "only ends the log; `flwr stop RUN_ID deployment` stops the run") from None
    try:
        yield
    finally:
        lock.release()


def play_alone(federation, grid, clients, rounds, folder, patience):
    """See `play`."""
    path, number = folder / "state.pt", None
    run = {"method": repr(federation.method), "seed": federation.seed, "training": repr(federation.training),
           "clients": clients}
    kept = load_state(path) if path.is_file() else None
    if kept:
        check_run(path, kept.get("run", {}), run)
        number, federation.server.cards, federation.begun = kept["number"], kept["cards"], True
    engine = Grid(grid, clients, patience, number, folder / "log.csv")
    engine.safe = engine.number[1]
    if kept:
        federation.load(kept["federation"], engine)

    def keep(federation):
        save_state({"run": run, "number": engine.number, "cards": federation.server.cards, "federation": federation.state()},
                   path)
        engine.safe = engine.number[1]
        store(federation.history(), folder / "history.csv")
        store(federation.ledger.table(), folder / "bytes.csv")

    history = federation.fit(rounds, engine=engine, progress=False, after_round=keep)
    keep(federation)
    path.unlink()
    return history


def check_run(path, kept, run):
    """ValueError where the run kept in a file is not this one: {"method", "seed", "training", "clients"} of both."""
    if other := [name for name in run if kept.get(name) != run[name]]:
        raise ValueError(f"{path}: got a run of {', '.join(f'{name} {kept.get(name)}' for name in other)}, expected "
                         f"{', '.join(f'{name} {run[name]}' for name in other)}: choose another `folder`, or delete the file")


def store(table, path):
    """Write a table whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    table.to_csv(part, index=False)
    part.replace(path)

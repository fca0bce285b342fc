"""The server: the engine over Flower's grid, and the app that plays the rounds."""

import csv
import time
import warnings
from pathlib import Path

from ...files import load_state, save_state
from .messages import packed, refuse_what_stays, unpacked, weight

PATIENCE = 600.0                    # seconds until a client that does not answer counts as absent
POLL, LOOK = 0.05, 1.0              # seconds between two looks for replies, at first, and for nodes
ASK_AGAIN = {3, 4, 5, 8}            # Flower's errors where a message, a reply, a node or its process was lost


class Grid:
    """The engine over Flower's grid: `ask` pushes one message a client and pulls until all have answered.

    clients: their names; every node is asked for its client's when it is first seen.  A node that was lost and comes back gets
    the message again: its client does it once.  A client that answers with an error, or not within `patience` seconds, is
    absent, with a warning; after that, nobody waits for it until its node has told its name anew.
    number: [of the run, of its last message]; a run that goes on brings it along.  safe: number of the last message after which
    the server's state was stored; None: nobody stores it.  log: file to append to what happens, a
    line (seconds since 1970, message, client, event, bytes) each.
    """

    def __init__(self, grid, clients, patience=PATIENCE, number=None, log=None):
        self.grid, self.clients, self.patience, self.log = grid, sorted(clients), patience, log
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
            self.pull({})
            time.sleep(POLL)
        self.met = True
        return self.clients

    def ask(self, stages):
        calls = {}
        for stage in stages:
            for client in stage.clients:
                calls.setdefault(client, []).append([stage.function, stage.message_of(client)])
        replies = {client: iter(found) for client, found in self.send(calls).items()}
        return [{client: next(replies[client]) for client in stage.clients if client in replies} for stage in stages]

    def send(self, calls):
        """{client: its replies} of {client: calls}; without the clients that fail or are late.

        RuntimeError where no node is left.
        """
        self.number = [self.number[0], self.number[1] + 1]
        safe = self.number[1] - 1 if self.safe is None else self.safe
        start, found, self.looked = time.monotonic(), {}, 0.0                 # found: None for those that failed
        until, contents = start + self.patience, {client: packed([self.number, safe, mine]) for client, mine in calls.items()}
        while True:
            self.look({client: content for client, content in contents.items() if client not in found}, until)
            self.pull(found)
            waiting = [client for client in calls if client in self.nodes and client not in found]
            if not waiting and self.nodes or time.monotonic() > until:
                break
            time.sleep(min(LOOK, max(POLL, (time.monotonic() - start) / 50)))
        for client in sorted(calls.keys() - found.keys()):
            self.note(client, "absent", why=f"no answer within {self.patience:g} s" if client in waiting else "no node")
            self.nodes.pop(client, None)
        self.sent = {message: asked for message, asked in self.sent.items() if asked[0] is None}
        if not self.nodes:
            raise RuntimeError(f"clients: got no answer of any to message {self.number[1]} in {self.patience:g} s")
        return {client: replies for client, replies in found.items() if replies is not None}

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

    def pull(self, found):
        """Pull what has come; put replies into `found`."""
        for message in self.grid.pull_messages(set(self.sent)) if self.sent else ():
            client, node, since = self.sent.pop(message.metadata.reply_to_message_id)
            error = message.error if message.has_error() else None
            if client in found or error and error.code in ASK_AGAIN:
                continue
            if error and client is None:
                self.foreign.add((client, node, since))
                warnings.warn(f"node {node} takes no part: error {error.code}: {error.reason}", stacklevel=2)
            elif error:
                found[client] = None
                self.note(client, "absent", why=f"error {error.code}: {error.reason}")
            elif client is None:
                self.welcome(node, since, *unpacked(message.content))
            else:
                found[client] = unpacked(message.content)
                self.note(client, "answered", weight(message.content))

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
            warnings.warn(f"message {self.number[1]}: client {client} is absent: {why}", stacklevel=2)
        if self.log:
            with Path(self.log).open("a", newline="") as file:
                csv.writer(file).writerow([f"{time.time():.2f}", self.number[1], client, event, size])


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
    played: a server that is killed and started again goes on after its last round.
    """
    refuse_what_stays(federation.method)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path, number = folder / "state.pt", None
    kept = load_state(path) if path.is_file() else None
    if kept:
        number, federation.server.cards, federation.begun = kept["number"], kept["cards"], True
    engine = Grid(grid, clients, patience, number, folder / "log.csv")
    engine.safe = engine.number[1]
    if kept:
        federation.load(kept["federation"], engine)

    def keep(federation):
        save_state({"number": engine.number, "cards": federation.server.cards, "federation": federation.state()}, path)
        engine.safe = engine.number[1]
        federation.history().to_csv(folder / "history.csv", index=False)
        federation.ledger.table().to_csv(folder / "bytes.csv", index=False)

    history = federation.fit(rounds, engine=engine, progress=False, after_round=keep)
    keep(federation)
    path.unlink()
    return history

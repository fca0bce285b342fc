"""Flower carries the messages, of clients that are simulated side by side.

One Flower message a client for all that `exchange.Stage`s ask of it in one go.  A client keeps its state in a file and numbers
the messages it has done, so that it goes on after a restart and refuses what comes late.  Flower is the extra `[flower]`.
"""

import json
import os
import shutil
import tempfile
import threading
import time
import warnings
from pathlib import Path
from queue import Queue
from urllib.parse import quote

import torch

from ..federation import client_state, load_client

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
os.environ.setdefault("FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
POLL, PATIENCE = 0.05, 600.0                          # seconds between two looks for replies; until a client counts as absent


def packed(value):
    """A Flower `RecordDict` of a message, or any nest of lists and mappings of tensors, numbers and words."""
    from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

    tensors = []

    def plain(part):
        if isinstance(part, torch.Tensor):
            tensors.append(part.detach().cpu().contiguous())
            return {"tensor": len(tensors) - 1}
        if isinstance(part, dict):
            return {"items": [[name, plain(inner)] for name, inner in part.items()]}
        return [plain(inner) for inner in part] if isinstance(part, (list, tuple)) else part

    text = json.dumps(plain(value))
    arrays = ArrayRecord({str(place): Array(tensor.numpy()) for place, tensor in enumerate(tensors)})
    return RecordDict({"message": ConfigRecord({"json": text}), "tensors": arrays})


def unpacked(record):
    """What `packed` was given; tuples come back as lists."""
    arrays = record["tensors"]

    def whole(part):
        if isinstance(part, list):
            return [whole(inner) for inner in part]
        if not isinstance(part, dict):
            return part
        if "tensor" in part:
            return torch.from_numpy(arrays[str(part["tensor"])].numpy().copy())
        return {name: whole(inner) for name, inner in part["items"]}

    return whole(json.loads(record["message"]["json"]))


def reply_to(client, method, folder, record):
    """The replies of a client to a packed list of calls, [number, [[function, message], ..]]; its state is loaded from and kept
    in `folder`, whole or not at all.

    Raises ValueError for a message that is not newer than the last one it has done.
    """
    number, calls = unpacked(record)
    client.join(client.seed, client.training, method.contrastive_lr)          # its tensors came one by one
    path = state_path(folder, client)
    if path.is_file():
        state = torch.load(path, weights_only=True)
        if number <= state["number"]:
            raise ValueError(f"client {client.name}: got message {number}, expected one after {state['number']}: it came late")
        load_client(client, state["client"])
    replies = [getattr(method, function)(client, message) for function, message in calls]
    temporary = path.with_suffix(".part")
    torch.save({"number": number, "client": client_state(client)}, temporary)
    temporary.replace(path)
    return packed(replies)


def state_path(folder, client):
    """Where a client's state is kept."""
    return Path(folder) / f"client-{quote(str(client.name), safe='')}.pt"


class Grid:
    """The engine over Flower's grid: `ask` pushes one message a node and pulls until all have answered.

    count: clients to wait for before the first round.  A node that answers with an error, or not within `patience` seconds, is
    absent, with a warning.  nodes: {client: node}.
    """

    def __init__(self, grid, count, patience=PATIENCE):
        self.grid, self.count, self.patience, self.nodes = grid, count, patience, {}
        self.number = time.time_ns()                                          # above those of an earlier server

    def names(self):
        """The names of the clients, once all nodes are there."""
        until = time.monotonic() + self.patience
        while len(nodes := list(self.grid.get_node_ids())) < self.count:
            if time.monotonic() > until:
                raise ValueError(f"clients: got {len(nodes)} nodes in {self.patience:g} s, expected {self.count}")
            time.sleep(POLL)
        found = self.send({node: [["introduce", {}]] for node in nodes})
        self.nodes = {replies[0]["name"]: node for node, replies in found.items()}
        return sorted(self.nodes)

    def ask(self, stages):
        calls = {}
        for stage in stages:
            for client in stage.clients:
                calls.setdefault(client, []).append([stage.function, stage.message_of(client)])
        found = self.send({self.nodes[client]: mine for client, mine in calls.items() if client in self.nodes})
        replies = {client: iter(found[self.nodes[client]]) for client in calls if self.nodes.get(client) in found}
        return [{client: next(replies[client]) for client in stage.clients if client in replies} for stage in stages]

    def send(self, calls):
        """{node: its replies} of {node: calls}; without the nodes that fail or are late."""
        from flwr.app import Message

        self.number += 1
        messages = [Message(packed([self.number, mine]), node, "query", group_id=str(self.number))
                    for node, mine in calls.items()]
        waiting, found, until = set(self.grid.push_messages(messages)), {}, time.monotonic() + self.patience
        while waiting and time.monotonic() < until:
            for message in self.grid.pull_messages(waiting):
                waiting.discard(message.metadata.reply_to_message_id)
                node = message.metadata.src_node_id
                if message.has_error():
                    warnings.warn(f"node {node} is absent: error {message.error.code}: {message.error.reason}", stacklevel=2)
                else:
                    found[node] = unpacked(message.content)
            time.sleep(POLL)
        if waiting:
            warnings.warn(f"{len(waiting)} nodes are absent: no answer within {self.patience:g} s", stacklevel=2)
        return found


def client_app(client_of, method, folder):
    """A Flower `ClientApp` whose node answers as the client `client_of(context)` of a federation by `method`."""
    from flwr.app import Message
    from flwr.clientapp import ClientApp

    app = ClientApp()

    @app.query()
    def query(message, context):
        client = client_of(context)
        if unpacked(message.content)[1][0][0] == "introduce":
            return Message(packed([{"name": client.name}]), reply_to=message)
        return Message(reply_to(client, method, folder, message.content), reply_to=message)

    return app


class Simulation:
    """The engine of `Federation.fit(engine="flower")`: Flower's simulation on this machine, clients in processes of their own.

    The clients of the federation have learnt what they have when it is closed.
    """

    def __init__(self, federation):
        self.federation, self.folder = federation, Path(tempfile.mkdtemp(prefix="fedmuscle-flower-"))
        os.environ.setdefault("FLWR_HOME", str(self.folder / "home"))
        for client in federation.clients:                                     # with what their optimisers remember
            torch.save({"number": 0, "client": client_state(client)}, state_path(self.folder, client))
        self.questions, self.answers = Queue(), Queue()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        """The simulation, from its first question to the last, which is None."""
        from flwr.serverapp import ServerApp
        from flwr.simulation import run_simulation

        clients, server = sorted(self.federation.clients, key=lambda client: client.name), ServerApp()
        app = client_app(lambda context: clients[int(context.node_config["partition-id"])], self.federation.method, self.folder)

        @server.main()
        def main(grid, context):
            engine = Grid(grid, len(clients))
            while (question := self.questions.get()) is not None:
                function, *arguments = question
                try:
                    self.answers.put((getattr(engine, function)(*arguments), None))
                except Exception as error:   # noqa: BLE001 - raised where it was asked
                    self.answers.put((None, error))

        try:
            run_simulation(server, app, len(clients), backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}})
        except BaseException as error:   # noqa: BLE001 - raised where it was asked
            self.answers.put((None, error))

    def asked(self, *question):
        self.questions.put(question)
        found, error = self.answers.get()
        if error:
            raise error
        return found

    def names(self):
        return self.asked("names")

    def ask(self, stages):
        return self.asked("ask", stages)

    def close(self):
        self.questions.put(None)
        self.thread.join()
        self.collect()
        if os.environ.get("FLWR_HOME") == str(self.folder / "home"):
            del os.environ["FLWR_HOME"]
        shutil.rmtree(self.folder, ignore_errors=True)

    def collect(self):
        """Put what the clients have learnt into the federation's."""
        for client in self.federation.clients:
            load_client(client, torch.load(state_path(self.folder, client), weights_only=True)["client"])


def connect(federation):
    """The engine of a federation; ValueError where its method cannot travel or its clients are not all in memory."""
    refuse_what_stays(federation.method)
    if not isinstance(federation.clients, list):
        raise ValueError(f"clients: got {type(federation.clients).__name__}, expected a list to simulate")
    return Simulation(federation)


def refuse_what_stays(method):
    """ValueError for a method whose messages cannot leave the process."""
    if method.stays:
        raise ValueError(f"engine: got 'flower' with {method.label}, expected a method that can travel: {method.stays}")

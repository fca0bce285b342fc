"""Flower's simulation on this machine, clients in processes of their own."""

import os
import shutil
import tempfile
import threading
from pathlib import Path
from queue import Queue

from .client import client_app, keep, learnt
from .server import Grid

RUN = 1
PATIENCE = 30 * 86400.0             # seconds: here a client that is slow is never absent


class Simulation:
    """The engine of `Federation.fit(engine="flower")`.  The clients of the federation have learnt what they have when it is
    closed, unless it failed or was interrupted.  PYTHONPATH must lead Ray's processes to the modules that define the clients'
    networks.

    Flower's files go to a temporary folder, and so do those that it keeps in FLWR_HOME, unless that is set.
    """

    def __init__(self, federation):
        self.federation, self.folder = federation, Path(tempfile.mkdtemp(prefix="fedmuscle-flower-"))
        os.environ.setdefault("FLWR_HOME", str(self.folder / "home"))
        for client in federation.clients:                                     # with what their optimisers remember
            keep(self.folder, client, [RUN, 0], {})
        self.questions, self.answers = Queue(), Queue()
        self.stop, self.well = threading.Event(), True                        # well: whether the last question was answered
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
            engine = Grid(grid, [client.name for client in clients], PATIENCE, [RUN, 0], stop=self.stop)
            while (question := self.questions.get()) is not None:
                function, *arguments = question
                try:
                    self.answers.put((getattr(engine, function)(*arguments), None))
                except Exception as error:   # raised where it was asked
                    self.answers.put((None, error))

        try:
            run_simulation(server, app, len(clients), backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}})
        except BaseException as error:   # raised where it was asked
            self.answers.put((None, error))

    def asked(self, *question):
        self.well = False
        self.questions.put(question)
        found, error = self.answers.get()
        if error:
            raise error
        self.well = True
        return found

    def names(self):
        return self.asked("names")

    def ask(self, stages):
        return self.asked("ask", stages)

    def close(self):
        """End the simulation; what the clients have learnt is collected, unless a question failed or was interrupted."""
        self.stop.set()
        self.questions.put(None)
        try:
            self.thread.join()
            if self.well:
                self.collect()
        finally:
            if os.environ.get("FLWR_HOME") == str(self.folder / "home"):
                del os.environ["FLWR_HOME"]
            shutil.rmtree(self.folder, ignore_errors=True)

    def collect(self):
        """Put what the clients have learnt into the federation's."""
        for client in self.federation.clients:
            learnt(client, self.folder)

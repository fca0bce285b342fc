"""A federation over Flower on this machine, a process a node, beside the same one in one process:
`python -m fedmuscle_core.benchmarks.deployment`, where the extra [flower] is installed.

Twice: undisturbed, and with a node that is killed in the middle of a message and started again.  TLS and node keys are on.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from ..engines.flower.init import init
from ..experiments.runs import one_thread
from ..experiments.store import environment, now
from . import digits
from .saving import parser_of, save


class Deployment:
    """What `fedmuscle flower init` writes into `folder`, played on free ports of this machine; a context that ends all of its
    processes.  app: text instead of that of the app that comes along.

    Flower's files, temporary ones and the home folder that its processes see are in `folder`, and so are their logs.
    """

    def __init__(self, folder, clients=digits.CLIENTS, app=None):
        self.folder, self.clients, self.processes, self.results = Path(folder), clients, {}, None
        server, *ports = free_ports(1 + len(clients))
        self.ports = dict(zip(clients, ports, strict=True))
        init(folder, clients, f"127.0.0.1:{server}")
        if app:
            (self.folder / "app" / "federated.py").write_text(app)
        (self.folder / "user").mkdir()

    def __enter__(self):
        self.start("server", "server/start.sh")
        self.start("register", "server/register.sh")
        self.finish("register", 300)
        for client in self.clients:
            self.start_node(client)
        return self

    def __exit__(self, *error):
        for name in list(self.processes):
            self.kill(name, signal.SIGTERM)

    def start(self, name, script, *arguments):
        """Start one of the commands."""
        home = {"HOME": str(self.folder / "user"), "OMP_NUM_THREADS": "1",
                "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
        with (self.folder / f"{name}.log").open("a") as log:
            self.processes[name] = subprocess.Popen(["sh", str(self.folder / script), *arguments], stdout=log, stderr=log,
                                                    stdin=subprocess.DEVNULL, env=os.environ | home, start_new_session=True)

    def start_node(self, client):
        self.start(client, f"nodes/{client}/start.sh", "--port", str(self.ports[client]))

    def finish(self, name, timeout):
        """Wait for the end of a command; RuntimeError with its log where it fails."""
        if self.processes.pop(name).wait(timeout):
            raise RuntimeError(f"{name} failed:\n{self.log(name)}")

    def play(self, folder, rounds, patience):
        """Start a run whose results go to a folder of the server's."""
        self.results = self.folder / "server" / folder
        self.start(folder, "server/run.sh", "--run-config", f"rounds={rounds} patience={float(patience)} folder='{folder}'")

    def played(self, timeout):
        """The history of the run, once it has ended."""
        self.finish(self.results.name, timeout)
        if (self.results / "state.pt").exists() or not (self.results / "history.csv").exists():
            raise RuntimeError(f"the run failed:\n{self.log(self.results.name)}")
        return pd.read_csv(self.results / "history.csv", converters={"value": float})

    def kill(self, name, how=signal.SIGKILL):
        """End a process and all that it started."""
        import psutil

        shell = self.processes.pop(name)
        family = [shell, *psutil.Process(shell.pid).children(recursive=True)] if shell.poll() is None else []
        for one in family if how == signal.SIGKILL else family[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(how)
        _, left = psutil.wait_procs(family[1:], timeout=20)
        for one in [*left, shell]:                                            # what has ended is not touched
            one.kill()
        shell.wait()

    def log(self, name):
        return (self.folder / f"{name}.log").read_text()

    def traffic(self):
        """{"inbound-bytes", "outbound-bytes"}: what the SuperLink had from the nodes and sent them in the last run: messages,
        their metadata and objects, not the app, heartbeats, polls without a message, HTTP and TLS."""
        server = self.folder / "server"
        said = subprocess.run([Path(sys.executable).parent / "flwr", "list", "deployment", "--format", "json"], cwd=server,
                              env=os.environ | {"FLWR_HOME": str(server / "home")}, capture_output=True, text=True, check=True)
        last = max(json.loads(said.stdout)["runs"], key=lambda run: run["pending-at"])
        return {name: last["network-traffic"][name] for name in ("inbound-bytes", "outbound-bytes")}

    def events(self):
        """What the server wrote down so far, see `Grid`."""
        path, columns = self.results / "log.csv", ["time", "message", "client", "event", "bytes"]
        return pd.read_csv(path, names=columns) if path.is_file() else pd.DataFrame(columns=columns)

    def wait_for(self, event, message, client, timeout):
        """Wait until an event stands in the server's log."""
        wanted = [message, client, event]
        self.wait_until(lambda: wanted in self.events()[["message", "client", "event"]].values.tolist(),
                        f"{client} was not {event} in message {message}:\n{self.log(self.results.name)}", timeout)

    def wait_until(self, is_so, otherwise, timeout):
        until = time.monotonic() + timeout
        while not is_so():
            if time.monotonic() > until:
                raise RuntimeError(otherwise)
            time.sleep(0.05)


def free_ports(count):
    """As many ports of this machine that nobody listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


APP = '''"""The clients of benchmarks.digits as an app."""

import torch

from fedmuscle_core.benchmarks.digits import CLIENTS, client, federation
from fedmuscle_core.engines import flower

torch.set_num_threads(1)
server_app = flower.server_app(federation, CLIENTS)
client_app = flower.client_app(lambda context: federation().join(client(context.node_config["name"])), federation().method)
'''


def measure(rounds=4, patience=600.0, victim="ben", message=7):
    """Two runs of the federation of `digits`, the second with its `victim` killed while it works on a message, and started
    again at once: {name: {"history", "ledger", "events", "traffic", "seconds"}}, {"history", "ledger", "seconds"} of the
    same in one process, and how all was made, as JSON has it.

    Times are in seconds since the run began; traffic: bytes that the SuperLink counted, from and to the nodes.
    """
    found = {"rounds": rounds, "patience": patience, "seed": 0, "victim": victim, "clients": list(digits.CLIENTS),
             "measured": now(), "versions": environment() | {"flwr": version("flwr")}, "cores": os.cpu_count(),
             "load": os.getloadavg()[0], "in_process": in_process(rounds), "runs": {}}
    with tempfile.TemporaryDirectory() as folder, Deployment(Path(folder) / "deployment", digits.CLIENTS, APP) as deployment:
        for name in ("undisturbed", "killed"):
            start, further = time.time(), []
            deployment.play(name, rounds, patience)
            if name == "killed":
                deployment.wait_for("asked", message, victim, patience)
                time.sleep(2)                                                 # so that it is at work
                deployment.kill(victim)
                further.append([time.time() - start, message, victim, "killed", 0])
                deployment.start_node(victim)
            history = deployment.played(3 * patience)
            ledger = pd.read_csv(deployment.results / "bytes.csv")
            events = deployment.events()
            events["time"] -= start
            found["runs"][name] = {
                "history": history.to_dict("list"), "ledger": ledger.to_dict("list"),
                "events": sorted([*events.values.tolist(), *further], key=lambda event: event[0]),
                "traffic": deployment.traffic(), "seconds": time.time() - start}
    return found


def in_process(rounds):
    """{"history", "ledger", "seconds"} of the same federation in this process, on one thread."""
    start = time.time()
    with one_thread():
        federation = digits.federation([digits.client(name) for name in digits.CLIENTS])
        history = federation.fit(rounds, progress=False)
    return {"history": history.to_dict("list"), "ledger": federation.ledger.table().to_dict("list"),
            "seconds": time.time() - start}


def main(argv=None):
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    args = parser.parse_args(argv)
    measured = measure(args.rounds)
    for name, run in measured["runs"].items():
        equal = all(run[table] == measured["in_process"][table] for table in ("history", "ledger"))
        print(f"{name:12} {run['seconds']:6.1f} s, {'equal' if equal else 'NOT EQUAL'} to one process")
    save(args.save, measured)
    return 0


if __name__ == "__main__":
    sys.exit(main())

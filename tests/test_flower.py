"""Flower moves the same messages: histories equal those of the in-process engine to the bit.  Skipped without the extra
[flower]."""

import ast
import os
import shutil
import subprocess
import sys
import threading
import time
import tomllib
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

pytest.importorskip("flwr", reason="the extra [flower] is not installed")

from small_clients import CLIENTS, TRAINING, federation, make_client, method  # noqa: E402

from fedmuscle_core import Centralised, FedMuscle, MFed, Training  # noqa: E402
from fedmuscle_core.commands import cli  # noqa: E402
from fedmuscle_core.engines import flower  # noqa: E402
from fedmuscle_core.engines.flower import client as node  # noqa: E402
from fedmuscle_core.engines.flower import server, simulation  # noqa: E402
from fedmuscle_core.engines.flower.messages import packed, unpacked  # noqa: E402
from fedmuscle_core.engines.flower.simulation import Simulation  # noqa: E402
from fedmuscle_core.exchange import Stage  # noqa: E402
from fedmuscle_core.experiments.runs import one_thread  # noqa: E402
from fedmuscle_core.federation import client_state  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")       # of Flower and Ray
TRAVELLING = [("local", {}), ("simclr", {}), ("cofed", {}), ("fedhenn", {}), ("gramian", {"refresh": "round"}),
              ("pairwise", {"refresh": "round"}), ("fedmuscle", {"refresh": "round"}),
              ("fedmuscle", {"refresh": "round", "peer_choice": "bandit"}),
              *((name, {"measure_gradients": False}) for name in ("fedavg", "fedprox", "encoder_only", "matfl", "mfed")),
              ("mfed", {"share": "decoder", "measure_gradients": False}),
              ("mfed", {"masked": True, "measure_gradients": False})]


class Nodes(server.Grid):
    """Flower's grid without Flower between: every message is packed, answered by a fresh client that has only its file, in
    turned order, and unpacked.

    lost: numbers of messages that do not reach client 3; killed: number of the message at which the server dies.
    """

    def __init__(self, method, folder, lost=(), killed=None, number=None, training=TRAINING):
        super().__init__(None, CLIENTS, number=number or [1, 0])
        self.method, self.folder, self.lost, self.killed, self.training = method, folder, lost, killed, training

    def names(self):
        return sorted(CLIENTS, reverse=True)

    def send(self, calls):
        self.number = [self.number[0], self.number[1] + 1]
        safe = self.number[1] - 1 if self.safe is None else self.safe
        found = {}
        for client, mine in reversed(calls.items()):
            if found and self.killed == self.number[1]:                       # one client has done it then
                raise KeyboardInterrupt
            if client != 3 or self.number[1] not in self.lost:
                found[client] = self.answer(client, packed([self.number, safe, mine]))
        return found

    def answer(self, name, record):
        fresh = make_client(name).join(0, self.training, self.method.contrastive_lr)
        return unpacked(node.reply_to(fresh, self.method, self.folder, record))


@pytest.mark.parametrize(("name", "changes"), TRAVELLING)
def test_every_method_that_travels_gives_the_same_bits(name, changes, tmp_path):
    keeping = replace(TRAINING, keep_best=True)                                # what is kept must be there in another process
    with one_thread():
        here = federation(method(name, **changes), training=keeping)
        history = here.fit(2, progress=False)
        there = federation(method(name, **changes), clients=(), training=keeping)
        again = there.fit(2, engine=Nodes(there.method, tmp_path, training=keeping), progress=False)
    pd.testing.assert_frame_equal(again, history, check_exact=True)
    assert there.ledger.entries == here.ledger.entries and there.alignment == here.alignment


def test_the_simulation_gives_the_same_bits_and_trains_the_clients_in_place(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))                # its processes import these clients' modules
    with one_thread():
        here, there = (federation(method("fedmuscle", refresh="round")) for _ in range(2))
        history = here.fit(2, progress=False)
    pd.testing.assert_frame_equal(there.fit(2, engine="flower", progress=False), history, check_exact=True)
    assert there.ledger.entries == here.ledger.entries
    for one, other in zip(here.clients, there.clients, strict=True):
        states = [client_state(client)["network"] for client in (one, other)]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_the_notebook_plays_the_simulation(tmp_path, monkeypatch):
    """What the committed copy, executed without the extra, does not."""
    import nbformat

    from fedmuscle_core.commands.kernels import execute

    monkeypatch.setenv("FEDMUSCLE_RUNS", str(tmp_path))
    book, target = tmp_path / "book.ipynb", tmp_path / "executed.ipynb"
    shutil.copy(Path(__file__).parents[1] / "notebooks" / "21_many_machines.ipynb", book)
    assert execute(book, target, tmp_path, {"profile": "quick"})[1] is None
    said = [output.get("text", "") for cell in nbformat.read(target, 4).cells for output in cell.get("outputs", [])]
    assert "simulation and one process: equal to the bit\n" in said


@pytest.mark.parametrize(("found", "message"), [
    (FedMuscle(num_peers=1, batch_size=8), "engine: got 'flower' with FedMuscle, .* that can travel: refresh is 'batch'"),
    (Centralised(), "Centralised, expected a method that can travel: whole networks go to the server"),
    (MFed(), "M-Fed, expected a method that can travel: measure_gradients is True")])
def test_what_cannot_travel_is_refused_by_name(found, message):
    with pytest.raises(ValueError, match=message):
        flower.connect(federation(found))


@pytest.mark.parametrize(("name", "changes"), TRAVELLING)
def test_a_client_that_misses_a_message_misses_its_round_and_is_back_in_the_next(name, changes, tmp_path):
    found = federation(method(name, **changes), clients=())
    with one_thread():
        history = found.fit(1, engine=Nodes(found.method, tmp_path), progress=False)
        number = [1, node.load_state(node.state_path(tmp_path, make_client(3)))["number"][1]]
        engine = Nodes(found.method, tmp_path, number=number, lost=range(number[1] + 1, number[1] + 4))
        found.fit(2, engine=engine, progress=False)                           # the messages of round 2, and its test scores
        history = found.fit(4, engine=Nodes(found.method, tmp_path, number=engine.number), progress=False)
    there = history.query("split == 'validation'").groupby("round")["client"].agg(set)
    assert there[1] == there[3] == there[4] == set(CLIENTS) and there[2] == set(CLIENTS) - {3}


@pytest.mark.parametrize(("name", "changes"), [("fedmuscle", {"refresh": "round"}), ("mfed", {"measure_gradients": False})])
def test_a_server_that_is_killed_in_the_middle_of_a_round_goes_on_to_the_same_bits(name, changes, tmp_path, monkeypatch):
    """It asks the clients again what those of them that were asked have done: they do not learn twice."""
    def play(folder, killed=None):
        found = federation(method(name, **changes), clients=())
        monkeypatch.setattr(server, "Grid", lambda grid, clients, patience, number, log: Nodes(
            found.method, folder / "nodes", killed=killed, number=number))
        server.play(found, None, CLIENTS, 3, folder)
        return found

    with one_thread():
        whole = play(tmp_path / "whole")
        last = node.load_state(node.state_path(tmp_path / "whole" / "nodes", make_client(1)))["number"][1]
        for killed in range(2, last + 1):
            folder = tmp_path / str(killed)
            with pytest.raises(KeyboardInterrupt):
                play(folder, killed)
            if not (folder / "state.pt").is_file():
                continue                                                      # in the first round: a new run
            again = play(folder)
            pd.testing.assert_frame_equal(again.history(), whole.history(), check_exact=True)
            assert again.ledger.entries == whole.ledger.entries
            assert not (folder / "state.pt").exists()
            pd.testing.assert_frame_equal(pd.read_csv(folder / "history.csv", converters={"value": float}), whole.history())


@pytest.fixture
def play_locally(tmp_path, monkeypatch):
    """Function (method, killed, **options of the federation) that plays 2 rounds in `tmp_path`."""
    def play(found="local", killed=None, clients=CLIENTS, **options):
        there = federation(method(found), clients=(), **options)
        monkeypatch.setattr(server, "Grid", lambda grid, clients, patience, number, log: Nodes(
            there.method, tmp_path / "nodes", killed=killed, number=number))
        with one_thread():
            return server.play(there, None, clients, 2, tmp_path)

    return play


@pytest.mark.parametrize(("changes", "message"), [
    ({"found": "simclr"}, r"got a run of method Local\(.*, expected method SimCLR\("),
    ({"seed": 1}, "got a run of seed 0, expected seed 1"),
    ({"training": Training(local_lr=0.5)}, r"got a run of training Training\(.*local_lr=0.01.*, expected training .*=0.5"),
    ({"clients": [1, 2]}, r"got a run of clients \[1, 2, 3, 4\], expected clients \[1, 2\]")])
def test_a_kept_run_goes_on_as_itself_only(changes, message, play_locally, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        play_locally(killed=5)
    with pytest.raises(ValueError, match=rf"state.pt: {message}.*: choose another `folder`, or delete the file"):
        play_locally(**changes)
    assert set(play_locally()["round"]) == {0, 1, 2}


def test_two_servers_do_not_play_in_one_folder(play_locally, tmp_path):
    with server.alone_in(tmp_path), pytest.raises(ValueError, match="another run .*`flwr stop RUN_ID deployment`"):
        play_locally()
    assert set(play_locally()["round"]) == {0, 1, 2}


def test_a_server_that_dies_while_it_writes_a_table_leaves_the_one_before(tmp_path, monkeypatch):
    table, path = pd.DataFrame({"a": [1]}), tmp_path / "history.csv"
    server.store(table, path)

    def die(self, target, **options):
        Path(target).write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_csv", die)
    with pytest.raises(KeyboardInterrupt):
        server.store(pd.DataFrame({"a": [2]}), path)
    assert pd.read_csv(path).equals(table)


def test_security_md_says_what_a_contrast_message_tells_of_peers(tmp_path):
    class Listening(Nodes):
        def send(self, calls):
            seen.extend(message for mine in calls.values() for function, message in mine if function == "contrast")
            return super().send(calls)

    found, seen = federation(method("fedmuscle", refresh="round"), clients=()), []
    with one_thread():
        found.fit(1, engine=Listening(found.method, tmp_path), progress=False)
    told = set().union(*seen)
    assert told == {"round", "rounds", "batches", "kinds", "payloads"}
    text = (Path(__file__).parents[1] / "SECURITY.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| FedMuscle, pairwise, Gramian | representations of")]
    assert "modality or task" in row


def test_messages_come_back_as_they_were_sent():
    message = [[1, 3], [["local", {"round": 2, "tell": False, "members": [[1, 2], ["a", "b"]], "nothing": None,
                                   "payloads": [[torch.rand(2, 3), torch.arange(4).short()],
                                                [torch.rand(1) > 2, torch.rand(3).bfloat16(), torch.tensor(5)]]}]]]
    again = unpacked(packed(message))
    assert again[0] == [1, 3] and again[1][0][1]["members"] == [[1, 2], ["a", "b"]] and again[1][0][1]["nothing"] is None
    for sent, came in zip(message[1][0][1]["payloads"], again[1][0][1]["payloads"], strict=True):
        assert all(torch.equal(one, other) and one.dtype == other.dtype for one, other in zip(sent, came, strict=True))


def asked(number, *functions, run=7, **message):
    return packed([[run, number], number - 1, [[function, {"round": number, **message}] for function in functions]])


def fresh():
    return make_client(1).join(0, TRAINING)


def test_a_late_message_is_refused_and_changes_nothing(tmp_path):
    node.reply_to(fresh(), method("local"), tmp_path, asked(5, "local"))
    state = node.state_path(tmp_path, fresh()).read_bytes()
    for late in (asked(4, "local"), asked(5, "local", "local"), asked(9, "local", run=6)):
        with pytest.raises(ValueError, match=r"client 1: got message \[[67], [459]\], expected one after \[7, 5\]"):
            node.reply_to(fresh(), method("local"), tmp_path, late)
    assert node.state_path(tmp_path, fresh()).read_bytes() == state


def test_the_same_message_again_gets_the_same_reply_and_learns_nothing(tmp_path):
    """As after a lost reply, or a node that was killed before it had sent it."""
    first, again = (unpacked(node.reply_to(fresh(), method("local"), tmp_path, asked(5, "local", "register")))
                    for _ in range(2))
    assert first == again and first[0]["local_loss"] > 0
    once = flower.learnt(fresh(), tmp_path)
    whole = fresh()
    method("local").local(whole, {"round": 5})
    assert all(torch.equal(one, other) for one, other in zip(once.learning, whole.learning, strict=True))


def test_a_new_run_finds_the_client_untrained(tmp_path):
    replies = [unpacked(node.reply_to(fresh(), method("local"), tmp_path, asked(1, "local", run=run))) for run in (7, 8)]
    assert replies[0] == replies[1]


def test_a_node_that_dies_while_it_writes_leaves_the_state_before(tmp_path, monkeypatch):
    node.reply_to(fresh(), method("local"), tmp_path, asked(1, "local"))
    state = node.state_path(tmp_path, fresh()).read_bytes()

    def die(state, file):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("torch.save", die)
        node.reply_to(fresh(), method("local"), tmp_path, asked(2, "local"))
    assert node.state_path(tmp_path, fresh()).read_bytes() == state
    node.reply_to(fresh(), method("local"), tmp_path, asked(2, "local"))


class FlowerGrid:
    """Three nodes, 11 to 13, of clients 1 to 3, that answer at once, the last first.

    since: {node: since when it is there}.  fate: function (node, how many calls it has got) -> what becomes of its message:
    None, an error's code, "lost", or the record that it replies with.  names: of nodes, as registered.  cards: {node: function
    that gives the record it names itself by}.
    """

    def __init__(self, fate=lambda node, count: None, nodes=(11, 12, 13)):
        self.since, self.fate, self.replies, self.pushed, self.names = dict.fromkeys(nodes, "1"), fate, [], [], {}
        self.cards = {}

    def get_nodes(self):
        return [SimpleNamespace(node_id=one, last_activated_at=since, name=self.names.get(one, ""))
                for one, since in self.since.items()]

    def push_messages(self, messages):
        from flwr.app import Error, Message

        (message,) = messages
        place = message.metadata.__dict__["_message_id"] = f"id{len(self.pushed)}"
        one, (number, _, calls) = message.metadata.dst_node_id, unpacked(message.content)
        self.pushed.append((one, number[1], len(calls)))
        fate = self.fate(one, sum(each[0] == one and each[2] > 0 for each in self.pushed)) if calls else None
        reply = packed([{"sum": one}] * len(calls) if calls else [{"name": one - 10, "number": [0, 0]}])
        if not calls and one in self.cards:
            reply = self.cards[one]()
        if isinstance(fate, int):
            reply = Error(code=fate, reason="on fire")
        elif fate not in (None, "lost"):
            reply = fate
        if fate != "lost":
            self.replies.append(Message(reply, reply_to=message))
        return [place]

    def pull_messages(self, waiting):
        return [self.replies.pop()] if self.replies else []


def ask(engine, clients=(1, 2, 3)):
    """(what was found, what was warned of)."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        (found,) = engine.ask([Stage("add", list(clients), lambda client: {})])
    return found, [str(each.message) for each in said]


@pytest.fixture
def quickly(monkeypatch):
    from flwr.supercore.task_identity import TaskIdentity

    for name in ("_run_id", "_node_id", "_task_id"):                      # without which Flower makes no message
        monkeypatch.setattr(TaskIdentity, name, 1)
    monkeypatch.setattr(server, "POLL", 0.001)
    monkeypatch.setattr(server, "LOOK", 0.02)


def test_a_node_that_fails_or_hangs_is_absent_by_name_and_back_when_it_answers_again(quickly, tmp_path):
    def fate(one, count):
        return {(12, 1): 2, (13, 1): "lost"}.get((one, count))

    grid = FlowerGrid(fate)
    engine = server.Grid(grid, [3, 1, 2], patience=0.2, log=tmp_path / "log.csv")
    assert engine.names() == [1, 2, 3]
    found, said = ask(engine)
    assert found == {1: {"sum": 11}}
    assert said == ["message 1: client 2 is absent: error 2: on fire",
                    "message 1: client 3 is absent: no answer within 0.2 s"]
    assert set(ask(engine)[0]) >= {1, 2}                                      # 3 has to tell its name first
    assert ask(engine)[0] == {client: {"sum": client + 10} for client in (1, 2, 3)}
    log = pd.read_csv(tmp_path / "log.csv", names=["time", "message", "client", "event", "bytes"])
    assert list(log.query("client == 3")["event"])[:4] == ["there", "asked", "absent", "there"]


def test_nobody_waits_for_a_node_that_is_gone(quickly):
    grid = FlowerGrid()
    engine = server.Grid(grid, [1, 2, 3], patience=0.3)
    engine.names()
    del grid.since[13]
    assert ask(engine)[1] == ["message 1: client 3 is absent: no answer within 0.3 s"]      # it might come back
    engine.patience = 60.0
    found, said = ask(engine)
    assert set(found) == {1, 2} and said == ["message 2: client 3 is absent: no node"]
    grid.since[23] = "2"                                                      # with another number: it says who it is
    grid.push_messages, push = (lambda messages: push(messages) if messages[0].metadata.dst_node_id != 23
                                else push_as(grid, messages, 13)), grid.push_messages
    ask(engine), ask(engine)
    assert engine.nodes[3] == 23 and set(ask(engine)[0]) == {1, 2, 3}


def push_as(grid, messages, one):
    """Push to a node that answers as node `one` does."""
    from flwr.app import Message

    (message,) = messages
    found = FlowerGrid.push_messages(grid, [Message(message.content, one, "query")])
    grid.replies[-1].metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
    return found


@pytest.mark.parametrize("code", ["lost", *sorted(server.ASK_AGAIN)])
def test_a_node_that_was_lost_gets_the_message_again_when_it_is_back_in_time(quickly, code):
    def fate(one, count):
        if (one, count) == (13, 1):
            grid.since[13] = "2"                                              # killed, and started again
            return code
        return None

    grid = FlowerGrid(fate)
    engine = server.Grid(grid, [1, 2, 3], patience=60.0)
    engine.names()
    found, said = ask(engine)
    assert set(found) == {1, 2, 3} and not said
    assert [each for each in grid.pushed if each[0] == 13 and each[2]] == [(13, 1, 1), (13, 1, 1)]      # one number


def test_a_run_ends_where_no_client_is_left(quickly):
    grid = FlowerGrid()
    engine = server.Grid(grid, [1, 2, 3], patience=0.1)
    engine.names()
    grid.since = {}
    with pytest.raises(RuntimeError, match=r"clients: got no answer of any to message 1, .*client 1: no answer within 0.1 s; "):
        ask(engine)


def test_a_run_ends_where_every_client_fails(quickly):
    engine = server.Grid(FlowerGrid(lambda one, count: 2), [1, 2, 3], patience=60.0)
    engine.names()
    with pytest.raises(RuntimeError, match="of any to message 1, expected one at least .*client 2: error 2: on fire"):
        ask(engine)


def no_record():
    from flwr.app import RecordDict

    return RecordDict()


def bad_json():
    record = packed([{}])
    record["message"]["json"] = "[{"
    return record


def without_tensor():
    record = packed([{"value": torch.ones(2)}])
    record["tensors"].clear()
    return record


UNREADABLE = [(no_record, "KeyError: "), (bad_json, "JSONDecodeError: "), (without_tensor, "KeyError: "),
              (lambda: packed(7), "got int, expected a list of 1"), (lambda: packed({"a": 1}), "got dict, expected a list"),
              (lambda: packed([]), "got 0 replies, expected a list of 1"), (lambda: packed([{}, {}]), "got 2 replies, ")]
CARDS = [{}, {"name": 1}, {"name": [1], "number": [0, 0]}, {"name": 1, "number": 0}, {"name": 1, "number": ["a", 0]},
         {"name": torch.ones(2), "number": [0, 0]}, "anna"]


@pytest.mark.parametrize(("reply", "why"), UNREADABLE)
def test_a_client_whose_reply_cannot_be_read_is_absent(reply, why, quickly):
    engine = server.Grid(FlowerGrid(lambda one, count: reply() if (one, count) == (12, 1) else None), [1, 2, 3], patience=60.0)
    engine.names()
    found, said = ask(engine)
    assert set(found) == {1, 3} and len(said) == 1
    assert said[0].startswith(f"message 1: client 2 is absent: its reply cannot be read: {why}")
    assert set(ask(engine)[0]) == {1, 2, 3}


@pytest.mark.parametrize("reply", [*(reply for reply, _ in UNREADABLE), *(lambda card=card: packed([card]) for card in CARDS)])
def test_a_node_whose_name_cannot_be_read_takes_no_part(reply, quickly):
    grid = FlowerGrid(nodes=(11, 12, 13, 14))
    grid.cards[14] = reply
    engine = server.Grid(grid, [1, 2, 3], patience=60.0)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        engine.names()
        assert set(ask(engine)[0]) == {1, 2, 3}
    (only,) = {str(each.message) for each in said}
    assert only.startswith("node 14 takes no part: its reply cannot be read: ")


def test_waiting_ends_soon_where_the_run_is_stopped(quickly):
    """As on Ctrl-C of a simulation, whose patience is long."""
    engine = server.Grid(FlowerGrid(lambda one, count: "lost"), [1, 2, 3], patience=60.0)
    engine.names()
    threading.Timer(0.2, engine.stop.set).start()
    start = time.monotonic()
    with pytest.raises(RuntimeError, match="the run was stopped at message 1"):
        ask(engine)
    with pytest.raises(RuntimeError, match="the run was stopped at message 0"):
        server.Grid(FlowerGrid(nodes=()), [1], patience=60.0, stop=engine.stop).names()
    assert time.monotonic() - start < 30


@pytest.fixture
def simulated(monkeypatch, quickly):
    """Function (nodes) that gives a `Simulation` over a `FlowerGrid` with these, without Ray; its `Grid`s are in `made`."""
    def simulation_of(nodes):
        monkeypatch.setattr("flwr.simulation.run_simulation", lambda app, *rest, **options: app(FlowerGrid(nodes=nodes), None))
        return Simulation(federation(method("local")))

    class Noted(server.Grid):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            simulation_of.made.append(self)

    simulation_of.made = []
    monkeypatch.setattr(simulation, "Grid", Noted)
    monkeypatch.delenv("FLWR_HOME", raising=False)
    return simulation_of


def interrupted():
    raise KeyboardInterrupt


def test_a_simulation_waits_for_slow_clients_and_collects_at_its_end(simulated, monkeypatch):
    found, collected = simulated((11, 12, 13, 14)), []
    monkeypatch.setattr(found, "collect", lambda: collected.append(True))
    assert found.names() == [1, 2, 3, 4]
    found.close()
    assert simulated.made[0].patience >= 86400 and collected == [True]


def test_ctrl_c_ends_a_simulation_and_leaves_no_files(simulated, monkeypatch):
    found = simulated(())                                                     # it waits for nodes
    monkeypatch.setattr(found.answers, "get", interrupted)
    monkeypatch.setattr(found, "collect", lambda: pytest.fail("nothing is to be collected"))
    with pytest.raises(KeyboardInterrupt):
        found.names()
    closing = threading.Thread(target=found.close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive() and not found.thread.is_alive()
    assert not found.folder.exists() and "FLWR_HOME" not in os.environ


def test_a_simulation_cleans_up_where_the_end_goes_wrong(simulated, monkeypatch):
    found = simulated((11, 12, 13, 14))
    monkeypatch.setattr(found, "collect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        found.close()
    assert not found.folder.exists() and "FLWR_HOME" not in os.environ


@pytest.fixture
def written(tmp_path, capsys):
    folder = tmp_path / "my federation"
    assert cli.main(["flower", "init", str(folder), "--clients", "anna", "ben-2", "--address", "fed.example.org:8443"]) == 0
    assert "is ready for 2 clients" in capsys.readouterr().out
    return folder


def test_init_writes_a_deployment_whose_secrets_only_their_owner_reads(written):
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    files = {str(path.relative_to(written)) for path in written.rglob("*") if path.is_file()}
    assert files == {"README.md", "ca.key", "app/pyproject.toml", "app/federated.py", "server/start.sh", "server/register.sh",
                     "server/run.sh", "server/ca.crt", "server/server.crt", "server/server.key", "server/keys/anna.pub",
                     "server/keys/ben-2.pub", *(f"nodes/{name}/{file}" for name in ("anna", "ben-2")
                                                for file in ("start.sh", "ca.crt", "node.key"))}
    assert {name for name in files if (written / name).stat().st_mode & 0o077 == 0} == {
        name for name in files if name.endswith(".key")}
    ca, server_side = (x509.load_pem_x509_certificate((written / "server" / name).read_bytes())
                       for name in ("ca.crt", "server.crt"))
    server_side.verify_directly_issued_by(ca)
    names = server_side.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == {"localhost", "fed.example.org"}
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    keys = [load_ssh_private_key((written / "nodes" / name / "node.key").read_bytes(), None) for name in ("anna", "ben-2")]
    assert {key.curve.name for key in keys} == {"secp384r1"} and keys[0].private_numbers() != keys[1].private_numbers()


def test_what_init_writes_is_whole(written):
    """Commands that a shell reads, an app that runs in one process, and no place left unfilled."""
    for path in [*written.rglob("*.sh"), written / "README.md", *(written / "app").iterdir()]:
        assert not set(part for part in path.read_text().split() if part.startswith("@") and part.endswith("@"))
        if path.suffix == ".sh":
            subprocess.run(["sh", "-n", path], check=True)
    components = tomllib.loads((written / "app" / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["components"]
    assert components == {"serverapp": "federated:server_app", "clientapp": "federated:client_app"}
    ast.parse((written / "app" / "federated.py").read_text())
    said = subprocess.run([sys.executable, written / "app" / "federated.py"], capture_output=True, text=True, check=True)
    assert "anna" in said.stdout and "ben-2" in said.stdout
    for name in ("register", "run"):                                          # past a proxy that lets nodes through alone
        assert 'address = "127.0.0.1:8443"' in (written / "server" / f"{name}.sh").read_text()
    assert "flwr stop RUN_ID deployment" in (written / "server" / "run.sh").read_text()
    text = (written / "README.md").read_text()
    assert all(part in text for part in ("-r requirements-flower.lock", "--no-deps", "flwr stop RUN_ID", "registers"))
    assert "/v1/control" in text and "sh nodes/ben-2/start.sh" in text and "fed.example.org:8443" in text


def test_register_says_where_the_superlink_was_never_reached(written, tmp_path):
    for name, text in {"flwr": "exit 1", "sleep": "exit 0", "flower-superlink": "exit 0"}.items():
        (tmp_path / "bin").mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    said = subprocess.run(["sh", written / "server" / "register.sh"], capture_output=True, text=True,
                          env=os.environ | {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"})
    assert said.returncode == 1 and "SuperLink: got no answer at 127.0.0.1:8443, expected one" in said.stderr
    assert "registered before?" not in said.stdout


@pytest.mark.parametrize(("arguments", "message"), [
    (["full", "--clients", "a", "b"], "folder: got full, expected a new or empty one"),
    (["new", "--clients", "a", "../b"], r"clients: got '../b', expected letters, digits, '_', '-' and '.'"),
    (["new", "--clients", "a", "A"], "clients: got ['a', 'A'], expected different names, at least one"),
    (["new", "--clients", "a", "--address", "here"], "address: got 'here', expected HOST:PORT"),
    (["new", "--clients", "a", "--address", "here:99999"], "address: got 'here:99999', expected HOST:PORT")])
def test_bad_arguments_of_init_are_refused_and_nothing_is_written(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert cli.main(["flower", "init", *arguments]) == 2
    assert f"fedmuscle: {message}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full"]


def test_without_the_extra_init_says_how_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert cli.main(["flower", "init", str(tmp_path / "new"), "--clients", "a"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install -r requirements-flower.lock" in said and not (tmp_path / "new").exists()


def test_apps_of_methods_that_cannot_travel_are_refused(tmp_path):
    with pytest.raises(ValueError, match="M-Fed, expected a method that can travel"):
        flower.client_app(None, MFed())
    with pytest.raises(ValueError, match="FedMuscle, expected a method that can travel"):
        server.play(federation(FedMuscle(num_peers=1, batch_size=8), clients=()), None, CLIENTS, 1, tmp_path)

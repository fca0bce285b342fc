"""Clients that wait in files give the same run, with one network in memory at a time."""

import gc
import weakref

import pandas as pd
import pytest
from rounds import fit
from small_clients import VARIANTS, federation, method
from small_clients import fit as small_fit

from fedmuscle_core.experiments import build as building
from fedmuscle_core.experiments import runs
from fedmuscle_core.experiments.build import build
from fedmuscle_core.experiments.parked import ParkedClients
from fedmuscle_core.methods import METHODS

# With refresh "batch" clients keep a graph between two stages, for which the network must stay.
PARKABLE = [(name, changes) for name, changes in VARIANTS if getattr(METHODS[name](**changes), "refresh", "round") == "round"]
PARKABLE += [("pairwise", {"refresh": "round"}), ("gramian", {"refresh": "round"}),
             ("fedmuscle", {"refresh": "round", "peer_choice": "bandit"})]


@pytest.mark.parametrize(("name", "changes"), PARKABLE, ids=[" ".join(map(str, (name, *changes.values())))
                                                              for name, changes in PARKABLE])
@pytest.mark.parametrize("absence", [0.0, 0.5])
def test_parked_clients_give_the_same_run_to_the_last_bit(tmp_path, name, changes, absence):
    here = federation(method(name, **changes), absence=absence)
    away = federation(method(name, **changes), absence=absence, parked=tmp_path)
    pd.testing.assert_frame_equal(small_fit(here), small_fit(away), check_exact=True)
    assert here.alignment == away.alignment and here.ledger.entries == away.ledger.entries


def test_so_do_those_of_a_setup(tiny, tmp_path):
    settings = tiny(refresh="round", rounds=1)
    (here, one), (away, other) = fit(settings), fit(settings, tmp_path)
    assert isinstance(other.clients, ParkedClients)
    pd.testing.assert_frame_equal(here, away, check_exact=True)
    assert one.alignment == other.alignment


def test_no_other_network_is_in_memory_while_one_is_made(tiny, tmp_path, monkeypatch):
    seen, alive, make_client = [], weakref.WeakSet(), building.make_client

    def counting(*arguments):
        if alive:
            gc.collect()
        seen.append(len(alive))
        client = make_client(*arguments)
        alive.add(client.network)
        return client

    monkeypatch.setattr(building, "make_client", counting)
    fit(tiny(refresh="round", rounds=1), tmp_path)
    assert len(seen) >= 12 and set(seen) == {0}
    together = build(tiny(refresh="round"))
    assert seen[-3:] == [0, 1, 2] and len(together.clients) == 3


def test_a_client_kept_after_its_turn_has_no_network(tiny, tmp_path):
    first, *_ = build(tiny(method="local"), tmp_path).clients
    assert first.name == 1 and first.network is None


def test_a_method_that_needs_all_networks_at_once_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="parked: got a folder with fedmuscle and refresh 'batch'.*expected refresh 'round'"):
        build(tiny(), tmp_path)


def test_states_of_an_earlier_federation_in_the_folder_are_not_taken_up(tiny, tmp_path):
    settings = tiny(method="local", rounds=1)
    tables = [runs.run(settings, tmp_path / where, progress=False, parked=tmp_path / "parked")[1] for where in ("one", "two")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert len(build(settings, tmp_path / "parked").clients) == 3


def test_a_parked_client_that_was_damaged_is_named(tmp_path):
    waiting = federation(method("local"), parked=tmp_path)
    small_fit(waiting, 1)
    path = tmp_path / "parked2.state"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"parked2\.state: got a damaged state"):
        small_fit(waiting, 2)


def test_a_full_disk_names_the_parked_client(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")
    waiting = federation(method("local"), parked=tmp_path)
    monkeypatch.setattr("torch.save", full)
    with pytest.raises(OSError, match=r"parked1\.state: the state could not be written \(.*No space left"):
        small_fit(waiting, 1)


def test_files_of_others_in_the_folder_stay(tmp_path):
    others = ["client1.pt", "client7.pt", "clients.pt"]
    for name in others:
        (tmp_path / name).write_text("mine")
    small_fit(federation(method("local"), parked=tmp_path), 1)
    assert all((tmp_path / name).read_text() == "mine" for name in others)

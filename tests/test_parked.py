import gc

import pandas as pd
import pytest

from fedmuscle_core import federation
from fedmuscle_core.experiments import runs as experiment
from fedmuscle_core.networks.client_network import ClientModel


@pytest.mark.parametrize("change", [{"method": "local"}, {"method": "simclr"}, {"method": "fedhenn"}, {"method": "cofed"},
                                    {"method": "fedmuscle", "refresh": "round"}, {"method": "pairwise", "refresh": "round"}])
def test_parked_clients_give_the_same_run_to_the_last_bit(tiny, tmp_path, change):
    settings = tiny(**change)
    with experiment.one_thread():
        here, alignment = federation.train(federation.build(settings), progress=False)
        parked, same = federation.train(federation.build(settings, tmp_path / "parked"), progress=False)
    pd.testing.assert_frame_equal(here, parked, check_exact=True)
    assert alignment == same


def networks():
    gc.collect()
    return sum(type(thing) is ClientModel for thing in gc.get_objects())


def test_no_other_network_is_in_memory_while_one_is_made(tiny, tmp_path, monkeypatch):
    seen, make_client = [], federation.make_client

    def counting(*arguments):
        seen.append(networks())
        return make_client(*arguments)

    monkeypatch.setattr(federation, "make_client", counting)
    before = networks()
    with experiment.one_thread():
        federation.train(federation.build(tiny(method="fedmuscle", refresh="round", rounds=1), tmp_path), progress=False)
    assert len(seen) >= 12 and set(seen) == {before}
    federation.build(tiny(method="fedmuscle", refresh="round"))
    assert max(seen) == before + 2


def test_a_client_kept_after_its_turn_has_no_network(tiny, tmp_path):
    first, *_ = federation.build(tiny(method="local"), tmp_path).clients
    assert first.index == 1 and first.model is None


def test_a_method_that_needs_all_networks_at_once_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="parked: got a folder with fedmuscle and refresh 'batch'.*expected refresh 'round'"):
        federation.build(tiny(method="fedmuscle"), tmp_path)


def test_states_of_an_earlier_federation_in_the_folder_are_not_taken_up(tiny, tmp_path):
    settings, tables = tiny(method="local", rounds=1), []
    for _ in range(2):
        _, history = experiment.run(settings, tmp_path / "runs", progress=False, parked=tmp_path / "parked")
        tables.append(history)
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert len(federation.build(settings, tmp_path / "parked").clients) == 3

import gc

import pandas as pd
import pytest

from fedmuscle_core import experiment, federation
from fedmuscle_core.models import ClientModel


@pytest.mark.parametrize("change", [{"method": "local"}, {"method": "simclr"}, {"method": "fedhenn"}, {"method": "cofed"},
                                    {"method": "fedmuscle", "refresh": "round"}, {"method": "pairwise", "refresh": "round"}])
def test_parked_clients_give_the_same_run_to_the_last_bit(tiny, tmp_path, change):
    settings = tiny(**change)
    with experiment.one_thread():
        here, alignment = federation.train(federation.build(settings), progress=False)
        parked, same = federation.train(federation.build(settings, tmp_path / "parked"), progress=False)
    pd.testing.assert_frame_equal(here, parked, check_exact=True)
    assert alignment == same


def test_one_network_at_a_time_is_in_memory(tiny, tmp_path, monkeypatch):
    seen, evaluate = [], federation.evaluate

    def counting(client, split):
        gc.collect()
        seen.append(sum(type(thing) is ClientModel for thing in gc.get_objects()))
        return evaluate(client, split)

    monkeypatch.setattr(federation, "evaluate", counting)
    gc.collect()
    before = sum(type(thing) is ClientModel for thing in gc.get_objects())
    federation.train(federation.build(tiny(method="fedmuscle", refresh="round"), tmp_path), progress=False)
    assert max(seen) - before == 1
    federation.train(federation.build(tiny(method="fedmuscle", refresh="round")), progress=False)
    assert max(seen) - before == 3


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

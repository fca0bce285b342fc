import pandas as pd
import pytest
import torch

from fedmuscle_core import federation
from fedmuscle_core.exchange import bytes_per_step
from fedmuscle_core.experiments.runs import one_thread
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.methods import ALIGNING, METHODS
from fedmuscle_core.methods.contrastive import full_batches
from fedmuscle_core.methods.fedmuscle import muscle_phase
from fedmuscle_core.seeds import generator, stream_seed


def train(settings, reverse=False):
    with one_thread():
        built = federation.build(settings)
        if reverse:
            built.clients.reverse()
        return federation.train(built, progress=False)


@pytest.mark.parametrize("method", METHODS)
def test_same_settings_and_seed_same_result_whatever_the_order_of_clients(tiny, shared, method):
    make = tiny if method in ALIGNING else shared
    settings = make(method=method)
    history, alignment = train(settings)
    torch.rand(7)
    again, alignment_again = train(settings, reverse=True)
    pd.testing.assert_frame_equal(history, again, check_exact=True)
    assert alignment == alignment_again
    other, _ = train(make(method=method, seed=1))
    assert not history["value"].equals(other["value"])


def test_the_history_is_tidy_and_complete(tiny):
    history, alignment = train(tiny(method="fedmuscle"))
    assert list(history.columns) == federation.COLUMNS
    keys = history.groupby(["client", "metric", "split"])["round"].apply(list).to_dict()
    for client, metric in [(1, "mAP"), (2, "accuracy"), (3, "accuracy")]:
        assert keys[client, metric, "validation"] == [0, 1, 2]
        assert keys[client, metric, "test"] == [2]
        assert keys[client, "contrastive_loss", "train"] == keys[client, "local_loss", "train"] == [1, 2]
    assert history["value"].between(0, 100).all() and set(history["task"]) == {"mlc", "ic100", "ic10"}
    assert all(len(alignment[when]["cka"]) == 3 for when in ("before", "after"))


@pytest.mark.parametrize("protocol", ["matrices", "tuples"])
def test_bytes_in_the_history_are_the_closed_form_to_the_byte(tiny, protocol):
    settings = tiny(method="fedmuscle", protocol=protocol, rounds=1, contrastive_epochs=2)
    history, _ = train(settings)
    steps = 2 * (settings.public_size // settings.batch_size)
    expected = steps * sum(bytes_per_step(settings.batch_size, settings.num_peers, settings.dim, protocol))
    assert set(history[history["round"] == 1]["bytes"]) == {expected}
    assert set(history[history["round"] == 0]["bytes"]) == {0}


def test_both_protocols_train_the_same_federation(tiny):
    losses = [train(tiny(method="fedmuscle", protocol=protocol))[0].query("split == 'train'")["value"].to_numpy()
              for protocol in ("matrices", "tuples")]
    assert len(losses[0]) == 12 and abs(losses[0] - losses[1]).max() < 0.01


def test_local_exchanges_nothing_and_methods_differ_only_in_the_contrastive_phase(tiny):
    local, _ = train(tiny(method="local"))
    muscle, _ = train(tiny(method="fedmuscle"))
    assert set(local["bytes"]) == {0}
    start = [history[history["round"] == 0]["value"].tolist() for history in (local, muscle)]
    assert start[0] == start[1]


def test_contrastive_phase_leaves_the_heads_alone_and_lowers_the_loss(tiny):
    built = federation.build(tiny(method="fedmuscle", contrastive_epochs=6))
    heads = [client.model.head.weight.clone() for client in built.clients]
    first = muscle_phase(built, 1)
    second = muscle_phase(built, 2)
    assert all(torch.equal(head, client.model.head.weight) for head, client in zip(heads, built.clients, strict=True))
    assert all(second[index] < first[index] for index in first)


def test_alignment_makes_representations_of_the_same_scene_find_each_other(tiny):
    _, alignment = train(tiny(method="fedmuscle", public_size=128, contrastive_epochs=3))
    before, after = (alignment[when]["retrieval"] for when in ("before", "after"))
    for n, m in [(0, 1), (1, 2), (2, 0)]:
        assert after[n][m] > before[n][m] + 0.02


def test_full_batches_cover_an_epoch_without_repetition():
    batches = full_batches(20, 8, generator(0))
    assert [len(rows) for rows in batches] == [8, 8]
    assert len(set(torch.cat(batches).tolist())) == 16


def test_streams_are_distinct_and_repeatable():
    assert stream_seed(0, "client", 1) == stream_seed(0, "client", 1)
    seeds = {stream_seed(seed, name, index) for seed in (0, 1) for name in ("client", "peers") for index in range(50)}
    assert len(seeds) == 200


@pytest.mark.parametrize(("change", "message"), [
    ({"method": "sage"}, "method: got 'sage', expected one of"),
    ({"setup": "setup9"}, "setup: got 'setup9', expected one of"),
    ({"tau_prev": 0.5}, "tau_prev: got 0.5, expected at most tau = 0.2"),
    ({"setup": "setup2"}, r"public_domain: got 'single', expected 'pairs': clients \[9, 10\] of setup2 read captions"),
    ({"public_size": 16}, "public_size: got 16, expected at least batch_size = 32"),
    ({"num_peers": 6}, "num_peers: got 6, expected 1 to 5: setup1 has 6 clients"),
])
def test_bad_settings_are_refused_before_any_work(change, message):
    with pytest.raises(ValueError, match=message):
        federation.build(Settings(**change))


def test_training_from_scratch_beats_chance():
    """Three clients, eight rounds of FedMuscle: validation scores before, no better than chance, and test scores after."""
    settings = Settings(setup="quickstart", num_peers=2, rounds=8, public_size=128, test_size=500)
    history, _ = train(settings)
    start = history[history["round"] == 0].set_index("task")["value"]
    assert start["mlc"] < 35 and start["ic100"] < 4 and start["ic10"] < 20
    test = history[history["split"] == "test"].set_index("task")["value"]
    assert test["mlc"] > 60       # chance: 24, the share of scenes with a given digit
    assert test["ic100"] > 3      # chance: 1
    assert test["ic10"] > 25      # chance: 10

"""The contrastive phase: batches, absent clients, uploads once a round, tuples drawn."""

import pytest
import torch

from fedmuscle_core import federation
from fedmuscle_core.exchange import bytes_per_step
from fedmuscle_core.experiments.runs import one_thread
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.methods.contrastive import public_batches, taking_part


def train(settings, parked=None):
    with one_thread():
        built = federation.build(settings, parked)
        return federation.train(built, progress=False)[0], built


def test_batches_are_whole_passes_or_as_many_as_asked():
    passes, _ = public_batches(Settings(public_size=20, batch_size=8, contrastive_epochs=2), 1)
    assert [len(rows) for rows in passes] == [8] * 4
    assert all(len(set(torch.cat(passes[i:i + 2]).tolist())) == 16 for i in (0, 2))
    for steps in (1, 3, 7):
        few, _ = public_batches(Settings(public_size=20, batch_size=8, contrastive_epochs=2, contrastive_steps=steps), 1)
        assert len(few) == steps and all(torch.equal(a, b) for a, b in zip(few, passes, strict=False))
    other, _ = public_batches(Settings(public_size=20, batch_size=8), 2)
    assert not torch.equal(other[0], passes[0])


def test_every_method_with_batches_gets_the_same_ones(tiny):
    by_method = {method: public_batches(tiny(method=method, contrastive_epochs=2), 3)[0] for method in ("simclr", "fedmuscle")}
    assert all(torch.equal(a, b) for a, b in zip(*by_method.values(), strict=True))


def test_clients_miss_the_share_of_rounds_that_absence_says():
    settings = Settings(absence=0.3)
    rounds = [taking_part(settings, round) for round in range(1, 1001)]
    for index in range(1, 7):
        assert sum(index in present for present in rounds) / 1000 == pytest.approx(0.7, abs=0.06)    # 4 standard deviations
    assert taking_part(Settings(), 1) == [1, 2, 3, 4, 5, 6]


def absent_rounds(settings):
    """A seed in whose first two rounds someone is absent, and who is there."""
    for seed in range(50):
        present = [taking_part(settings.replace(seed=seed), round) for round in (1, 2)]
        if len(present[0]) == 3 and len(present[1]) == 2:
            return settings.replace(seed=seed), present
    raise AssertionError("no such seed")


@pytest.mark.parametrize("refresh", ["batch", "round"])
def test_an_absent_client_exchanges_nothing_and_still_trains_locally(tiny, refresh):
    settings, (_, second) = absent_rounds(tiny(method="fedmuscle", num_peers=1, absence=0.3, refresh=refresh))
    (absent,) = set(range(1, 4)) - set(second)
    history, _ = train(settings)
    there = history[(history["round"] == 2) & (history["split"] == "train")]
    assert set(there[there["metric"] == "contrastive_loss"]["client"]) == set(second)
    assert set(there[there["metric"] == "local_loss"]["client"]) == {1, 2, 3}
    sent = history[history["round"] == 2].groupby("client")["bytes"].max()
    assert sent[absent] == 0 and (sent[list(second)] > 0).all()


def test_everybody_absent_is_a_local_round(tiny):
    history, _ = train(tiny(method="fedmuscle", absence=0.999))
    local, _ = train(tiny(method="local"))
    scores = [table[table["split"] != "train"]["value"].tolist() for table in (history, local)]
    assert scores[0] == scores[1]


def test_with_refresh_round_an_absent_client_still_serves_what_it_uploaded_last(tiny):
    settings, (_, second) = absent_rounds(tiny(method="fedmuscle", num_peers=2, absence=0.3, refresh="round"))
    (absent,) = set(range(1, 4)) - set(second)
    _, built = train(settings)
    _, before = train(settings.replace(rounds=1))
    assert torch.equal(built.memory[absent], before.memory[absent])           # uploaded in round 1, served in round 2
    assert not torch.equal(built.memory[second[0]], before.memory[second[0]])
    steps = settings.public_size // settings.batch_size
    down = steps * bytes_per_step(settings.batch_size, 2, settings.dim, "matrices")[1]
    assert built.ledger.entries[2, second[0], "down"] == down                 # two peers, one of them absent


def test_refresh_round_uploads_the_public_set_once(tiny):
    settings = tiny(method="fedmuscle", refresh="round", contrastive_epochs=3)
    _, built = train(settings)
    assert built.ledger.entries[1, 1, "up"] == settings.public_size * settings.dim * 4
    steps = 3 * (settings.public_size // settings.batch_size)
    assert built.ledger.entries[1, 1, "down"] == steps * bytes_per_step(settings.batch_size, 2, settings.dim, "matrices")[1]


def test_sampled_training_follows_the_exact_one(tiny):
    exact, _ = train(tiny(method="fedmuscle"))
    drawn, _ = train(tiny(method="fedmuscle", num_samples=2048))
    again, _ = train(tiny(method="fedmuscle", num_samples=2048))
    losses = [table[table["metric"] == "contrastive_loss"]["value"].to_numpy() for table in (exact, drawn)]
    first = [values[:3] for values in losses]                                 # before small differences add up
    assert 0 < abs(first[0] - first[1]).max() < 0.02, losses
    assert drawn.equals(again)


@pytest.mark.parametrize(("change", "message"), [
    ({"num_samples": 8, "protocol": "tuples"}, "num_samples: got 8, expected 0 with protocol 'tuples'"),
    ({"refresh": "round", "augment": True}, "augment: got True, expected False with refresh 'round'"),
    ({"peer_choice": "bandit", "method": "gramian"}, "peer_choice: got 'bandit'.*gramian"),
    ({"peer_choice": "bandit", "absence": 0.5}, "peer_choice: got 'bandit'.*absent"),
    ({"setup": "setup2", "public_domain": "pairs", "num_peers": 7}, "num_samples: got 0 with 7 peers and batches of 32"),
    ({"num_peers": 5, "protocol": "tuples"}, "protocol: got 'tuples' with 5 peers and batches of 32, expected 'matrices'"),
])
def test_settings_that_contradict_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        federation.build(Settings(**change))

"""The contrastive phase: batches, absent clients, uploads once a round, tuples drawn, parts of batches."""

import pytest
import torch
from rounds import begin, fit, play
from small_clients import CLIENTS, federation, images, method
from small_clients import fit as small_fit

from fedmuscle_core import CoFED, FedMuscle, Gramian, Pairwise, Settings, SimCLR
from fedmuscle_core.exchange import bytes_per_step
from fedmuscle_core.experiments.build import check
from fedmuscle_core.methods import contrastive, fedhenn, simclr
from fedmuscle_core.methods.contrastive import full_batches
from fedmuscle_core.seeds import generator


def test_full_batches_cover_an_epoch_without_repetition():
    batches = full_batches(20, 8, generator(0))
    assert [len(rows) for rows in batches] == [8, 8]
    assert len(set(torch.cat(batches).tolist())) == 16


def test_batches_are_whole_passes_or_as_many_as_asked():
    passes, _ = FedMuscle(batch_size=8, contrastive_epochs=2).public_batches(0, 20, 1)
    assert [len(rows) for rows in passes] == [8] * 4
    assert all(len(set(torch.cat(passes[i:i + 2]).tolist())) == 16 for i in (0, 2))
    for steps in (1, 3, 7):
        asked = FedMuscle(batch_size=8, contrastive_epochs=2, contrastive_steps=steps)
        few, _ = asked.public_batches(0, 20, 1)
        assert len(few) == steps == asked.num_batches(20)
        assert all(torch.equal(a, b) for a, b in zip(few, passes, strict=False))
    for seed, round in ((0, 2), (1, 1)):
        other, _ = FedMuscle(batch_size=8).public_batches(seed, 20, round)
        assert not torch.equal(other[0], passes[0])


def test_every_method_with_public_batches_gets_the_same_ones(monkeypatch):
    seen, public_batch = {}, contrastive.public_batch
    for name in ("simclr", "fedhenn", "gramian", "pairwise", "fedmuscle"):
        rows_of = seen.setdefault(name, [])

        def noted(client, rows, *rest, rows_of=rows_of):
            if client.name == 1 and rows.tolist() not in rows_of:
                rows_of.append(rows.tolist())
            return public_batch(client, rows, *rest)

        for module in (simclr, fedhenn, contrastive):
            monkeypatch.setattr(module, "public_batch", noted)
        small_fit(federation(method(name)), 2)
    assert len(seen["fedmuscle"]) == 4
    assert all(rows == seen["fedmuscle"] for rows in seen.values())


@pytest.mark.parametrize("name", ["fedhenn", "gramian", "pairwise", "fedmuscle"])
def test_augmentation_is_an_option_of_every_aligning_method(name):
    runs = [small_fit(federation(method(name, augment=augment)), 1)["value"] for augment in (False, True)]
    assert not runs[0].equals(runs[1])


def absent_once(options):
    """(federation, client) in whose first round all are there, and in the second that client is not."""
    for seed in range(200):
        found = federation(method("fedmuscle", **options), seed=seed, absence=0.3)
        if len(found.server.present(1)) == 4 and len(found.server.present(2)) == 3:
            return found, *(set(CLIENTS) - set(found.server.present(2)))
    raise AssertionError("no such seed")


@pytest.mark.parametrize("options", [{}, {"refresh": "round"}, {"peer_choice": "bandit"}])
def test_an_absent_client_exchanges_nothing_and_still_trains_locally(options):
    found, absent = absent_once(options)
    history = small_fit(found, 2)
    there = history[(history["round"] == 2) & (history["split"] == "train")]
    assert set(there[there["metric"] == "contrastive_loss"]["client"]) == set(CLIENTS) - {absent}
    assert set(there[there["metric"] == "local_loss"]["client"]) == set(CLIENTS)
    sent = history[history["round"] == 2].groupby("client")["bytes"].max()
    assert sent[absent] == 0 and (sent[sent.index != absent] > 0).all()


def test_a_bandit_learns_from_those_who_were_there_in_both_rounds():
    found, absent = absent_once({"peer_choice": "bandit", "num_peers": 1})
    small_fit(found, 1)
    first = dict(found.server.memory.losses)
    assert set(first) == set(CLIENTS) and found.server.memory.gains == {}
    small_fit(found, 2)
    assert found.server.memory.losses[absent] == first[absent]
    assert {client for client, _ in found.server.memory.gains} == set(CLIENTS) - {absent}
    assert absent not in {peer for _, peer in found.server.memory.gains}


def test_with_refresh_round_an_absent_client_still_serves_what_it_uploaded_last():
    found, absent = absent_once({"num_peers": 3, "refresh": "round"})
    small_fit(found, 1)
    before = dict(found.server.memory.uploads)
    small_fit(found, 2)
    after = found.server.memory.uploads
    assert torch.equal(after[absent], before[absent])                           # uploaded in round 1, served in round 2
    down = (20 // 8) * bytes_per_step(8, 3, 6, "matrices")[1]
    for client in set(CLIENTS) - {absent}:
        assert not torch.equal(after[client], before[client])
        assert found.ledger.entries[2, client, "down"] == down                  # three peers, one of them absent


def test_fewer_peers_where_fewer_are_there():
    found, absent = absent_once({"num_peers": 3})
    small_fit(found, 2)
    (there, *_) = set(CLIENTS) - {absent}
    down = [found.ledger.entries[round, there, "down"] for round in (1, 2)]
    assert down == [2 * bytes_per_step(8, peers, 6, "matrices")[1] for peers in (3, 2)]


def test_refresh_round_uploads_the_public_set_once():
    found = federation(method("fedmuscle", refresh="round", contrastive_epochs=3))
    small_fit(found, 1)
    assert found.ledger.entries[1, 1, "up"] == 20 * 6 * 4
    assert found.ledger.entries[1, 1, "down"] == 3 * (20 // 8) * bytes_per_step(8, 2, 6, "matrices")[1]


@pytest.mark.parametrize("refresh", ["batch", "round"])
def test_what_is_served_are_the_peers_rows_of_the_batch(monkeypatch, refresh):
    """Unit length, of the very rows that the client embeds; a sum of peers' rows would not be."""
    found = federation(method("fedmuscle", refresh=refresh))
    served, embedded, loss = {}, {}, FedMuscle.loss

    def noted(self, client, anchor, payload, kinds, where):
        served[client.name, where] = payload[0]
        embedded[client.name, where] = anchor.detach().clone()
        return loss(self, client, anchor, payload, kinds, where)

    monkeypatch.setattr(FedMuscle, "loss", noted)
    begin(found, 1)
    play(found, 1)
    rows, _ = found.method.public_batches(0, 20, 1)
    assert set(served) == {(client, (1, number)) for client in CLIENTS for number in range(2)}
    for (client, (_, number)), peers in served.items():
        sent = {peer: embedded[peer, (1, number)] if refresh == "batch" else found.server.memory.uploads[peer][rows[number]]
                for peer in CLIENTS}
        members = [[peer for peer, rows in sent.items() if torch.equal(theirs, rows)] for theirs in peers]
        assert [len(several) for several in members] == [1, 1] and members[0] != members[1] and [client] not in members


def test_sampled_training_follows_the_exact_one(tiny):
    exact, drawn, again = (fit(tiny(num_samples=number, rounds=1))[0] for number in (0, 2048, 2048))
    losses = [table[table["metric"] == "contrastive_loss"]["value"].to_numpy() for table in (exact, drawn)]
    assert len(losses[0]) == 3 and 0 < abs(losses[0] - losses[1]).max() < 0.02, losses
    assert drawn.equals(again)


@pytest.mark.parametrize("size", [3, 8])
@pytest.mark.parametrize("offload", [False, True])
def test_a_batch_in_parts_or_a_graph_made_again_gives_the_same_losses(size, offload):
    """Up to rounding, without dropout and running means, which see other parts."""
    def losses(micro_batch_size, offload):
        found = federation(method("fedmuscle"), plain=True)
        for client in found.clients:
            client.micro_batch_size, client.offload = micro_batch_size, offload
        history = small_fit(found, 2)
        return history[history["metric"] == "contrastive_loss"]["value"].to_numpy()
    assert losses(size, offload) == pytest.approx(losses(None, False), rel=1e-4)


def test_dropout_repeats_when_a_graph_is_made_again():
    """What is uploaded is what the step's gradient is of."""
    found = federation(method("fedmuscle"))
    begin(found, 1)
    client, asked = found.clients[0], {"round": 1, "batch": 0}
    client.micro_batch_size = 3
    state = {name: value.clone() for name, value in client.network.state_dict().items()}
    sent = found.method.embed(client, asked)["representations"]
    client.network.load_state_dict(state)                                       # the running mean has moved on
    parts = found.method.micro_batches(client, (1, 0))
    assert [len(part) for part in parts] == [3, 3, 2]
    again = [contrastive.embed(client, part, 1, 0, place) for place, part in enumerate(parts)]
    assert torch.equal(torch.cat(again), sent)


BAD_UPLOADS = {
    "longer": (lambda rows: 2 * rows, "got representations of lengths 2 to 2, expected 1"),
    "zero": (lambda rows: 0 * rows, "got representations of lengths 0 to 0, expected 1"),
    "fewer": (lambda rows: rows[1:], r"got 'representations' as float32 of shape \(7, 6\), expected float32 of shape \(8, 6\)"),
    "wider": (lambda rows: torch.cat([rows, rows], 1), r"of shape \(8, 12\), expected float32 of shape \(8, 6\)"),
    "half": (lambda rows: rows.bfloat16(), r"got 'representations' as bfloat16 of shape \(8, 6\), expected float32"),
}


@pytest.mark.parametrize(("change", "message"), BAD_UPLOADS.values(), ids=BAD_UPLOADS)
def test_what_is_no_unit_length_representation_is_refused(change, message):
    rows = torch.nn.functional.normalize(images(8, "rows").flatten(1)[:, :6])
    found = method("fedmuscle")
    found.check_upload({"representations": rows}, 8, 6)
    with pytest.raises(ValueError, match=message):
        found.check_upload({"representations": change(rows)}, 8, 6)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: FedMuscle(num_samples=8, protocol="tuples"), "num_samples: got 8, expected 0 with protocol 'tuples'"),
    (lambda: FedMuscle(own_views=True), "own_views: got True without augment, expected False"),
    (lambda: FedMuscle(refresh="round", augment=True), "augment: got True, expected False with refresh 'round'"),
    (lambda: Gramian(peer_choice="bandit"), "peer_choice: got 'bandit'.*Gramian"),
    (lambda: check(Settings.of("embedded2", public_domain="pairs", num_peers=7)),
     "num_samples: got 0 with 7 peers and batches of 32"),
    (lambda: check(Settings.of(num_peers=5, protocol="tuples")),
     "protocol: got 'tuples' with 5 peers and batches of 32, expected 'matrices'"),
    (lambda: check(Settings.of(method="pairwise", num_peers=6)), "num_peers: got 6, expected 1 to 5: there are 6 clients"),
    (lambda: check(Settings.of(method="simclr", public_size=31)), "public_size: got 31, expected at least batch_size = 32"),
    (lambda: check(Settings.of(method="fedhenn", public_size=31)), "public_size: got 31, expected at least batch_size = 32"),
])
def test_values_that_contradict_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_costs_too_much_for_the_exact_loss_is_fine_for_others():
    for found in (Pairwise(num_peers=7), FedMuscle(num_peers=7, num_samples=8), Gramian(num_peers=7), SimCLR(), CoFED()):
        found.check(10, 512, 64)


def test_clients_see_one_view_of_a_public_batch_or_each_its_own():
    plain, same, own = (federation(method("fedmuscle", **changes), plain=True) for changes in (
        {}, {"augment": True}, {"augment": True, "own_views": True}))
    batches = [[found.method.public_batch(client, (1, 0)) for client in found.clients] for found in (plain, same, own)]
    assert all(torch.equal(batches[0][0], other) for other in batches[0]) and not torch.equal(batches[0][0], batches[1][0])
    assert all(torch.equal(batches[1][0], other) for other in batches[1])
    assert len({batch.sum().item() for batch in batches[2]}) == len(own.clients)
    assert torch.equal(own.method.public_batch(own.clients[1], (1, 0)), batches[2][1])

"""CreamFL: every formula against loops over single numbers, a round by hand, what travels, and between what it stands."""

import copy
import dataclasses
import math

import pytest
import tiny_world
import torch
import torch.nn.functional as F
from literal import info_nce_loops, muscle_tuples
from rounds import equal, states
from torch import nn

from fedmuscle_core import Client, Federation, Local, Training, classification, info_nce, retrieval
from fedmuscle_core.experiments import build as building
from fedmuscle_core.experiments import trunks
from fedmuscle_core.experiments.build import build, world_for
from fedmuscle_core.experiments.profiles import profile_settings
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.setups import SETUPS, Setup
from fedmuscle_core.methods import creamfl
from fedmuscle_core.methods.creamfl import CreamFL, CreamFLMuscle, Distilled, aggregate, intra
from fedmuscle_core.networks.pair_network import PairNetwork, PairRepresentation, packed
from fedmuscle_core.seeds import generator, seeded
from fedmuscle_core.tasks import PairContrast, recalls
from fedmuscle_core.world.real import sources, splits

PUBLIC, DIM, WORDS = 20, 6, 5
TRAINING = Training(local_lr=1e-2, local_batch_size=8, min_local_steps=3)
SMALL = {"batch_size": 8, "contrastive_lr": 1e-2}
METHODS = (CreamFL, CreamFLMuscle, Distilled)


def units(count, *names):
    return F.normalize(torch.randn(count, DIM, generator=generator(0, "units", *names), dtype=torch.float64), dim=1)


def words(count, *names):
    return torch.randint(1, 9, (count, WORDS), generator=generator(0, "words", *names))


def images(count, *names):
    return torch.rand(count, 3, 4, 4, generator=generator(0, "images", *names))


class Words(nn.Module):
    """Token ids (B, L) -> (B, d)."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(9, 5), nn.Linear(5, DIM)

    def forward(self, ids):
        return self.out(self.table(ids).mean(1))


def image_model():
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 7), nn.Tanh(), nn.Linear(7, DIM))


class Pairs(PairNetwork):
    """Without backbones."""

    def __init__(self, representation):
        nn.Module.__init__(self)
        self.representation, self.head, self.draws = representation, nn.Identity(), False


def client(name, kind, size=12):
    """Of images, of texts, of both, or the server's own, "centre"."""
    public = {"image": images(PUBLIC, "public"), "text": words(PUBLIC, "public")}
    public["both"] = public["centre"] = packed(public["image"], public["text"])
    with seeded(0, "client", name):
        if kind in ("image", "text"):
            task = dataclasses.replace(classification(3, f"{kind}s"), modality=kind)
            inputs = {split: (images if kind == "image" else words)(size, name, split) for split in ("train", "test")}
            data = {split: (found, torch.arange(size) % 3) for split, found in inputs.items()}
            encoder, head = image_model() if kind == "image" else Words(), nn.Linear(DIM, 3)
        else:
            encoder, head = Pairs(PairRepresentation(image_model(), Words(), (3, 4, 4), (WORDS,))), None
            task = retrieval(DIM, kind)
            data = {split: (packed(images(size, name, split), words(size, name, split)), torch.arange(size))
                    for split in ("train", "test")}
            if kind == "centre":
                data["train"] = public["centre"], torch.arange(PUBLIC)
        return Client(name, encoder, head, task, **data, public=public[kind])


KINDS = {1: "centre", 2: "image", 3: "image", 4: "text", 5: "both"}


def federation(method, kinds=KINDS, **options):
    return Federation([client(*one) for one in kinds.items()], method, training=TRAINING, **options)


def test_the_loss_of_pairs_is_cross_entropy_both_ways_and_recalls_count_who_comes_before():
    rows, texts = units(7, "a"), units(7, "b")
    logits = [[sum(float(x * y) for x, y in zip(one, other, strict=True)) / 0.3 for other in texts] for one in rows]
    both = []
    for table in (logits, list(map(list, zip(*logits, strict=True)))):
        both.append(sum(math.log(sum(map(math.exp, row))) - row[place] for place, row in enumerate(table)) / 7)
    outputs = torch.cat([rows, texts], 1)
    assert PairContrast(0.3)(outputs, None).item() == pytest.approx(sum(both) / 2)
    found = recalls(outputs, (1, 3))
    for rank in (1, 3):
        hits = [sum(value > row[place] for value in row) < rank for place, row in enumerate(logits)]
        assert found[f"i2t R@{rank}"] == pytest.approx(100 * sum(hits) / 7)
        hits = [sum(row[place] > logits[place][place] for row in logits) < rank for place in range(7)]
        assert found[f"t2i R@{rank}"] == pytest.approx(100 * sum(hits) / 7)


def test_a_representation_that_tells_nothing_apart_recalls_what_chance_does():
    same = torch.eye(2 * DIM)[:1].roll(DIM, 1).expand(10, -1) + torch.eye(2 * DIM)[:1]
    assert recalls(same) == pytest.approx({f"{way} R@{rank}": 10.0 * rank for way in ("i2t", "t2i") for rank in (1, 5, 10)})
    apart = torch.eye(DIM, dtype=torch.float64)
    assert set(recalls(torch.cat([apart, apart], 1)).values()) == {100.0}


def test_the_aggregate_weighs_clients_by_how_well_they_tell_the_row_apart():
    several, others = [units(5, name) for name in "abc"], units(5, "others")

    def dot(x, y):
        return sum(float(one * two) for one, two in zip(x, y, strict=True))

    found = aggregate(several, others)
    for k in range(5):
        scores = [dot(z[k], others[k]) - math.log(sum(math.exp(dot(z[k], others[other])) for other in range(5) if other != k))
                  for z in several]
        total = sum(map(math.exp, scores))
        for place in range(DIM):
            wanted = sum(math.exp(score) / total * float(z[k, place]) for score, z in zip(scores, several, strict=True))
            assert found[k, place].item() == pytest.approx(wanted)
    assert torch.allclose(aggregate(several[:1], others), several[0])


def test_the_intra_modal_term_by_loops_and_where_it_pulls():
    z, own, before = (units(4, name) for name in ("z", "own", "before"))
    wanted = 0.0
    for k in range(4):
        near, far = (math.exp(float((z[k] * one[k]).sum()) / 0.2) for one in (own, before))
        wanted -= math.log(near / (near + far)) / 4
    assert intra(z, own, before, 0.2).item() == pytest.approx(wanted)
    z.requires_grad_()
    (slope,) = torch.autograd.grad(intra(z, own, before, 0.2), z)
    assert ((slope * own).sum(1) < (slope * before).sum(1)).all()             # downhill is towards the server's


def inter_and_intra(z, own, other, before, tau):
    """L_inter + L_intra of rows of unit length, one number at a time."""
    def dot(x, y):
        return sum(float(one * two) for one, two in zip(x, y, strict=True)) / tau

    total = 0.0
    for k in range(len(z)):
        inter = math.log(sum(math.exp(dot(z[k], other[place])) for place in range(len(z)))) - dot(z[k], other[k])
        near, far = math.exp(dot(z[k], own[k])), math.exp(dot(z[k], before[k]))
        total += (inter - math.log(near / (near + far))) / len(z)
    return total


def test_the_terms_of_a_client_by_loops():
    z, own, other, before = (units(6, name) for name in ("z", "own", "other", "before"))
    assert CreamFL(tau=0.3).terms(z, own, other, before).item() == pytest.approx(inter_and_intra(z, own, other, before, 0.3))
    assert info_nce(z, other, tau=0.3, normalize=False).item() == pytest.approx(info_nce_loops(z, other, 0.3).mean().item())


@pytest.mark.parametrize("tau_prev", [0.1, 0.2, 0.3])
def test_with_muscle_they_are_the_loss_over_all_tuples_of_an_image_and_a_text(tau_prev):
    z, own, other, before = (units(5, name) for name in ("z", "own", "other", "before"))
    found = CreamFLMuscle(tau=0.3, tau_prev=tau_prev).terms(z, own, other, before)
    assert found.item() == pytest.approx(muscle_tuples(z, [own, other], 0.3, tau_prev).mean().item())
    plain = (info_nce(z, own, tau=0.3) + info_nce(z, other, tau=0.3)).item()
    assert (found.item() == pytest.approx(plain)) == (tau_prev == 0.3)


def stepped(parameters, loss, rate):
    """The first step of AdamW of usual values, by its formula: decay, then the gradient over its own size."""
    slopes = torch.autograd.grad(loss, parameters)
    return [value * (1 - rate * 0.01) - rate * slope / (slope.abs() + 1e-8)
            for value, slope in zip(parameters, slopes, strict=True)]


ONE_STEP = {"tau": 0.3, "batch_size": PUBLIC, "contrastive_lr": 1e-3, "contrastive_steps": 1}


@pytest.mark.parametrize(("method", "literal"), [
    (CreamFL(**ONE_STEP), lambda *rows: inter_and_intra(*rows, 0.3)),
    (CreamFLMuscle(tau_prev=0.2, **ONE_STEP), lambda z, own, other, _: muscle_tuples(z, [own, other], 0.3, 0.2).mean().item()),
], ids=["creamfl", "with muscle"])
def test_a_client_of_both_steps_on_the_terms_of_both_modalities(monkeypatch, method, literal):
    """One step on all pairs: the loss that it tells by loops, the parameters after it by AdamW's formula."""
    monkeypatch.setattr(creamfl, "local_phase", lambda client, round: 0.0)
    (played,), one = [each for each in federation(method).clients if each.name == 5], client(5, "both")
    sent = {name: units(PUBLIC, "served", name).float() for name in creamfl.OTHER}
    before, z = creamfl.represented(one), dict(zip(creamfl.OTHER, one.network(one.public.inputs).chunk(2, 1), strict=True))
    rows = [(z[name], sent[name], sent[other], before[name]) for name, other in creamfl.OTHER.items()]
    wanted = stepped(list(one.network.representation.parameters()), sum(method.terms(*several) for several in rows), 1e-3)
    reply = method.learn(played, {"round": 1, "rounds": 1, **sent})
    by_hand = sum(literal(*(part.detach().double() for part in several)) for several in rows)
    assert reply["contrastive_loss"] == pytest.approx(by_hand, rel=1e-5)
    for value, after in zip(wanted, played.network.representation.parameters(), strict=True):
        assert torch.allclose(value, after, atol=1e-6)


@pytest.mark.parametrize("wanted", [("image", "text"), ("text",)])
def test_a_step_of_distillation_by_hand(wanted):
    """First L_retrieval, then kd (|g^image - aggregate^image|^2 + the same of texts), means over the batch and over numbers;
    what nobody sent is left out."""
    kd, tau = 0.7, retrieval(DIM).loss.tau
    training = Training(local_lr=1e-2, local_batch_size=PUBLIC, min_local_steps=1)
    found = Federation([client(*one) for one in KINDS.items()], CreamFL(kd=kd, **SMALL), training=training)
    (centre, *_) = found.clients
    message = {"round": 1, **{name: units(PUBLIC, "aggregate", name).float() for name in wanted}}
    g = dict(zip(creamfl.OTHER, centre.network(centre.data["train"].inputs).chunk(2, 1), strict=True))
    contrast = sum(info_nce_loops(g[name], g[other], tau).mean() for name, other in creamfl.OTHER.items()) / 2
    twin = copy.deepcopy(centre.network)
    optimizer = torch.optim.AdamW(twin.representation.parameters(), 1e-2)

    def step(loss_of):
        optimizer.zero_grad()
        g = dict(zip(creamfl.OTHER, twin(centre.data["train"].inputs).chunk(2, 1), strict=True))
        loss = loss_of(g)
        loss.backward()
        optimizer.step()

    def apart_of(g):
        return sum(sum((one - other) ** 2 for one, other in zip(g[name][k], message[name][k], strict=True))
                   for name in wanted for k in range(PUBLIC)) / PUBLIC / DIM
    step(lambda g: sum(info_nce_loops(g[name], g[other], tau).mean() for name, other in creamfl.OTHER.items()) / 2)
    apart = apart_of(dict(zip(creamfl.OTHER, twin(centre.data["train"].inputs).chunk(2, 1), strict=True))).item()
    step(lambda g: kd * apart_of(g))
    reply = found.method.distil(centre, message)
    assert reply["distance"] == pytest.approx(apart, rel=1e-4)
    assert reply["local_loss"] == pytest.approx(contrast.item(), rel=1e-5)
    for value, now in zip(twin.representation.parameters(), centre.network.representation.parameters(), strict=True):
        assert torch.allclose(value, now, atol=1e-5)


def test_with_one_temperature_muscle_is_the_sum_over_both_modalities_of_the_server():
    z, own, other, before = (units(6, name) for name in ("z", "own", "other", "before"))
    found = CreamFLMuscle(tau=0.2, tau_prev=0.2).terms(z, own, other, before)
    assert found.item() == pytest.approx((info_nce(z, own, tau=0.2) + info_nce(z, other, tau=0.2)).item())
    assert CreamFL(tau=0.2).terms(z, own, other, before).item() == pytest.approx(
        (info_nce(z, other, tau=0.2) + intra(z, own, before, 0.2)).item())


@pytest.mark.parametrize("method", METHODS)
def test_every_client_learns_and_the_distance_is_measured(method):
    found = federation(method(**SMALL))
    before = states([client(*one) for one in KINDS.items()], "encoder")
    history = found.fit(2, progress=False)
    after = states(found.clients, "encoder")
    assert not any(equal(before[name], after[name]) for name in KINDS)
    measured = history[history["split"] == "train"]
    assert set(measured[measured["metric"] == "distance"]["client"]) == {1}
    assert set(measured[measured["metric"] == "contrastive_loss"]["client"]) == (set() if method is Distilled else {2, 3, 4, 5})
    assert history.query("split == 'test'")["value"].between(0, 100).all()


def test_what_reaches_the_centre_is_the_aggregate_of_what_clients_sent(monkeypatch):
    kept, learn, distil = {}, CreamFL.learn, CreamFL.distil

    def note_learn(self, one, message):
        kept.setdefault("served", []).append(message)
        kept.setdefault("sent", {})[one.name] = reply = learn(self, one, message)
        return reply

    def note_distil(self, one, message):
        kept["wanted"] = message
        return distil(self, one, message)
    monkeypatch.setattr(CreamFL, "learn", note_learn)
    monkeypatch.setattr(CreamFL, "distil", note_distil)
    found = federation(CreamFL(**SMALL))
    start = creamfl.represented(found.clients[0])
    found.fit(1, progress=False)
    assert all(torch.equal(message[name], start[name]) for message in kept["served"] for name in start)
    sent = kept["sent"]
    for name, other, members in (("image", "text", (2, 3, 5)), ("text", "image", (4, 5))):
        assert torch.allclose(kept["wanted"][name], aggregate([sent[one][name] for one in members], start[other]))
        assert all(name in sent[one] for one in members) and len(sent[members[0]]) == 3 + (members[0] == 5)
    assert torch.allclose(sent[5]["text"].norm(dim=1), torch.ones(PUBLIC))


def test_what_is_counted_is_what_leaves_and_reaches_the_other_clients():
    found = federation(CreamFL(**SMALL))
    found.fit(1, progress=False)
    one = 4 * PUBLIC * DIM
    up = {row.client: row.bytes for row in found.ledger.table().query("direction == 'up'").itertuples()}
    down = {row.client: row.bytes for row in found.ledger.table().query("direction == 'down'").itertuples()}
    assert up == {2: one, 3: one, 4: one, 5: 2 * one} and down == dict.fromkeys((2, 3, 4, 5), 2 * one)


def test_without_contrast_clients_are_as_alone_and_the_centre_is_taught():
    alone, distilled = (federation(method) for method in (Local(), Distilled(**SMALL)))
    for found in (alone, distilled):
        found.fit(2, progress=False)
    wanted, taught = (states(found.clients, "encoder") for found in (alone, distilled))
    assert all(equal(wanted[name], taught[name]) for name in (2, 3, 4, 5)) and not equal(wanted[1], taught[1])


def test_an_absent_client_trains_alone_and_the_centre_is_never_absent():
    found = federation(CreamFL(**SMALL), absence=0.6, seed=3)
    history = found.fit(4, progress=False)
    losses = history.query("split == 'train'").pivot_table(index="round", columns=["metric", "client"], values="value")
    assert losses["local_loss"].notna().all(axis=None) and losses["contrastive_loss"].isna().any(axis=None)
    assert losses["distance"][1].dropna().size >= 3


@pytest.mark.parametrize("method", METHODS)
def test_it_goes_on_from_a_state_and_the_order_of_clients_does_not_matter(method):
    whole, half, again, backwards = (federation(method(**SMALL), kinds) for kinds in (
        KINDS, KINDS, KINDS, dict(reversed(KINDS.items()))))
    whole.fit(3, progress=False)
    backwards.fit(3, progress=False)
    half.fit(1, progress=False)
    again.load(copy.deepcopy(half.state()))
    again.fit(3, progress=False)
    wanted = states(whole.clients, "encoder")
    for found in (again, backwards):
        own = states(found.clients, "encoder")
        assert all(equal(wanted[name], own[name]) for name in KINDS)


def test_a_round_whose_centre_is_lost_is_lost_alone(monkeypatch):
    found = federation(CreamFL(**SMALL), bad_uploads="skip")
    show = CreamFL.show
    monkeypatch.setattr(CreamFL, "show", lambda self, one, message: {"image": torch.full((PUBLIC, DIM), math.nan)})
    with pytest.warns(UserWarning, match="client 1 is left out of 'show'"):
        found.fit(1, progress=False)
    monkeypatch.setattr(CreamFL, "show", show)
    history = found.fit(2, progress=False)
    assert set(history.query("metric == 'local_loss'")["round"]) == {1, 2}
    assert set(history.query("metric == 'distance'")["round"]) == {2}


@pytest.mark.parametrize(("kinds", "method", "message"), [
    (KINDS, {"centre": 9}, r"centre: got 9, expected one of the clients \[1, 2, 3, 4, 5\]"),
    (KINDS, {"centre": 2}, "centre: got client 2 that reads 'image' and has 12 private samples, expected 'both' and the 20"),
    (KINDS, {"centre": 5}, "centre: got client 5 that reads 'both' and has 12 private samples"),
    ({1: "centre"}, {}, "clients: got the centre alone"),
])
def test_a_centre_that_is_none_is_refused(kinds, method, message):
    with pytest.raises(ValueError, match=message):
        federation(CreamFL(**SMALL, **method), kinds)


@pytest.mark.parametrize(("make", "message"), [
    (lambda: CreamFL(centre=True), "centre: got True"), (lambda: CreamFL(kd=-1.0), "kd: got -1.0"),
    (lambda: retrieval(0), "dim: got 0"),
    (lambda: CreamFLMuscle(tau=0.1), "tau_prev: got 0.15, expected at most tau = 0.1"),
    (lambda: retrieval(4, tau=0.0), "tau: got 0.0"),
    (lambda: retrieval(4).check("client 1: train", torch.rand(3)), r"client 1: train: got targets of shape \(3,\), torch.f"),
])
def test_bad_values_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Setup of a server and two clients on tiny photos with captions, of which a fifth is set apart for scores."""
    tiny_world.write_data(tmp_path)
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path))
    monkeypatch.setattr(trunks, "FEATURES", tmp_path / "features")
    monkeypatch.setattr(building, "TEXT_LENGTH", 40)                          # the small networks read no more
    monkeypatch.setitem(sources.SOURCES, "flickr30k", sources.SOURCES["flickr30k"]._replace(test_share=0.2))
    return Setup("tiny_photos", (("public_pairs@flickr30k", "resnet_small+bert_small", 8), ("class@cifar10", "vit_small", 8),
                                 ("pairs@flickr30k", "vit_small+distilbert_small", 6)), {
        "public_domain": "flickr30k", "public_size": 8, "dim": 8, "validation_size": 4, "test_size": 6, "image_size": 32})


@pytest.mark.parametrize("adaptation", ["full", "last"])
def test_photos_with_captions_have_one_role_each_and_are_read_by_both_networks(photos, adaptation):
    settings = Settings.of(photos, "creamfl", batch_size=4, contrastive_steps=2, rounds=1, adaptation=adaptation)
    world = world_for(settings)
    private, public = splits.private_rows(photos.tasks, photos.sizes, 0), splits.public_rows(
        photos.tasks, photos.sizes, 0, "flickr30k", 8)
    parts = [private[3], public, *(splits.scored_rows("pairs@flickr30k", split, size) for split, size in (
        ("validation", 4), ("test", 6)))]
    rows = [row for part in parts for row in part.tolist()]
    assert set(private) == {2, 3} and len(rows) == len(set(rows)) == 6 + 8 + 4 + 6
    (pairs, numbers) = world.private(1)["train"]
    assert pairs.captions == world.public().captions and torch.equal(numbers, torch.arange(8))
    found = build(settings)
    history = found.fit(1, progress=False)
    assert history.query("split == 'test'")["metric"].tolist().count("R@1") == 2
    (first, *_) = found.clients
    assert torch.equal(first.data["train"].inputs, first.public.take(torch.arange(8))[0])
    assert (first.data["train"].inputs.dtype == torch.float16) == (adaptation == "last")
    assert world.used()["clients"].keys() == {"0", "2", "3"}


def test_in_profile_quick_the_centre_still_has_the_public_pairs():
    for method in ("local", "creamfl_muscle"):
        (settings,) = profile_settings("quick", dataclasses.replace(SETUPS["creamfl"], name="mine"), method, [0], rounds=1)
        assert settings.public_size == settings.setup.clients[0].train_size == 1000 and settings.rounds == 1


def test_the_setup_s_centre_has_the_public_pairs_and_every_kind_of_client_learns():
    setup = SETUPS["creamfl"]
    assert [spec.task for spec in setup.clients[:1]] == ["public_pairs"] and len(SETUPS["creamfl35"].clients) == 36
    small = Setup("tiny_creamfl", tuple(spec._replace(train_size=12) for spec in (*setup.clients[:2], *setup.clients[4:5],
                                                                                   *setup.clients[7:8])),
                  setup.settings | {"public_size": 12, "rounds": 1, "dim": 8, "validation_size": 20, "test_size": 20})
    settings = Settings.of(small, "creamfl_muscle", batch_size=4, contrastive_steps=2)
    found = build(settings)
    assert torch.equal(found.clients[0].data["train"].inputs, found.clients[0].public.inputs)
    assert torch.equal(found.clients[3].public.inputs[:, -40:].long(), found.clients[0].public.inputs[:, -40:].long())
    history = found.fit(1, progress=False)
    assert len(history.query("split == 'test'")) == 4 and found.alignment["after"]
    alone = build(settings.replace(method="local"))                           # the same data where nothing is exchanged
    assert torch.equal(alone.clients[0].data["train"].inputs, found.clients[0].data["train"].inputs)

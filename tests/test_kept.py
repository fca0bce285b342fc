"""Trunk outputs on disk: computed once, whole after a kill, never those of other weights; runs learn from them as without."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

from fedmuscle_core.experiments import build, to_keep, trunks
from fedmuscle_core.experiments.settings import Compute, Settings
from fedmuscle_core.experiments.setups import Setup
from fedmuscle_core.networks.backbones import load_backbone
from fedmuscle_core.networks.client_network import num_parameters
from fedmuscle_core.networks.kept import kept_rows, keys_of
from fedmuscle_core.networks.last import split

ABOUT = {"weights": "abc"}


@pytest.fixture
def store(tmp_path):
    """A function of samples (n, 2): their rows, twice their values; `store.computed` counts what was computed."""
    def rows(samples, about=ABOUT, factor=2.0):
        def compute(numbers):
            rows.computed += len(numbers)
            return factor * samples[numbers]
        return kept_rows(tmp_path, "trunk", about, keys_of(samples), compute, progress=False)

    rows.computed, rows.folder = 0, tmp_path
    return rows


def numbers(first, last):
    return torch.arange(2.0 * first, 2.0 * last).view(-1, 2)


def test_every_sample_is_computed_once_whoever_asks(store):
    assert torch.equal(store(numbers(0, 70)).all(), 2 * numbers(0, 70).half()) and store.computed == 70
    again = store(torch.cat([numbers(60, 80), numbers(3, 4), numbers(60, 61)]))
    assert store.computed == 80 and len(again) == 22
    assert torch.equal(again.all(), 2 * torch.cat([numbers(60, 80), numbers(3, 4), numbers(60, 61)]).half())
    assert torch.equal(again[20], 2 * numbers(3, 4)[0].half())
    assert keys_of(numbers(0, 1)) != keys_of(numbers(0, 1), "view", 1)
    assert keys_of(numbers(0, 1), "view" * 40, 1) != keys_of(numbers(0, 1), "view" * 40, 2)        # all of it counts


@pytest.mark.parametrize("kind", ["rows", "keys"])
def test_what_was_cut_short_is_computed_again(store, kind):
    store(numbers(0, 40))
    path = store.folder / f"trunk.{kind}"
    path.write_bytes(path.read_bytes()[:-3])
    assert torch.equal(store(numbers(0, 40)).all(), 2 * numbers(0, 40).half()) and store.computed == 41
    assert (store.folder / "trunk.rows").stat().st_size == 40 * 4 and (store.folder / "trunk.keys").stat().st_size == 40 * 16


def test_a_store_that_was_begun_and_has_no_shape_begins_anew(store):
    (store.folder / "trunk.rows").write_bytes(b"12345")
    assert torch.equal(store(numbers(0, 3)).all(), 2 * numbers(0, 3).half())


def test_other_weights_and_numbers_beyond_half_precision_are_refused(store):
    store(numbers(0, 3))
    with pytest.raises(ValueError, match=r"trunk.json: got outputs of \{'weights': 'abc'\}, expected \{'weights': 'x'\}"):
        store(numbers(0, 3), {"weights": "x"})
    with pytest.raises(ValueError, match="trunk.rows: got outputs beyond half precision"):
        store(numbers(5, 6), factor=1e5)
    assert store(numbers(0, 3)).all().shape == (3, 2) and store.computed == 4


@pytest.fixture
def features(tmp_path, monkeypatch):
    monkeypatch.setattr(trunks, "FEATURES", tmp_path / "features")
    return tmp_path / "features"


class Whole(nn.Module):
    """A backbone whose trunk is run at each step."""

    def __init__(self, trunk, tail):
        super().__init__()
        self.backbone, self.config, self.parts = tail.backbone, tail.config, (trunk, tail)

    def forward(self, pixel_values):
        trunk, tail = self.parts
        return BaseModelOutput(last_hidden_state=tail(trunk(pixel_values)))


@pytest.mark.parametrize("method", ["fedmuscle", "simclr", "cofed"])
def test_clients_learn_as_if_the_trunk_ran_at_each_step(tiny, features, monkeypatch, method):
    """To rounding: without views everything is the same; views are fewer, so there only the shape is compared."""
    settings = tiny(method=method, adaptation="last", views=3)
    kept = build.build(settings)
    found = kept.fit(2, progress=False)
    stores = {path.name: path.stat().st_mtime_ns for path in features.glob("*.rows")}
    assert len(stores) == 2                                                   # two backbones
    again = build.build(settings).fit(2, progress=False)
    assert {path.name: path.stat().st_mtime_ns for path in features.glob("*.rows")} == stores
    assert again.equals(found) and np.isfinite(found["value"]).all()
    learning = {name for name, parameter in kept.clients[2].network.named_parameters() if parameter.requires_grad}
    assert all("lora_" in name or "backbone" not in name for name in learning)
    if method == "simclr":
        return

    def literal(backbone, learning):
        return None, Whole(*split(backbone, learning))

    monkeypatch.setattr(build, "split", literal)
    wanted = build.build(settings).fit(2, progress=False)
    both = found.merge(wanted, on=["client", "metric", "split", "round"])
    assert len(both) == len(found) == len(wanted)
    losses = both[both["split"] == "train"]
    assert np.allclose(losses["value_x"], losses["value_y"], rtol=0.02)
    scores = both[both["split"] == "validation"]
    assert (scores["value_x"] - scores["value_y"]).abs().mean() < 3


@pytest.mark.parametrize("backbone", ["resnet_small", "vit_small"])
def test_pixels_are_answered_from_what_was_kept(features, backbone):
    setup = Setup("tiny_dense", (("semseg", backbone, 24), ("ic10", "vit_small", 24)))
    settings = Settings.of(setup, "fedmuscle", rounds=1, num_peers=1, batch_size=8, public_size=16, validation_size=20,
                           test_size=20, adaptation="last")
    federation = build.build(settings)
    history = federation.fit(1, progress=False)
    client = federation.clients[0]
    kept = client.data["test"].take(torch.arange(2))[0]
    assert client.network(kept).shape == (2, client.task.num_outputs, 32, 32) and kept.dtype == torch.float16
    trunk_map, last = client.network.encode(kept)
    assert trunk_map.ndim == last.ndim == 4 and trunk_map.shape[1] == client.network.representation.backbone.width
    assert history.query("client == 1 and split == 'test'")["value"].between(0, 100).all()


def test_m_fed_exchanges_what_learns_and_no_more(features):
    setup = Setup("tiny_shared", [(task, "resnet_small", 12) for task in ("semseg", "semseg", "saliency")], one_start=True)
    settings = Settings.of(setup, "mfed", rounds=2, validation_size=20, test_size=20, min_local_steps=2, adaptation="last")
    federation = build.build(settings)
    history = federation.fit(2, progress=False)
    first, _, last = federation.clients
    parts = [first.network.encoder(), first.network.decoder()]
    learning = 4 * sum(num_parameters(part) for part in parts)
    assert learning <= federation.ledger.entries[2, 1, "up"] < 1.05 * learning            # and batch statistics
    assert history.query("split == 'test'")["value"].between(0, 100).all() and last.task.num_outputs == 2


def test_stores_tell_weights_cut_and_size_apart(tiny, features):
    for values in ({}, {"last_stages": 3}, {"image_size": 48}):
        settings = tiny(method="local", adaptation="last", **values)
        trunk, _ = split(load_backbone("vit_small"), settings.compute.last_stages)
        trunks.KeptTrunk(trunk, "vit_small", settings.compute).private(torch.rand(2, 3, 32, 32))
    abouts = [json.loads(path.read_text())["about"] for path in features.glob("*.json")]
    assert len(abouts) == 3 and len({str(about) for about in abouts}) == 3


def test_sizes_of_images_and_texts_have_stores_of_their_own_and_rows_one_shape(features, store):
    compute = Settings().compute
    for name, several in (("vit_small", (torch.rand(2, 3, 32, 32), torch.rand(2, 3, 48, 48))),
                          ("bert_small", (torch.ones(2, 24, dtype=torch.long), torch.ones(2, 40, dtype=torch.long)))):
        trunk, _ = split(load_backbone(name))
        kept = trunks.KeptTrunk(trunk, name, compute)
        shapes = [kept.private(samples).shape for samples in several]
        assert (shapes[0] == shapes[1]) != trunk.text                         # images are resized to what the backbone reads
        assert len(list(features.glob(f"{name}*.rows"))) == 2
    store(numbers(0, 3))
    with pytest.raises(ValueError, match=r"trunk.rows: got an output of shape \(3,\), expected \(2,\)"):
        store(torch.ones(1, 3))


def test_the_two_views_of_a_pair_are_never_the_same(features):
    trunk, _ = split(load_backbone("vit_small"))
    draw = trunks.KeptTrunk(trunk, "vit_small", Settings().compute).views(torch.rand(4, 3, 32, 32), 2)
    rows = torch.arange(4)
    first, second = (draw(rows, torch.Generator().manual_seed(0), half) for half in (0, 1))
    assert (first != second).flatten(1).any(1).all() and torch.equal(first, draw(rows, torch.Generator().manual_seed(1), 0))


@pytest.mark.parametrize("kind", ["rows", "keys"])
def test_a_store_that_lacks_a_file_begins_anew(store, kind):
    store(numbers(0, 3))
    (store.folder / f"trunk.{kind}").unlink()
    assert torch.equal(store(numbers(0, 3)).all(), 2 * numbers(0, 3).half()) and store.computed == 6


def test_what_is_to_be_computed_is_said_before(features, monkeypatch):
    monkeypatch.setattr(to_keep, "outputs_read", lambda settings: {("vit_small", None, 32): 50})
    said = to_keep.to_be_kept([])
    assert said.startswith("trunk outputs of vit_small: 50 of 50 samples to be computed and kept, ")
    assert said.endswith(" min of one core")
    trunk, _ = split(load_backbone("vit_small"))
    trunks.KeptTrunk(trunk, "vit_small", Compute(adaptation="last", image_size=32)).private(torch.rand(40, 3, 32, 32))
    assert "10 of 50 samples" in to_keep.to_be_kept([])
    trunks.KeptTrunk(trunk, "vit_small", Compute(adaptation="last", image_size=32)).private(torch.rand(10, 3, 32, 32))
    assert to_keep.to_be_kept([]) == ""


def test_texts_keep_their_padding(features):
    trunk, tail = split(load_backbone("bert_small").eval())
    ids = torch.tensor([[2, 5, 7, 3, 0, 0], [2, 9, 3, 0, 0, 0]])
    kept = trunks.KeptTrunk(trunk, "bert_small", Settings().compute).private(ids)
    assert torch.equal(kept.ne(0).any(2), ids != 0)
    wanted = load_backbone("bert_small").eval()(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
    with torch.no_grad():
        assert torch.allclose(tail.eval()(kept)[ids != 0], wanted[ids != 0], atol=0.02)


def test_how_many_stages_learn_is_asked_of_last_alone():
    with pytest.raises(ValueError, match="last_stages: got 2 with adaptation 'full', expected None"):
        Settings.of(last_stages=2)
    with pytest.raises(ValueError, match="views: got 1"):
        Settings.of(views=1)

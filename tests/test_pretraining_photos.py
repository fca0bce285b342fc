"""Backbones from real photos, on tiny excerpts: what they may learn from, and that they are made the same way twice."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tiny_world
import torch
import torch.nn.functional as F

from fedmuscle_core.experiments import plans
from fedmuscle_core.experiments.runs import stored
from fedmuscle_core.networks import text
from fedmuscle_core.networks.backbones import load_backbone
from fedmuscle_core.paths import results
from fedmuscle_core.pretraining import photos
from fedmuscle_core.world.real import splits
from fedmuscle_core.world.real.sources import source_table


@pytest.fixture
def excerpts(tmp_path, monkeypatch):
    """Tiny excerpts under the names and folders that the real ones have."""
    rng = np.random.default_rng(0)
    data = tmp_path / "data"
    tiny_world.write_cifar(data / "cifar10", 10, 30, 1, rng)
    tiny_world.write_cifar(data / "cifar100", 100, 3, 1, rng)
    tiny_world.write_coco(data / "coco_small", 20, rng)
    tiny_world.write_ag_news(data / "text" / "ag_news", 200, 8)
    (data / "text" / "trec").mkdir()
    for name, asked in (("train", "How many is"), ("test", "Who is number")):
        lines = [f"{number % 6} {asked} {number} ?" for number in range(60)]
        lines += [f"1 Where is place {number % 9} ?" for number in range(40 if name == "train" else 2)]      # again and again
        (data / "text" / "trec" / f"TREC.{name}.all").write_text("\n".join(lines))
    monkeypatch.setenv("FEDMUSCLE_DATA", str(data))
    for function in (photos.labelled_photos, photos.learn_photos):
        function.cache_clear()
    monkeypatch.setattr(photos, "PHOTO_BACKBONES", tmp_path / "backbones")
    monkeypatch.setattr(photos, "PROBE_TABLE", tmp_path / "probe_photos.csv")
    monkeypatch.setattr("fedmuscle_core.networks.backbones.PHOTO_BACKBONES", tmp_path / "backbones")
    yield tmp_path / "backbones"
    for function in (photos.labelled_photos, photos.learn_photos):
        function.cache_clear()


def test_they_learn_from_reserved_photos_only(excerpts):
    images, classes = photos.labelled_photos()
    assert len(images) == 150 + 150 and classes.min() == 0 and classes.max() == 109 and images.max() <= 1
    for source in photos.PHOTO_SOURCES:
        parts = splits.split_rows(source)
        others = set(torch.cat([parts[part] for part in ("validation", "pool", "test")]).tolist())
        assert not others & set(parts["reserved"].tolist()) and len(parts["reserved"]) == 150


def test_the_corpus_has_no_text_of_a_client_the_public_or_a_test(excerpts):
    no_text_has_two_roles()


def test_the_real_corpus_has_none_either(real_excerpts):
    no_text_has_two_roles()


def no_text_has_two_roles():
    lines = {" ".join(line.lower().split()) for line in photos.corpus()}
    for source in photos.TEXTS:
        rows, texts = splits.split_rows(source), source_table(source)["texts"]
        parts = {part: {" ".join(text[0].lower().split()) for text in texts.iloc[found.tolist()]}
                 for part, found in rows.items()}
        assert parts["reserved"] <= lines and all(parts.values())
        for part in ("pool", "validation", "test"):
            assert not parts[part] & lines
        assert not parts["pool"] & (parts["validation"] | parts["test"]) and not parts["validation"] & parts["test"]
    pool = splits.split_rows(photos.CAPTIONS)["pool"]
    _, public = splits.photos_and_texts(photos.CAPTIONS, pool, ("image", "texts"))
    captions = source_table(photos.CAPTIONS)["texts"].iloc[pool.tolist()]
    assert public == [texts[0] for texts in captions] and {text for texts in captions for text in texts[1:]} <= set(
        photos.corpus())


@pytest.mark.filterwarnings("ignore:The number of unique classes")      # a hundred classes, a few photos each
def test_both_kinds_are_made_and_load(excerpts):
    assert photos.main(["--epochs", "1", "photo_resnet_small", "photo_bert_small"]) is None
    vision, language = load_backbone("photo_resnet_small"), load_backbone("photo_bert_small")
    assert vision.config.model_type == "resnet" and language.config.max_position_embeddings >= text.TEXT_LENGTH
    tokenizer = text.load_tokenizer("photo_bert_small")
    ids = text.token_ids(tokenizer, ["Stocks fall again. " * 40], text.TEXT_LENGTH, cut=True)
    assert ids.shape == (1, text.TEXT_LENGTH) and tokenizer.unk_token_id not in ids
    text.load_tokenizer.cache_clear()
    assert not photos.PROBE_TABLE.exists()                           # that is of all of them, with their own epochs
    probes = photos.probe_table(["photo_resnet_small", "photo_bert_small"])
    assert pd.read_csv(photos.PROBE_TABLE)["accuracy"].tolist() == probes["accuracy"].tolist()
    assert {tuple(row) for row in probes[["backbone", "weights", "source"]].to_numpy()} == {
        (name, weights, source) for name, sources in [("photo_resnet_small", photos.PHOTO_SOURCES),
                                                      ("photo_bert_small", ("ag_news_excerpt", "trec"))]
        for weights in ("pretrained", "untrained") for source in sources}
    before = {name: value.clone() for name, value in vision.state_dict().items()}
    photos.learn_photos.cache_clear()
    photos.main(["--epochs", "1", "photo_resnet_small"])
    again = load_backbone("photo_resnet_small").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in before.items())


def test_a_probe_reads_the_features_and_learns_from_the_pool_alone(excerpts, monkeypatch):
    """Features that are the class itself are read without a mistake."""
    class Telling(torch.nn.Module):
        config = SimpleNamespace(hidden_size=10, image_size=None)

        def forward(self, pixel_values):
            told = F.one_hot(((pixel_values[:, 0, 0, 0] + 1) * 127.5).round().long() % 10, 10).float()
            return SimpleNamespace(last_hidden_state=told[:, :, None, None].expand(-1, -1, 2, 2))

    asked = []

    def samples(task, rows):
        asked.append((task.source, rows))
        images = torch.zeros(len(rows), 3, 4, 4, dtype=torch.uint8)
        labels = torch.arange(len(rows)) % 10
        images[:, 0, 0, 0] = labels.to(torch.uint8)
        return images, labels

    monkeypatch.setattr(photos, "task_samples", samples)
    assert photos.probe("telling", Telling()) == dict.fromkeys(photos.PHOTO_SOURCES, 1.0)
    parts = {source: splits.split_rows(source) for source in photos.PHOTO_SOURCES}
    assert all(torch.equal(rows, parts[source][part]) for (source, rows), part in
               zip(asked, ["pool", "validation"] * 2, strict=True))


def test_the_probes_are_of_the_backbones_of_the_stored_runs():
    probed = pd.read_csv(photos.PROBE_TABLE).query("weights == 'pretrained'").set_index("backbone")["digest"].to_dict()
    records, _ = stored(plans.notebook_15("mini"), results("mini"))
    assert set(probed) == set(photos.NAMES)
    for record in records:
        assert record["data"]["backbones"].items() <= probed.items()


def test_an_unknown_name_is_refused(capsys):
    with pytest.raises(SystemExit):
        photos.main(["photo_vit_huge"])
    assert "names: got ['photo_vit_huge'], expected any of" in capsys.readouterr().err

"""Worlds: private, public and held-out samples, of scenes and of real data; both kinds answer the same calls."""

import pickle
import shutil

import numpy as np
import pytest
import tiny_world
import torch
from PIL import Image

from fedmuscle_core.world import partition
from fedmuscle_core.world.partition import LEAST
from fedmuscle_core.world.real import photos, splits
from fedmuscle_core.world.real.sources import source_table
from fedmuscle_core.world.scenes import (
    CAPTIONED_DOMAIN,
    SCENE_DOMAINS,
    digit_scenes,
    held_out_pairs,
    public_pairs,
    public_scenes,
)
from fedmuscle_core.world.tasks import targets, task_named
from fedmuscle_core.world.worlds import Pairs, held_out_data, public_data, scene_captions, world_of

IMAGES = ("labels@voc",) * 3 + ("class@cifar100",) * 2 + ("class@cifar10",)
MIXED = (*IMAGES, "pixels@voc", "pixels@voc", "text@ag_news", "text@ag_news")
NONIID = ("labels@voc",) * 3 + ("class@cifar100",) * 3 + ("class@cifar10",) * 3 + ("pixels@voc",) * 3
SCENES = ("mlc", "ic100", "ic10", "ss", "tc10")


def scenes(tasks=SCENES, sizes=None, **changes):
    """The world of clients with scenes, 24 each."""
    usual = {"seed": 0, "public_domain": CAPTIONED_DOMAIN, "public_size": 16, "validation_size": 12, "test_size": 10}
    return world_of(tasks, sizes or (24,) * len(tasks), **usual | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of tiny real data, written once."""
    written = tmp_path_factory.mktemp("world") / "data"
    tiny_world.write_data(written)
    return written


@pytest.fixture
def real(folder, monkeypatch):
    """The world of clients with real data, 6 each; `real(tasks, field=value)` changes a field."""
    monkeypatch.setenv("FEDMUSCLE_DATA", str(folder))
    usual = {"seed": 0, "public_domain": "coco", "public_size": 16, "validation_size": 8, "test_size": 8,
             "default_domain": "flickr30k"}
    return lambda tasks=MIXED, **changes: world_of(tasks, (6,) * len(tasks), **usual | changes)


def same(one, other):
    """Whether two (`Pairs`, targets) are equal."""
    (ours, wanted), (theirs, expected) = one, other
    images = ours.images is theirs.images is None or torch.equal(ours.images, theirs.images)
    return images and ours.captions == theirs.captions and torch.equal(wanted, expected)


def told(pairs):
    """{(pixels of an image, its caption)}."""
    return {(image.numpy().tobytes(), text) for image, text in zip(*pairs, strict=True)}


@pytest.mark.parametrize("kind", ["scenes", "real data"])
def test_both_kinds_answer_the_same_calls(real, kind):
    made = real() if kind == "real data" else scenes()
    world = pickle.loads(pickle.dumps(made))
    assert world == made and hash(world) == hash(made) and world.is_here() and world.needs_captions
    world.check()
    for client, (name, size) in enumerate(zip(world.tasks, world.sizes, strict=True), 1):
        task, sets = task_named(name), world.private(client)
        assert list(sets) == ["train", "validation", "test"] and len(sets["train"][1]) == size
        for split, (pairs, wanted) in sets.items():
            task.check(split, wanted)
            read = pairs.captions if task.modality == "text" else pairs.images
            assert isinstance(pairs, Pairs) and len(read) == len(wanted) > 0
        classes = world.classes(client)
        assert len(classes) == size and classes.min() >= 0 and classes.max() < world.num_classes(client)
    for pairs, most in ((world.public(), 16), (world.held_out(3), 3)):
        assert len(pairs.images) == len(pairs.captions) and 0 < len(pairs.images) <= most
    assert (world.used() is None) == (kind == "scenes")


@pytest.mark.parametrize("kind", ["scenes", "real data"])
def test_a_split_of_no_size_is_left_out_and_who_reads_no_texts_needs_no_captions(real, kind):
    world = real(IMAGES, test_size=0) if kind == "real data" else scenes(("ic10",), test_size=0)
    assert list(world.private(1)) == ["train", "validation"] and not world.needs_captions


def test_private_sets_belong_to_seed_and_client_and_scored_scenes_to_nobody():
    found = {(seed, client): scenes(("ic10", "ic10"), seed=seed).private(client) for seed in (0, 1) for client in (1, 2)}
    first = found.pop((0, 1))
    assert same(first["train"], scenes(("ic10", "mlc")).private(1)["train"])
    for other in found.values():
        assert not torch.equal(first["train"][0].images, other["train"][0].images)
        assert same(first["test"], other["test"]) and same(first["validation"], other["validation"])


def test_private_scenes_answer_the_task_and_texts_tell_them():
    drawn = digit_scenes("train", "single", 24, 0, "client", 5)
    pairs, wanted = scenes().private(5)["train"]
    assert torch.equal(pairs.images, drawn.images) and torch.equal(wanted, targets("tc10", drawn))
    assert pairs.captions == scene_captions("train", "single", 24, 0, "client", 5)
    assert scenes().private(3)["train"][0].captions is None
    for name, layout in (("mlc", "multi"), ("ic100", "number")):
        client = SCENES.index(name) + 1
        mine = digit_scenes("train", layout, 24, 0, "client", client)
        assert same(scenes().private(client)["train"], (Pairs(mine.images, None), targets(name, mine)))


def test_private_captions_have_streams_of_their_own():
    first = scene_captions("train", "single", 20, 0, "client", 9)
    assert first == scene_captions("train", "single", 20, 0, "client", 9)
    assert first != scene_captions("train", "single", 20, 0, "client", 10)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_non_iid_clients_have_their_own_mixture_in_every_split(split):
    sizes = (80, 80, 80)
    world = scenes(("ic10",) * 3, sizes, dirichlet=0.1, validation_size=400, test_size=400)
    sets = [world.private(client) for client in (1, 2, 3)]
    trained, counts = ([np.bincount(mine[name][1], minlength=10) for mine in sets] for name in ("train", split))
    assert min(map(sum, counts)) >= LEAST and sum(trained).sum() == sum(sizes)
    for mine, own in zip(counts, trained, strict=True):
        assert np.corrcoef(mine, own)[0, 1] > 0.9
    assert [world.classes(client).tolist() for client in (1, 2, 3)] == [mine["train"][1].tolist() for mine in sets]


def test_non_iid_clients_divide_one_pool_texts_with_their_images():
    world = scenes(("tc10", "ic10", "tc10"), (40, 24, 60), dirichlet=0.5, validation_size=400, test_size=0, seed=3)
    pool = ("train", "single", 100, 3, "pool", "tc10")
    first, third = (told(world.private(client)["train"][0]) for client in (1, 3))
    assert first | third == told(Pairs(digit_scenes(*pool).images, scene_captions(*pool))) and len(first) + len(third) == 100
    assert len(world.private(2)["train"][1]) == 24                            # the only one of its task


def test_the_classes_of_two_digits_are_the_first_ones():
    world = scenes(("ic100",))
    assert torch.equal(world.classes(1), world.private(1)["train"][1] // 10) and world.num_classes(1) == 10


def test_public_pairs_belong_together_and_to_their_seed():
    pairs = scenes(seed=3).public()
    assert len(pairs.captions) == len(pairs.images) == 16
    assert torch.equal(pairs.images, public_pairs(16, 3).images)
    assert pairs.captions == public_data(CAPTIONED_DOMAIN, 16, 3).captions != scenes(seed=4).public().captions


@pytest.mark.parametrize("domain", SCENE_DOMAINS)
def test_public_scenes_are_those_of_the_domain_and_only_one_has_captions(domain):
    pairs = scenes(("ic10",), public_domain=domain).public()
    assert torch.equal(pairs.images, public_scenes(domain, 16, 0)) and (pairs.captions is None) == (domain != "pairs")


def test_held_out_scenes_are_test_handwriting_and_pairs_where_texts_are_read():
    alone, read = scenes(("ic10",)).held_out(64), scenes(("ic10", "tc10")).held_out(64)
    assert torch.equal(alone.images, digit_scenes("test", "single", 64, 0, "alignment").images) and alone.captions is None
    assert torch.equal(read.images, held_out_pairs(64, 0).images) and read.captions == held_out_data(64).captions
    assert torch.equal(scenes(("ic10",), default_domain=CAPTIONED_DOMAIN).held_out(64).images, alone.images)
    public = public_data(CAPTIONED_DOMAIN, 512, 0).images.flatten(1)
    assert torch.cdist(read.images.flatten(1), public).min() > 0.5


@pytest.mark.parametrize(("tasks", "changes", "message"), [
    (("ic10",), {"public_domain": "mars"}, "public_domain: got 'mars', expected one of .*'letters'.* for clients with scenes"),
    (("ic10",), {"public_domain": "voc"}, "public_domain: got 'voc', expected one of .*'letters'"),
    (("ic10",), {"default_domain": "voc"}, "settings: public_domain: got 'voc', expected one of .*'letters'"),
    (("ic10", "tc10", "tcleft"), {"public_domain": "single"},
     r"public_domain: got 'single', expected 'pairs': clients \[2, 3\] read captions"),
    (("class@voc",), {"public_domain": "single"}, "public_domain: got 'single', expected one of .*'voc'.* with real data"),
    (("class@voc",), {"public_domain": "mars"}, "public_domain: got 'mars', expected one of .*'voc'"),
    (("class@voc",), {"public_domain": "voc", "default_domain": "pairs"}, "settings: public_domain: got 'pairs', expected"),
    (("class@voc",), {"public_domain": "voc"}, "settings: public_domain: got none, expected the name of a source"),
])
def test_domains_that_clients_cannot_have_are_refused(tasks, changes, message):
    world = scenes(tasks, **changes)
    with pytest.raises(ValueError, match=message):
        world.check()


@pytest.mark.parametrize(("tasks", "real"), [(("ic10", "tc10"), False), (("class@voc", "text@ag_news"), True)])
def test_without_public_data_there_are_none_and_nothing_asks_for_captions(tasks, real):
    world = scenes(tasks, public_domain=None, public_size=None, default_domain="voc" if real else None)
    world.check()
    assert world.public() is None and world.wants_accelerator == real


@pytest.mark.parametrize(("tasks", "changes", "message"), [
    (("ic10", "class@voc"), {}, "setup: got clients with scenes and clients with real data, expected either"),
    (("ic10", "odometry"), {}, "setup: client 2: task: got 'odometry', expected one of"),
    (("class@moon",), {}, "setup: client 1: source: got 'moon', expected one of"),
    (("ic10", "ic10"), {"sizes": (3,)}, "sizes: got 1 for 2 tasks, expected one for each"),
    ((), {}, "sizes: got 0 for 0 tasks, expected one for each of at least one client"),
    (("ic10",), {"public_size": None}, "public_size: got None with public_domain 'pairs', expected a number"),
])
def test_clients_that_make_no_world_are_named(tasks, changes, message):
    with pytest.raises(ValueError, match=message):
        scenes(tasks, **changes)


def test_private_public_validation_and_test_samples_are_all_different(real):
    arguments = MIXED, (6,) * len(MIXED), 0
    rows, sources = splits.private_rows(*arguments), dict(enumerate((task_named(name).source for name in MIXED), 1))
    rows[0], sources[0] = splits.public_rows(*arguments, "flickr30k", 16), "flickr30k"
    assert not torch.equal(splits.private_rows(*arguments[:2], 1)[1], rows[1])
    for source in set(sources.values()):
        parts = splits.split_rows(source)
        used = [row for client in rows if sources[client] == source for row in rows[client].tolist()]
        used += parts["validation"].tolist() + parts["test"].tolist()
        assert len(used) == len(set(used)) and not set(used) & set(parts["reserved"].tolist())
    public = splits.public_rows(MIXED[:8], (6,) * 8, 0, "voc", 8)             # a source of the clients' own
    used = torch.cat([public, *(rows[client] for client in rows if sources[client] == "voc")]).tolist()
    assert len(used) == len(set(used)) == 8 + 5 * 6
    assert set(source_table("voc")["split"].iloc[splits.split_rows("voc")["test"].tolist()]) == {"val"}


def test_rows_stay_those_of_the_stored_runs(real):
    """Numbers of the code before there were worlds; public rows come from the end of the pool."""
    arguments = NONIID, (6,) * len(NONIID), 0
    assert splits.private_rows(*arguments)[1].tolist() == [3, 26, 25, 34, 64, 36]
    assert splits.private_rows(*arguments, 0.1)[1].tolist() == [4]
    assert splits.public_rows(*arguments, "voc", 4).tolist() == [81, 29, 59, 5]
    assert splits.public_rows(*arguments, "voc", 2).tolist() == [59, 5]
    assert splits.own_scored_rows(1, "test", 8, *arguments).tolist() == [83, 84, 88, 89, 90, 92, 93, 94]
    assert splits.own_scored_rows(4, "test", 200, *arguments, 0.1).tolist()[-6:] == [180, 183, 187, 191, 197, 198]
    sizes = [len(scenes(("ic10",) * 3, (80,) * 3, dirichlet=0.1, validation_size=400, test_size=0).private(client)["train"][1])
             for client in (1, 2, 3)]
    assert sizes == [65, 108, 67]


def test_real_samples_are_those_of_the_rows(real):
    for client, name in ((1, "labels@voc"), (7, "pixels@voc"), (9, "text@ag_news")):
        row = splits.private_rows(MIXED, (6,) * len(MIXED), 0)[client][2].item()
        sample = source_table(name.partition("@")[2]).iloc[row]
        pairs, wanted = real().private(client)["train"]
        if name == "text@ag_news":
            assert pairs.images is None and pairs.captions[2] == sample["texts"][0] and wanted[2] == sample["label"]
            continue
        images, masks = photos.load_photos(source_table("voc").iloc[[row]].assign(**{} if client == 7 else {"mask": None}), 224)
        assert pairs.captions is None and torch.equal(pairs.images[2], images[0]) and pairs.images.dtype == torch.uint8
        assert torch.equal(wanted[2], torch.tensor(sample["label"]).float() if masks is None else masks[0])


def test_public_and_held_out_photos_come_with_what_the_clients_read(real):
    world = real()
    rows = splits.public_rows(MIXED, world.sizes, 0, "coco", 16)
    assert world.public().captions == [source_table("coco")["texts"].iloc[row][0] for row in rows.tolist()]
    held = splits.held_out_rows(MIXED, "flickr30k", 3)
    assert set(held.tolist()) <= set(splits.split_rows("flickr30k")["validation"].tolist()) and len(held) == 3
    assert world.held_out(3).captions == [source_table("flickr30k")["texts"].iloc[row][0] for row in held.tolist()]
    photos_only, texts_only = real(IMAGES).public(), real(MIXED[8:]).public()
    assert photos_only.captions is None and len(photos_only.images) == 16
    assert texts_only.images is None and len(texts_only.captions) == 16


def test_non_iid_clients_of_a_task_deal_what_they_would_have_together(real):
    arguments = NONIID, (6,) * len(NONIID), 0
    rows, dealt = splits.private_rows(*arguments), splits.private_rows(*arguments, 0.1)
    everything = {"test_size": 200, "validation_size": 200}
    iid, skewed = real(NONIID, **everything), real(NONIID, dirichlet=0.1, **everything)
    assert torch.equal(iid.public().images, skewed.public().images)           # the public data stay
    for task in set(NONIID):
        together = splits.clients_of(NONIID, task)
        assert len(together) == 3
        assert sorted(torch.cat([rows[client] for client in together]).tolist()) == sorted(
            torch.cat([dealt[client] for client in together]).tolist())
        assert any(not torch.equal(rows[client], dealt[client]) for client in together)
    assert len(skewed.private(7)["train"][1]) == len(dealt[7]) == len(skewed.classes(7))
    for task in ("class@cifar10", "class@cifar100"):                          # 10 and 100 test photos
        together, everybody = splits.clients_of(NONIID, task), splits.scored_rows(task, "test", 200)
        mine = [splits.own_scored_rows(client, "test", 200, *arguments, 0.1) for client in together]
        assert sorted(torch.cat(mine).tolist()) == everybody.tolist()
        assert torch.equal(splits.own_scored_rows(together[0], "test", 200, *arguments), everybody)


def test_a_client_is_scored_on_the_classes_it_trains_on(real, monkeypatch):
    """Shares of one client a class: what it has of a class in training it has in the test, and nothing else."""
    def whole(classes, sizes, concentration, seed, *names, num_classes):
        shares = np.eye(3)[np.arange(num_classes) % 3]
        return partition.deal(classes, shares, torch.Generator().manual_seed(0)), shares

    monkeypatch.setattr(splits, "split_by_class", whole)
    world = real(("class@cifar10",) * 3, dirichlet=0.125, validation_size=0, test_size=200)
    for place in range(3):
        sets = world.private(place + 1)
        assert all(set((wanted % 3).tolist()) == {place} for _, wanted in sets.values()) and len(sets) == 2
        assert torch.equal(world.classes(place + 1), sets["train"][1])


def test_the_class_of_a_sample_is_its_own_the_first_label_or_that_of_most_pixels(real, tmp_path):
    task, everything = task_named("labels@voc"), torch.arange(len(source_table("voc")))
    rows = splits.with_needs("voc", everything, ("image", "label"))
    labels = source_table("voc")["label"].iloc[rows.tolist()]
    found = splits.sample_classes(task, rows).tolist()
    assert found == [next((place for place, there in enumerate(label) if there), 0) for label in labels]
    mask = np.zeros((6, 6), dtype=np.uint8)
    mask[0], mask[1:3], mask[3:5] = 255, 7, 4
    mask[5, :2] = 7
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert photos.largest_class(tmp_path / "mask.png") == 7
    Image.fromarray(np.zeros((6, 6), dtype=np.uint8)).save(tmp_path / "empty.png")
    assert photos.largest_class(tmp_path / "empty.png") == 0
    with pytest.raises(ValueError, match="none.png: no such file"):
        photos.largest_class(tmp_path / "none.png")
    pixels = task_named("pixels@voc")
    rows = splits.with_needs("voc", everything, ("image", "mask"))
    found = splits.sample_classes(pixels, rows)
    assert splits.sample_classes(pixels, rows.repeat(2)).tolist() == 2 * found.tolist()
    assert found.min() >= 0 and found.max() < pixels.num_outputs - 1


def test_too_few_samples_are_named_with_what_they_are_for(real):
    with pytest.raises(ValueError, match="dirichlet: got 0.1, which leaves client .* without a validation sample"):
        for client in range(1, len(NONIID) + 1):
            real(NONIID, dirichlet=0.1, validation_size=1).private(client)
    with pytest.raises(ValueError, match="voc: got 56 free samples with photos for the public data, expected at least 500"):
        real(IMAGES, public_domain="voc", public_size=500).public()
    with pytest.raises(ValueError, match="coco: got 27 free samples with photos and texts .* expected at least 28"):
        real(public_size=28).public()
    with pytest.raises(ValueError, match="cifar10: got 0 free samples with photos and texts for the public data"):
        real(public_domain="cifar10").public()                                # photos without captions
    with pytest.raises(ValueError, match="voc: got .* free samples with photos and masks for client 2, expected at least 6"):
        world_of(("pixels@voc",) * 2, (36, 6), seed=0, public_domain=None, public_size=None, validation_size=1, test_size=0,
                 default_domain="voc").private(1)
    with pytest.raises(ValueError, match="coco: got no test sample for labels@coco"):
        real(("labels@coco",)).private(1)
    with pytest.raises(ValueError, match="classes: got no scene of"):
        for client in (1, 2, 3):
            scenes(("ic10",) * 3, (80,) * 3, dirichlet=0.1, validation_size=4).private(client)


def test_labels_and_masks_that_do_not_fit_are_named(real, folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"jpg: got label \(.*, expected a class from 0 to 19 for class@voc"):
        real(("class@voc",)).private(1)
    table = source_table("voc").assign(label=[tuple([2] + [0] * 19)] * len(source_table("voc")))
    with pytest.raises(ValueError, match=r"jpg: got label \(2, .*, expected 20 numbers, 0 or 1 for labels@voc"):
        splits.check_labels(task_named("labels@voc"), table)
    shutil.copytree(folder / "voc", tmp_path / "voc")
    masks = list((tmp_path / "voc").rglob("SegmentationClass/*.png"))
    for content, message, changes in (
            (Image.new("L", (40, 30), 33), "png: got class 33, expected 0 to 20 or 255", {}),
            (Image.new("L", (40, 30), 33), "png: got class 33, expected 0 to 20 or 255", {"dirichlet": 0.1}),
            (Image.new("RGB", (40, 30)), "png: got an image of mode RGB, expected one channel of 8 bits", {"dirichlet": 0.1})):
        for path in masks:
            content.save(path)
        photos.largest_class.cache_clear()
        world = real(("pixels@voc",) * 2, **changes)
        monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path))
        with pytest.raises(ValueError, match=message):
            world.private(1)


def test_what_a_run_used_changes_with_its_samples(real, folder, tmp_path, monkeypatch):
    """The public ones count where they are read."""
    found, alone = real(IMAGES).used(), real(IMAGES, public_domain=None).used()
    assert list(alone["sources"]) == ["cifar10", "cifar100", "voc"] and list(found["sources"]) == [
        "cifar10", "cifar100", "coco", "voc"]
    assert list(found["clients"]) == [str(client) for client in range(7)]
    assert alone["clients"] == {client: value for client, value in found["clients"].items() if client != "0"}
    assert real(IMAGES, seed=1).used()["sources"] == found["sources"] and real(IMAGES, seed=1).used() != found
    shutil.copytree(folder, tmp_path / "data")
    next((tmp_path / "data" / "cifar10").rglob("train/class003/*.png")).unlink()
    before = real(IMAGES)
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path / "data"))
    changed = before.used()["sources"]
    assert {name for name in changed if changed[name] != found["sources"][name]} == {"cifar10"}


@pytest.mark.parametrize(("missing", "here"), [("cifar10", False), ("flickr30k", False), ("coco", False), ("ag_news", True)])
def test_data_are_here_where_the_clients_public_and_default_sources_are(real, folder, tmp_path, monkeypatch, missing, here):
    world, alone = real(IMAGES), real(IMAGES, public_domain=None)
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path))
    for path in folder.iterdir():
        if path.name != missing:
            (tmp_path / path.name).symlink_to(path)
    assert world.is_here() == here and alone.is_here() == (here or missing == "coco")

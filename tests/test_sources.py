"""Sources: local data take a role by settings; what is asked of a source that it has not is refused by name."""

import os

import pytest
import tiny_world
import torch

from fedmuscle_core import federation
from fedmuscle_core.experiments import plans
from fedmuscle_core.experiments.runs import one_thread
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.setups import SETUPS, ClientSpec
from fedmuscle_core.world import tasks
from fedmuscle_core.world.real import sources
from fedmuscle_core.world.real import splits as real_data
from fedmuscle_core.world.tasks import task_named

EXCERPTS = [name for name, source in sources.SOURCES.items() if not source.files and name not in ("photos", "flickr30k")]
REAL = os.environ.get("FEDMUSCLE_DATA")
real = pytest.mark.skipif(not REAL, reason="FEDMUSCLE_DATA is not set: it names the folder of the real excerpts")


@pytest.fixture
def local(tmp_path, monkeypatch):
    """A data folder whose sources.toml puts three kinds of birds into the role of CIFAR-10; writes another content."""
    monkeypatch.setenv("FEDMUSCLE_DATA", str(tmp_path))
    path = tmp_path / "sources.toml"

    def write(text):
        path.write_text(text)
    write('[cifar10]\nfolder = "birds"\nlayout = "image_folder"\nclasses = 3\nsize = 16\n')
    return write


def test_local_data_take_the_role_of_a_source(local, tmp_path, monkeypatch):
    rng = tiny_world.np.random.default_rng(0)
    tiny_world.write_cifar(tmp_path / "birds", 3, 12, 2, rng)
    assert sources.source_folder("cifar10") == tmp_path / "birds" and len(sources.read_source("cifar10")) == 42
    assert task_named("class@cifar10").num_outputs == 3 and sources.source_named("voc") == sources.SOURCES["voc"]
    monkeypatch.setitem(SETUPS, "birds", (ClientSpec("class@cifar10", "resnet_small", 10),
                                          ClientSpec("class@cifar10", "vit_small", 6)))
    monkeypatch.setitem(federation.SETUP_SETTINGS, "birds", {"public_domain": "cifar10"})
    settings = Settings(setup="birds", rounds=1, num_peers=1, public_domain="cifar10", public_size=8, batch_size=8, test_size=6,
                        validation_size=3)
    built = federation.build(settings)
    assert built.clients[0].data["train"][0].shape == (10, 3, 16, 16) and built.clients[0].data["train"][0].dtype == torch.uint8
    assert built.clients[1].public.shape == (8, 3, 16, 16)
    history, _ = federation.train(built, progress=False)
    assert len(history[history["split"] == "test"]) == 2


@pytest.mark.parametrize(("text", "message"), [
    ("[birds", "sources.toml: not TOML"),
    ('[birds]\nfolder = "x"\n', r"sources.toml: \[birds\]: got .*, expected folder and layout"),
    ('[birds]\nfolder = "x"\nlayout = "zip"\n', r"\[birds\]: layout: got 'zip', expected one of"),
    ('[birds]\nfolder = "x"\nlayout = "voc"\nclasses = "many"\n', r"\[birds\]: got .*many"),
    ('[birds]\nfolder = "x"\nlayout = "voc"\ncolour = 3\n', r"\[birds\]: got .*colour"),
])
def test_a_wrong_entry_is_named(local, text, message):
    local(text)
    with pytest.raises(ValueError, match=message):
        sources.sources()


@pytest.mark.parametrize(("name", "message"), [
    ("mlk", "task: got 'mlk', expected one of"), ("class@moon", "source: got 'moon', expected one of"),
    ("colour@voc", "task: kind: got 'colour', expected one of"), ("class@photos", "expected a source with labels"),
])
def test_unknown_tasks_are_named(name, message):
    with pytest.raises(ValueError, match=message):
        task_named(name)


def test_pixels_have_a_background_and_void_is_neither_learnt_nor_scored():
    task = task_named("pixels@voc")
    assert task.num_outputs == 21 and task.dense and task.source == "voc"
    logits = torch.randn(2, 21, 4, 4, generator=torch.Generator().manual_seed(0))
    wanted = logits.argmax(1).to(torch.uint8)
    said = wanted.clone()
    assert task.score(said, wanted) == 100.0
    wanted[:, 0] = 255
    assert task.score(said, wanted) == 100.0
    said[:, 1] = (said[:, 1] + 1) % 21
    assert 0 < task.score(said, wanted) < 100
    shown = wanted != 255
    by_hand = torch.nn.functional.cross_entropy(logits.permute(0, 2, 3, 1)[shown], wanted[shown].long())
    assert torch.allclose(task.loss(logits, wanted), by_hand)


def test_labels_that_never_occur_are_left_out_of_the_mean():
    logits = torch.tensor([[2.0, 0.0, 5.0], [1.0, 1.0, 4.0], [0.0, 2.0, 3.0]])
    wanted = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert tasks.task_named("labels@voc").score(logits, wanted) == pytest.approx(100 * (1 + 1 / 3) / 2)


@real
@pytest.mark.parametrize("name", EXCERPTS)
def test_the_excerpts_give_every_role_of_their_setups(name):
    """The parts of a source do not overlap and leave nothing out but texts that another part has."""
    parts, table = real_data.split_rows(name), sources.read_source(name)
    used = torch.cat(list(parts.values())).tolist()
    assert len(used) == len(set(used))
    keys = [real_data.text_key(row.image, row.texts) for row in table.itertuples()]
    left = set(range(len(table))) - set(used)
    assert {keys[row] for row in left} <= {keys[row] for row in used} - {None} and len(left) == (46 if name == "trec" else 0)
    reserved = round(sources.SOURCES[name].reserved * (len(table) - len(parts["test"])))
    assert reserved - len(left) <= len(parts["reserved"]) <= reserved


@real
@pytest.mark.parametrize(("setup", "domain", "size"), [
    *(("photos1", domain, size) for domain, size in plans.PHOTO_DOMAINS.items()), ("photos2", "coco_small", 320)])
def test_runs_on_the_excerpts_have_enough_samples(setup, domain, size):
    rows = real_data.run_rows(Settings(setup=setup, public_domain=domain, public_size=size), public=True)
    assert [len(rows[index]) for index in range(1, len(SETUPS[setup]) + 1)] == [spec.train_size for spec in SETUPS[setup]]
    assert len(rows[0]) == size


@real
def test_a_federation_trains_on_the_real_excerpts(monkeypatch):
    """Setup 2's image clients and its pixels, two short rounds, small backbones of the embedded world."""
    specs = (ClientSpec("labels@voc_animals", "resnet_small", 24), ClientSpec("class@cifar100_excerpt", "vit_small", 32),
             ClientSpec("class@cifar10_excerpt", "resnet_small", 32), ClientSpec("pixels@voc_animals", "segformer_medium", 16))
    monkeypatch.setitem(SETUPS, "real", specs)
    monkeypatch.setitem(federation.SETUP_SETTINGS, "real", {"public_domain": "coco_small"})
    settings = Settings(setup="real", rounds=2, public_domain="coco_small", public_size=64, test_size=50, validation_size=30)
    with one_thread():
        history, alignment = federation.train(federation.build(settings), progress=False)
    losses = history[history["metric"] == "contrastive_loss"].groupby("round")["value"].mean()
    assert losses[2] < losses[1] and history["value"].notna().all() and len(alignment["after"]["cka"]) == 4


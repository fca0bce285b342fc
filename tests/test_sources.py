"""Sources: local data take a role by settings; what is asked of a source that it has not is refused by name."""

import os

import pytest
import tiny_world
import torch

from fedmuscle_core.commands import cli
from fedmuscle_core.experiments import choices, plans, to_keep
from fedmuscle_core.experiments.build import world_for
from fedmuscle_core.experiments.settings import Settings
from fedmuscle_core.experiments.setups import SETUPS
from fedmuscle_core.world.real import sources, splits
from fedmuscle_core.world.tasks import frequent_labels, task_named
from fedmuscle_core.world.worlds import world_of

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


def test_local_data_take_the_role_of_a_source(local, tmp_path):
    rng = tiny_world.np.random.default_rng(0)
    tiny_world.write_cifar(tmp_path / "birds", 3, 12, 2, rng)
    assert sources.source_folder("cifar10") == tmp_path / "birds" and len(sources.read_source("cifar10")) == 42
    assert task_named("class@cifar10").num_outputs == 3 and sources.source_named("voc") == sources.SOURCES["voc"]
    world = world_of(("class@cifar10",) * 2, (10, 6), seed=0, public_domain="cifar10", public_size=8, validation_size=3,
                     test_size=6, default_domain="cifar10")
    world.check()
    pairs, wanted = world.private(1)["train"]
    assert pairs.images.shape == (10, 3, 16, 16) and pairs.images.dtype == torch.uint8 and wanted.max() < 3
    assert world.public().images.shape == (8, 3, 16, 16) and len(world.private(2)["test"][1]) == 6


@pytest.mark.parametrize(("text", "message"), [
    ("[birds", "sources.toml: not TOML"),
    ('[birds]\nfolder = "x"\n', r"sources.toml: \[birds\]: got .*, expected folder and layout"),
    ('[birds]\nfolder = "x"\nlayout = "zip"\n', r"\[birds\]: layout: got 'zip', expected one of"),
    ('[birds]\nfolder = "x"\nlayout = "voc"\nclasses = "many"\n', r"\[birds\]: got .*many"),
    ('[birds]\nfolder = "x"\nlayout = "voc"\ncolour = 3\n', r"\[birds\]: got .*colour"),
    ("birds = 1\n", r"sources.toml: got birds = 1, expected a table \[birds\] with folder and layout"),
    ('[birds]\nfolder = "x"\nlayout = "voc"\nsize = 0\n', r"\[birds\]: got .*'size': 0"),
    ('[birds]\nfolder = "x"\nlayout = "voc"\nclasses = true\n', r"\[birds\]: got .*True"),
])
def test_a_wrong_entry_is_named(local, text, message):
    local(text)
    with pytest.raises(ValueError, match=message):
        sources.sources()


def test_a_file_that_is_no_text_is_named(local, tmp_path):
    (tmp_path / "sources.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="sources.toml: not TOML"):
        sources.sources()


def test_data_without_a_sample_or_with_a_wrong_one_are_named(local, tmp_path, capsys):
    local('[news]\nfolder = "news"\nlayout = "csv"\nclasses = 2\n')
    (tmp_path / "news").mkdir()
    (tmp_path / "news" / "classes.txt").write_text("old\nnew\nnewest\n")
    for text, message in (("split,label,text\n", "news: got no sample, expected some"),
                          ("split,label,text\ntrain,1,A\ntrain,2,B\n", "news: sample 1: got label 2, expected 0 to 1")):
        (tmp_path / "news" / "samples.csv").write_text(text)
        assert cli.main(["data", "check", "news"]) == 2
        assert str(tmp_path / message) in capsys.readouterr().err


@real
@pytest.mark.parametrize("name", EXCERPTS)
def test_the_excerpts_give_every_role_of_their_setups(name):
    """The parts of a source do not overlap and leave nothing out but texts that another part has."""
    parts, table = splits.split_rows(name), sources.read_source(name)
    used = torch.cat(list(parts.values())).tolist()
    assert len(used) == len(set(used))
    keys = [splits.text_key(row.image, row.texts) for row in table.itertuples()]
    left = set(range(len(table))) - set(used)
    assert {keys[row] for row in left} <= {keys[row] for row in used} - {None} and len(left) == (21 if name == "trec" else 0)


@real
def test_the_excerpts_have_enough_samples_for_all_runs_on_them(monkeypatch):
    monkeypatch.setattr(plans, "tabled", lambda setup: plans.LOSSES)
    monkeypatch.setattr(choices, "AT_DEFAULTS", tuple(SETUPS))                # whatever was tuned
    planned = {(run.setup, run.public_domain, run.public_size): run for number in ("15", "17")
               for run in plans.PLANS[number]("foundation") if run.method.uses_public}
    assert {setup.name for setup, _, _ in planned} >= {"foundation1", "foundation2", "foundation_mixed", "grid_weak_many"}
    for (setup, _, size), run in planned.items():
        world = world_for(run)
        assert {client: len(rows) for client, rows in world._rows().items()} == dict(enumerate(setup.sizes, 1))
        assert len(world._public_rows()) == size


@real
def test_what_runs_read_of_trunks_is_counted_once():
    run = Settings.of("foundation1", "fedmuscle")
    found = to_keep.outputs_read([run])
    own, held_out, public = 25 + 140 + 200, 200, 900                          # of Tiny ImageNet's 2,000 a tenth
    assert found["dinov2_small", None, 98] == own + held_out + public
    others = [run.replace(contrastive_lr=1e-5), Settings.of("foundation1", "local"), Settings.of("foundation1", "pairwise")]
    assert to_keep.outputs_read([run, *others]) == found
    viewed = to_keep.outputs_read([Settings.of("foundation1", "simclr")])
    assert viewed["dinov2_small", None, 98] == own + held_out + public * (1 + run.compute.views)


@real
def test_the_labels_that_count_have_at_least_fifteen_photos_to_be_found_in():
    task = task_named("labels@voc_animals")
    _, wanted = splits.task_samples(task, splits.scored_rows(task.name, "test", 1000))
    counts, count = wanted.sum(0), frequent_labels("voc_animals")
    assert len(wanted) == 200 and counts[count].min() >= 15 and (counts >= 15).sum() == len(count) == 8
    assert len(splits.scored_rows(task.name, "validation", 1000)) == 140

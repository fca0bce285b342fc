import copy
import math

import pandas as pd
import pytest
import torch

from fedmuscle_core.experiments.runs import one_thread
from fedmuscle_core.paths import BACKBONES
from fedmuscle_core.pretraining import images


@pytest.fixture(autouse=True)
def alone():
    """As pretraining computes."""
    with one_thread():
        yield


def test_the_stored_probe_covers_every_backbone_and_each_is_worth_its_place():
    table = pd.read_csv(BACKBONES / "probe.csv").pivot(index="backbone", columns="weights", values=["letters", "digits"])
    assert set(table.index) == set(images.CONFIGS)
    for task in ("letters", "digits"):
        assert (table[task]["pretrained"] > table[task]["untrained"] + 0.15).all()
    assert table["letters"]["pretrained"].min() > 0.75


def test_the_stored_probe_is_the_one_of_the_stored_weights():
    stored = pd.read_csv(BACKBONES / "probe.csv").set_index(["backbone", "weights"])
    scores = images.probe(images.load_backbone("resnet_small"))
    for task, value in scores.items():
        assert value == pytest.approx(stored.loc[("resnet_small", "pretrained"), task], abs=0.01)


def test_pretraining_learns(monkeypatch):
    """Both stages in miniature: each ends well below the loss it starts from."""
    losses, fit = {}, images.fit

    def watch(title, modules, loss, *args, **kwargs):
        before = loss(torch.arange(128), images.generator(0)).item()
        fit(title, modules, loss, *args, **kwargs)
        losses[title] = (before, loss(torch.arange(128), images.generator(0)).item())

    monkeypatch.setattr(images, "fit", watch)
    monkeypatch.setitem(images.CONFIGS, "resnet_test", (images.resnet([8, 16, 32]), 20))
    backbone = copy.deepcopy(images.learn_single_letters("resnet_test", num_scenes=640))
    images.learn_letters_in_place("resnet_test", backbone, num_scenes=256, epochs=10)
    before, after = losses["resnet_test: single letters"]
    assert before == pytest.approx(math.log(58), abs=0.4) and after < before - 0.4
    before, after = losses["resnet_test: letters in place"]
    assert before == pytest.approx(3 * math.log(58), abs=1.5) and after < before - 0.3


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        images.main(["resnet_huge"])
    assert "got ['resnet_huge']" in capsys.readouterr().err

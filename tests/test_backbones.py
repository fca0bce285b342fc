"""Backbones that are not whole, or not what their configuration says, are refused by the name of their file."""

import json
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, ViTConfig, ViTForImageClassification

from fedmuscle_core.networks import backbones
from fedmuscle_core.networks.backbones import BACKBONES, CHECKSUMS, check_files, load_backbone, write_checksums
from fedmuscle_core.networks.text import load_tokenizer

KEY = "encoder.layer.1.attention.attention.key.bias"
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4665\nsize 283616\n"


@pytest.fixture
def folder(tmp_path):
    """A copy of vit_small where one's own backbones lie."""
    return shutil.copytree(BACKBONES / "vit_small", tmp_path / "mine")


def changed(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(("change", "message"), [
    (lambda tensors: tensors.update({f"{KEY}x": tensors.pop(KEY)}), r"no tensors .*k_proj\.bias \(1 in all\)"),
    (lambda tensors: tensors.pop(KEY), r"no tensors layers\.1\.attention\.k_proj\.bias"),
    (lambda tensors: tensors.update({KEY: tensors[KEY][:-1].clone()}), r"other shapes of layers\.1\.attention\.k_proj\.bias"),
    (lambda tensors: tensors.update({"encoder.layer.9.output.dense.bias": tensors[KEY].clone()}), "superfluous tensors .*9"),
])
def test_tensors_that_do_not_fit_are_named(folder, change, message):
    changed(folder, change)
    with pytest.raises(ValueError, match=rf"mine: got {message}.*safetensors, expected what config\.json says"):
        load_backbone(str(folder))


@pytest.mark.parametrize(("content", "message"), [
    (b"", "damaged"), (LFS, "a pointer of git-lfs: `git lfs pull`"), (b"x" * 1000, "damaged"), (None, "damaged")])
def test_files_that_are_not_whole_are_named(folder, content, message):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:9000] if content is None else content)
    with pytest.raises(ValueError, match=rf"mine/model\.safetensors: got no whole safetensors file: it is {message}"):
        load_backbone(str(folder))


@pytest.mark.parametrize("text", ["{", "{}", '{"model_type": "zebra"}', '{"model_type": "vit", "hidden_size": "many"}'])
def test_a_damaged_configuration_is_named_with_its_folder(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match="backbone: got '.*mine', but loading .*mine failed: .+"):
        load_backbone(str(folder))


def test_pickled_weights_are_not_read(folder, tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path / "touched").touch, ()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({KEY: Evil()}))
    with pytest.raises(ValueError, match="mine failed: .*model.safetensors"):
        load_backbone(str(folder))
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(("kind", "config"), [(BertForMaskedLM, BertConfig(vocab_size=16, **SMALL)),
                                              (ViTForImageClassification, ViTConfig(image_size=32, patch_size=8, **SMALL))])
def test_heads_and_poolers_need_not_fit(kind, config, tmp_path):
    model = kind(config)
    model.save_pretrained(tmp_path / "whole")
    wanted, found = model.base_model.state_dict(), load_backbone(str(tmp_path / "whole")).state_dict()
    assert {key for key in found if key not in wanted} == {"pooler.dense.bias", "pooler.dense.weight"}
    assert all(torch.equal(found[key], value) for key, value in wanted.items())
    path = tmp_path / "whole" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 0}))
    with pytest.raises(ValueError, match="whole: got superfluous tensors"):
        load_backbone(str(tmp_path / "whole"))


def test_the_packages_own_files_are_those_of_the_table(tmp_path, monkeypatch):
    copy = shutil.copytree(BACKBONES, tmp_path / "pretrained")
    write_checksums(copy)
    assert (copy / CHECKSUMS).read_text() == (BACKBONES / CHECKSUMS).read_text()
    for path in BACKBONES.iterdir():
        check_files(path)
    monkeypatch.setattr(backbones, "BACKBONES", copy)
    load_backbone("vit_small")
    changed(copy / "vit_small", lambda tensors: tensors[KEY].add_(1))
    with pytest.raises(ValueError, match="vit_small/model.safetensors: got other bytes, expected SHA-256 .* of checksums.csv"):
        load_backbone("vit_small")
    (copy / "bert_small" / "tokenizer.json").unlink()
    load_tokenizer.cache_clear()
    with pytest.raises(ValueError, match="bert_small/tokenizer.json: got no file, expected SHA-256"):
        load_tokenizer("bert_small")


def test_other_bytes_have_another_digest(folder):
    before = backbones.backbone_digest(str(folder))
    assert before == backbones.backbone_digest("vit_small") == backbones.backbone_digest(str(folder))
    changed(folder, lambda tensors: tensors.update({KEY: tensors[KEY] + 1}))
    assert backbones.backbone_digest(str(folder)) != before


def test_a_folder_called_like_a_pinned_model_does_not_replace_it(tmp_path, monkeypatch):
    hub = backbones.CHECKPOINTS["vit_base"].hub
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FEDMUSCLE_CHECKPOINTS", raising=False)
    monkeypatch.setattr(backbones, "try_to_load_from_cache", lambda *_, **__: "config.json")
    for name in ("vit_base", hub):
        shutil.copytree(BACKBONES / "vit_small", tmp_path / name)
    with pytest.raises(ValueError, match=f"backbone: got 'vit_base', and a folder {hub} in .*, expected no folder"):
        load_backbone("vit_base")
    shutil.rmtree(tmp_path / hub)
    assert backbones.backbone_folder("vit_base") is None
    assert backbones.located("vit_base")["revision"] == backbones.CHECKPOINTS["vit_base"].revision


def test_a_damaged_tokenizer_is_named(tmp_path):
    folder = shutil.copytree(BACKBONES / "bert_small", tmp_path / "mine")
    (folder / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(ValueError, match="tokenizer: got '.*mine', but loading .*mine failed: .+"):
        load_tokenizer(str(folder))


def test_a_damaged_file_in_the_hubs_cache_and_a_cache_that_cannot_be_written_are_named(tmp_path, monkeypatch):
    snapshot = tmp_path / "models--some--model" / "snapshots" / ("a" * 40)
    shutil.copytree(BACKBONES / "vit_small", snapshot)
    (snapshot / "model.safetensors").write_bytes(b"")
    (snapshot.parent.parent / "refs").mkdir()
    (snapshot.parent.parent / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"a/model\.safetensors: got no whole safetensors file: it is damaged"):
        load_backbone("some/model")

    def refused(**_):
        raise PermissionError(13, "Permission denied", "/cache/models--other--model")
    monkeypatch.setattr(backbones.AutoModel, "from_pretrained", refused)
    monkeypatch.setattr(backbones, "located", lambda name: {"pretrained_model_name_or_path": name, "revision": "main"})
    with pytest.raises(ValueError, match="loading other/model failed: .*denied: '/cache.*; HF_HOME names another folder"):
        load_backbone("other/model")

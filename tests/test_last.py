"""Backbones cut in two: trunk and tail give what the whole gives, and only the tail learns."""

import pytest
import torch
from transformers import Swinv2Config, Swinv2Model

from fedmuscle_core.networks.adaptation import adapt
from fedmuscle_core.networks.backbones import load_backbone
from fedmuscle_core.networks.last import STAGES, split
from fedmuscle_core.networks.packaged import PACKAGED, is_installed

NAMES = ("resnet_small", "segformer_medium", "vit_small", "bert_small", "distilbert_small", *PACKAGED)


def samples(backbone):
    """Three samples as the backbone takes them, texts of several lengths."""
    rng, config = torch.Generator().manual_seed(0), backbone.config
    if "bert" in config.model_type:
        ids = torch.randint(1, 50, (3, 12), generator=rng)
        ids[0, 7:], ids[1, 3:] = 0, 0
        return ids
    side = 70 if config.model_type in ("dinov2", "timm_wrapper") else config.image_size if config.model_type == "vit" else 32
    return torch.rand(3, 3, side, side, generator=rng)


@torch.no_grad()
def whole(backbone, inputs):
    """Last features, and which of them are of no padding."""
    if inputs.is_floating_point():
        return backbone(pixel_values=inputs).last_hidden_state, ...
    return backbone(input_ids=inputs, attention_mask=(inputs != 0).long()).last_hidden_state, inputs != 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("learning", [None, 2])
def test_the_two_parts_give_what_the_whole_gives(name, learning):
    if name in PACKAGED and not is_installed(name):
        pytest.skip(f"{PACKAGED[name].package} is not installed: `make pretrained`")
    backbone = load_backbone(name).eval()
    inputs = samples(backbone)
    wanted, real = whole(backbone, inputs)
    trunk, tail = split(backbone, learning)
    kept = trunk(inputs)
    assert not kept.requires_grad and len(kept) == 3
    with torch.no_grad():
        assert torch.equal(tail.eval()(kept)[real], wanted[real])
        assert torch.allclose(tail(kept.half())[real], wanted[real], atol=0.05 * wanted.std().item())


def test_more_stages_learn_where_it_is_asked_for():
    sizes = [sum(p.numel() for p in split(load_backbone("vit_small").eval(), count)[1].parameters()) for count in (2, 3)]
    assert sizes[0] < sizes[1] < sum(p.numel() for p in load_backbone("vit_small").parameters())


def test_only_the_tail_learns_by_low_rank_updates_where_it_has_projections():
    for name, all_of_it in (("vit_small", False), ("resnet_small", True)):
        backbone = load_backbone(name).eval()
        trunk, tail = split(backbone)
        adapt(tail, "last", 4)
        learning = [key for key, parameter in tail.named_parameters() if parameter.requires_grad]
        assert learning and (len(learning) == len(list(tail.parameters()))) == all_of_it
        assert all_of_it or all("lora_" in key for key in learning)
        before = [parameter.clone() for parameter in backbone.parameters()]
        tail.train()(trunk(samples(backbone))).square().mean().backward()
        with torch.no_grad():
            for parameter in tail.parameters():
                if parameter.grad is not None:
                    parameter -= parameter.grad
        assert all(torch.equal(old, new) for old, new in zip(before, backbone.parameters(), strict=True))
        assert all(parameter.grad is None for parameter in backbone.parameters())


def test_what_cannot_be_cut_is_refused_by_name():
    other = Swinv2Model(Swinv2Config(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[1, 1]))
    with pytest.raises(ValueError, match=r"adaptation: got 'last' for Swinv2Model, expected a backbone of \['bert'"):
        split(other)
    most = len(load_backbone("vit_small").layers)
    with pytest.raises(ValueError, match=f"last_stages: got {most + 1} for ViTModel, expected 2 to {most}"):
        split(load_backbone("vit_small"), most + 1)
    assert all(stages.default >= 0 for stages in STAGES.values())

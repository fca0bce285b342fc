"""Only the last stages of a backbone learn; what comes before, its trunk, is frozen, and its output need be computed once.

`split` cuts a backbone into the two: trunk(samples) -> what the `Tail` reads, Tail -> the features that the whole backbone
would give.  Trunk outputs are (B, T, C) tokens or (B, C, h, w) maps; rows of padding are zero.
"""

import copy
from types import SimpleNamespace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Stages(NamedTuple):
    """Where the stages of a kind of backbone are.  layers: lists of modules, of which a stage has one each; before: what comes
    ahead of them; default: how many stages learn, where nobody says."""

    before: tuple
    layers: tuple
    default: int


STAGES = {                                            # by `model_type` of the configuration
    "dinov2": Stages(("embeddings",), ("encoder.layer",), 1),
    "vit": Stages(("embeddings",), ("layers",), 2),
    "bert": Stages(("embeddings",), ("encoder.layer",), 1),
    "distilbert": Stages(("embeddings",), ("transformer.layer",), 1),
    "resnet": Stages(("embedder",), ("encoder.stages",), 1),
    "segformer": Stages((), ("stages",), 1),
    "timm_wrapper": Stages(("timm_model.conv_stem", "timm_model.bn1"), ("timm_model.blocks",), 0),    # the last convolution
}


class Given(nn.Module):
    """In the place of what comes ahead of the tail: gives what it is given."""

    patch_embeddings = SimpleNamespace(projection=SimpleNamespace(weight=torch.empty(0)))      # a ViT asks these for their type

    def forward(self, *args, **named):
        return next(value for value in (*args, *named.values()) if value is not None)


class Tail(nn.Module):
    """The last stages of a backbone: a trunk's output -> the last features, the `last_hidden_state` of the whole backbone."""

    def __init__(self, backbone, text):
        super().__init__()
        self.backbone, self.config, self.text = backbone, backbone.config, text

    @property
    def width(self):
        """Channels of what it reads."""
        convolutions = (module for module in self.backbone.modules() if isinstance(module, nn.Conv2d))
        return next((module.in_channels for module in convolutions), None) or self.config.hidden_size

    def forward(self, kept):
        kept = kept.float()
        if self.text:
            return self.backbone(inputs_embeds=kept, attention_mask=present(kept).long()).last_hidden_state
        return self.backbone(pixel_values=kept).last_hidden_state


def present(kept):
    """(B, T), which tokens of a trunk's output are none of padding."""
    return kept.ne(0).any(2)


class Trunk:
    """What comes ahead of the tail; called with images as the backbone takes them, or token ids, 0 = padding."""

    def __init__(self, backbone, at, text):
        self.backbone, self.at, self.text = backbone, at, text

    @torch.no_grad()
    def __call__(self, samples):
        found = []

        def stop(_, args, kwargs):
            found.append(args[0] if args else kwargs["hidden_states"])
            raise _Reached

        hook = self.backbone.get_submodule(self.at).register_forward_pre_hook(stop, with_kwargs=True)
        try:
            if self.text:                                                     # what is beyond the longest is padding of all
                length = int((samples != 0).any(0).nonzero().max()) + 1 if samples.any() else samples.shape[1]
                self.backbone(input_ids=samples[:, :length], attention_mask=(samples[:, :length] != 0).long())
            else:
                self.backbone(pixel_values=samples)
        except _Reached:
            pass
        finally:
            hook.remove()
        if not self.text:
            return found[0]
        return F.pad(found[0] * (samples[:, :length] != 0)[..., None], (0, 0, 0, samples.shape[1] - length))


class _Reached(Exception):
    pass


def split(backbone, learning=None):
    """(`Trunk`, `Tail`) of a backbone, which is frozen, in eval mode, and shared by no one else afterwards.

    learning: how many of its stages the tail has, None for the usual number of its kind.  Raises ValueError for a kind that
    nobody has cut, or a number of stages that it does not have.
    """
    kind = getattr(backbone.config, "model_type", "")
    if kind not in STAGES:
        raise ValueError(f"adaptation: got 'last' for {type(backbone).__name__}, expected a backbone of {sorted(STAGES)}")
    stages, text = STAGES[kind], kind in ("bert", "distilbert")
    lists = [backbone.get_submodule(path) for path in stages.layers]
    count = stages.default if learning is None else learning
    if not stages.default <= count <= len(lists[0]) or count < 0:
        raise ValueError(f"last_stages: got {count} for {type(backbone).__name__}, expected {stages.default} to "
                         f"{len(lists[0])}")
    first = len(lists[0]) - count
    at = f"{stages.layers[0]}.{first}" if count else "timm_model.conv_head"
    trunk = Trunk(backbone.eval().requires_grad_(False), at, text)
    rest = copy.deepcopy(backbone).requires_grad_(True)
    for path in stages.before:
        _put(rest, path, Given())
    for path in stages.layers:
        _put(rest, path, rest.get_submodule(path)[first:])
    return trunk, Tail(rest, text)


def _put(module, path, other):
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, other)

"""A client's network: a Hugging Face backbone, a projection to the shared space, a task head."""

import torch
import torch.nn.functional as F
from torch import nn

from ..network import Network
from .backbones import PIXELS, as_map, autocast, feature_map, feature_width, normalised
from .last import Tail, present

GRID = 2
DENSE_WIDTH = 32


class RepresentationModel(nn.Module):
    """w_n: backbone, pooling over a 2x2 grid of the image, linear projection.  images (B, 3, H, W) in [0, 1] -> (B, dim).

    The papers do not say how features are pooled or how deep the projection is.  Our choice: the mean over each quarter of
    the image, side by side, so that the left digit can be told from the right one, and one layer.  Not normalised.
    """

    def __init__(self, backbone, dim, scale=PIXELS):
        super().__init__()
        self.backbone, self.scale = backbone, scale
        self.projection = nn.Linear(GRID ** 2 * feature_width(backbone.config), dim)

    def features(self, images):
        return feature_map(self.backbone, images, self.scale)                 # (B, C, h, w)

    def pool(self, features):
        return F.adaptive_avg_pool2d(features, GRID).flatten(1)

    def project(self, features):
        return self.projection(features if features.ndim == 2 else self.pool(features))

    def forward(self, images):
        return self.project(self.features(images))


class TextRepresentationModel(nn.Module):
    """w_n of a text client: backbone, mean over the tokens, linear projection.  token ids (B, L), 0 = padding -> (B, dim)."""

    def __init__(self, backbone, dim, scale=PIXELS):
        super().__init__()
        self.backbone, self.scale = backbone, scale
        self.projection = nn.Linear(feature_width(backbone.config), dim)

    def features(self, ids):
        if isinstance(self.backbone, Tail):
            ids = ids[:, :longest(present(ids))]
            return self.backbone(ids), present(ids)
        if ids.is_floating_point():
            return ids
        ids = ids[:, :longest(ids)]
        mask = ids != 0
        with autocast(ids, self.scale.precision):
            tokens = self.backbone(input_ids=ids, attention_mask=mask.long()).last_hidden_state
        return tokens.to(self.projection.weight.dtype), mask                                           # (B, L, C), (B, L)

    def pool(self, features):
        tokens, mask = features
        return (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)

    def project(self, features):
        return self.projection(self.pool(features) if isinstance(features, tuple) else features)

    def forward(self, ids):
        return self.project(self.features(ids))


def longest(ids):
    """Number of tokens of the longest text of a batch (B, L), token ids or which are there: what is beyond is padding of all,
    which costs time alone."""
    used = (ids != 0).any(0).nonzero()
    return int(used.max()) + 1 if len(used) else ids.shape[1]


class ClientNetwork(Network):
    """Representation model and task head; the head reads the representation itself.  inputs -> (B, num_outputs).

    inputs: images (B, 3, H, W), or token ids (B, L) where `representation` is a `TextRepresentationModel`.
    As an encoder-decoder, inputs -> `decode(encode(inputs))`: the encoder is the backbone, the decoder what follows it.
    """

    def __init__(self, backbone, dim, num_outputs, text=False, scale=PIXELS):
        representation = (TextRepresentationModel if text else RepresentationModel)(backbone, dim, scale)
        super().__init__(representation, nn.Linear(dim, num_outputs))
        self.draws = any(value for name, value in backbone.config.to_dict().items() if "drop" in name)
        self.train()                                                          # from_pretrained leaves a backbone in eval mode

    def encode(self, inputs):
        return self.representation.features(inputs)

    def decode(self, features):
        return self.head(self.representation.project(features))

    def encoder(self):
        return self.representation.backbone

    def share_encoder(self, encoder):
        self.representation.backbone = encoder

    def decoder(self):
        return nn.ModuleDict({"projection": self.representation.projection, "head": self.head})

    def train(self, mode=True):
        """Batch statistics stay those of pretraining (our choice): private and public batches would mix them."""
        super().train(mode)
        keep_as_pretrained(self, self.representation.backbone)
        return self


class DenseClientNetwork(ClientNetwork):
    """Client with an answer for every pixel: images (B, 3, H, W) -> (B, num_outputs, H, W).

    The head is SegFormer's: every stage's features through a linear layer to one width, resized to the finest stage, joined,
    mixed, classified, and resized to the image.  It reads the backbone, whose last stage also gives the representation.
    fine: every position of the finest stage answers for each of its pixels, where else the answer is interpolated.
    Expects a SegFormer backbone; ValueError for another.
    """

    def __init__(self, backbone, dim, num_outputs, fine=False, scale=PIXELS):
        super().__init__(backbone, dim, num_outputs, scale=scale)
        if backbone.config.model_type != "segformer":
            raise ValueError(f"backbone: got {type(backbone).__name__}, expected a SegformerModel for a dense task")
        self.pixels = backbone.config.strides[0] if fine else 1
        self.head = dense_head(backbone.config.hidden_sizes, num_outputs * self.pixels ** 2)

    def encode(self, images):
        scale = self.representation.scale
        pixels = normalised(images, scale)
        with autocast(pixels, scale.precision):
            outputs = self.representation.backbone(pixel_values=pixels, output_hidden_states=True)
        return images.shape[-2:], [stage.to(pixels.dtype) for stage in outputs.hidden_states]

    def decode(self, features):
        size, hidden_states = features
        answers = F.pixel_shuffle(dense_answers(self.head, hidden_states), self.pixels)
        return F.interpolate(answers, size=size, mode="bilinear", align_corners=False)

    def decoder(self):
        return nn.ModuleDict({"head": self.head})


class DenseTailNetwork(ClientNetwork):
    """As `DenseClientNetwork`, of a `last.Tail`: the stages that the head reads are what was kept of the trunk, and the last
    features.  kept outputs of the trunk -> (B, num_outputs, side, side)."""

    def __init__(self, tail, dim, num_outputs, side, scale=PIXELS):
        super().__init__(tail, dim, num_outputs, scale=scale)
        self.side = side
        self.head = dense_head((tail.width, feature_width(tail.config)), num_outputs)

    def encode(self, kept):
        return [as_map(kept.float()), self.representation.features(kept)]

    def decode(self, features):
        return F.interpolate(dense_answers(self.head, features), size=self.side, mode="bilinear", align_corners=False)

    def decoder(self):
        return nn.ModuleDict({"head": self.head})


def keep_as_pretrained(network, *backbones):
    """Put batch normalisation in eval mode, and wholly frozen backbones: no dropout, as when their features are kept."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    for backbone in backbones:
        if not any(parameter.requires_grad for parameter in backbone.parameters()):
            backbone.eval()


def dense_head(widths, num_outputs):
    """Modules of a head over stages of these widths, the finest first: each to DENSE_WIDTH, all of them mixed."""
    return nn.ModuleDict({
        "stages": nn.ModuleList(nn.Conv2d(width, DENSE_WIDTH, 1) for width in widths),
        "mix": nn.Sequential(nn.Conv2d(DENSE_WIDTH * len(widths), DENSE_WIDTH, 1), nn.ReLU(),
                             nn.Conv2d(DENSE_WIDTH, num_outputs, 1))})


def dense_answers(head, stages):
    """(B, num_outputs, h, w) of a `dense_head`, h x w that of the first stage, to which the others are resized."""
    stages = [layer(stage) for layer, stage in zip(head["stages"], stages, strict=True)]
    finest = [F.interpolate(stage, size=stages[0].shape[-2:], mode="bilinear", align_corners=False) for stage in stages]
    return head["mix"](torch.cat(finest, 1))


def num_parameters(module):
    """Number of trainable scalars."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)

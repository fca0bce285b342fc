"""A client's network that reads images with texts: one representation of each, in one space."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from ..network import Network
from .client_network import keep_as_pretrained


def packed(images, texts):
    """Pairs as one tensor (n, numbers of an image + numbers of a text): images (n, 3, H, W) and token ids (n, L), which a
    float32 holds exactly, values 0 to 255 as shares of 255; or what is kept of both by trunks, in half precision.
    """
    if texts.is_floating_point():
        return torch.cat([images.flatten(1), texts.flatten(1)], 1)
    images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    return torch.cat([images.flatten(1), texts.float()], 1)


class PairRepresentation(nn.Module):
    """Two representation models of one width d; `both` reads pairs as `packed` has them.

    image, text: `client_network.RepresentationModel` and `TextRepresentationModel`.  shape, text_shape: of one image and one
    text, (L,) for token ids.  As one module, pairs -> (B, d): the sum of both representations, to compare clients by.
    """

    def __init__(self, image, text, shape, text_shape):
        super().__init__()
        self.image, self.text, self.shape, self.text_shape = image, text, tuple(shape), tuple(text_shape)

    def both(self, pairs):
        """(images' (B, d), texts' (B, d)) of packed pairs, at unit length."""
        images, texts = pairs.split([math.prod(self.shape), math.prod(self.text_shape)], 1)
        texts = texts.long() if len(self.text_shape) == 1 else texts.unflatten(1, self.text_shape)
        return tuple(F.normalize(found.float(), dim=1) for found in (
            self.image(images.unflatten(1, self.shape)), self.text(texts)))

    def forward(self, pairs):
        return sum(self.both(pairs))


class PairNetwork(Network):
    """Pairs -> (B, 2 d): the images' representations, then the texts', as `tasks.retrieval` takes them; nothing follows."""

    def __init__(self, representation):
        super().__init__(representation, nn.Identity())
        configurations = [part.backbone.config.to_dict() for part in (representation.image, representation.text)]
        self.draws = any(value for config in configurations for name, value in config.items() if "drop" in name)
        self.train()

    def encode(self, pairs):
        return torch.cat(self.representation.both(pairs), 1)

    def train(self, mode=True):
        super().train(mode)
        keep_as_pretrained(self, *(part.backbone for part in (self.representation.image, self.representation.text)
                                   if hasattr(part, "backbone")))
        return self

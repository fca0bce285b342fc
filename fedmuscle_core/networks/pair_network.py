"""A client's network that reads images with texts: one representation of each, in one space."""

import torch
import torch.nn.functional as F
from torch import nn

from ..network import Network
from .client_network import keep_batch_statistics


def packed(images, ids):
    """Pairs as one tensor (n, .. + L): the numbers of images or of what is kept of them (n, ..), flat, then token ids (n, L).

    A float32 holds the ids exactly, and the values 0 to 255 of a photo as shares of 255.
    """
    images = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    return torch.cat([images.flatten(1), ids.flatten(1).float()], 1)


class PairRepresentation(nn.Module):
    """Two representation models of one width d; `both` reads pairs as `packed` has them.

    image, text: `client_network.RepresentationModel` and `TextRepresentationModel`.  shape: of one image; length: of one text.
    As one module, pairs -> (B, d): the sum of both representations at unit length, to compare clients by.
    """

    def __init__(self, image, text, shape, length):
        super().__init__()
        self.image, self.text, self.shape, self.length = image, text, tuple(shape), length

    def both(self, pairs):
        """(images' (B, d), texts' (B, d)) of packed pairs, at unit length."""
        images, ids = pairs[:, :-self.length], pairs[:, -self.length:].long()
        return tuple(F.normalize(found, dim=1) for found in (self.image(images.unflatten(1, self.shape)), self.text(ids)))

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
        keep_batch_statistics(self)
        return self

"""Clients whose backbones learn in their last stages alone: what these read is computed once for all runs and kept on disk."""

import torch

from .. import augment as augmentation
from ..data import Samples
from ..networks.backbones import as_pixels, pixels_of, weights_digest
from ..networks.kept import KEY, kept_rows, keys_of
from ..paths import FEATURES
from ..seeds import generator

AUGMENTATION = (augmentation.ROTATION, augmentation.ZOOM, augmentation.SHIFT, augmentation.CONTRAST, augmentation.BRIGHTNESS,
                augmentation.DROPPED)


VERSION = 1                                           # of how samples become pixels and views: stores of another are refused


class KeptTrunk:
    """A trunk (see `networks.last`) of the backbone called `name`, whose outputs are kept in FEATURES.

    The store belongs to the weights, to where the backbone is cut, and to the size of its images or texts: others have other
    stores.
    """

    def __init__(self, trunk, name, compute, device="cpu"):
        self.trunk, self.device, self.scale = trunk, device, pixels_of(name, compute.image_size)
        self.name, self.side, self.weights = name, None if trunk.text else compute.image_size, weights_digest(trunk.backbone)

    def about(self, shape):
        """What the rows of samples of a shape are of."""
        return {**self.names(shape), "pixels": None if self.trunk.text else list(self.scale), "version": VERSION}

    def names(self, shape):
        """What a store is called after."""
        return {"backbone": self.name, "weights": self.weights, "until": self.trunk.at, "side": self.side or shape[-1]}

    def store(self, shape):
        """Name of the store for samples of a shape."""
        return "-".join(str(value) for value in self.names(shape).values()).replace("/", "_")

    def count(self, shape):
        """How many outputs for samples of a shape are kept."""
        keys = FEATURES / f"{self.store(shape)}.keys"
        return keys.stat().st_size // KEY if keys.is_file() else 0

    def rows(self, samples, view=None):
        """`networks.kept.KeptRows` of images (n, 3, H, W) or token ids (n, L), or of their augmented view of this number."""
        keys = keys_of(samples, *(() if view is None else ("view", view, AUGMENTATION)))

        def compute(numbers):
            batch = samples[numbers]
            batch = batch.float() / 255 if batch.dtype == torch.uint8 else batch
            if view is not None:
                streams = [generator(0, "kept view", view, int.from_bytes(keys[number][:4])) for number in numbers]
                batch = torch.cat([augmentation.augment(*both) for both in zip(batch.split(1), streams, strict=True)])
            pixels = batch if self.trunk.text else as_pixels(self.trunk.backbone, batch, self.scale)
            self.trunk.backbone.to(self.device)
            return self.trunk(pixels.to(self.device)).float().cpu()

        shape = samples.shape[1:]
        return kept_rows(FEATURES, self.store(shape), self.about(shape), keys, compute)

    def private(self, samples):
        """The outputs for a client's own samples, in memory."""
        return self.rows(samples).all()

    def public(self, samples):
        """`Samples` of the outputs for public samples, read as they are needed."""
        rows = self.rows(samples)
        return Samples(len(rows), dataset=rows)

    def views(self, samples, count):
        """The `views` of a `Client`: every row as one of `count` augmented views, of every other one where `half` is 0 or 1."""
        kept = [self.rows(samples, view) for view in range(count)]

        def draw(rows, rng, half=None):
            among = kept if half is None else kept[half::2]
            chosen = torch.randint(len(among), (len(rows),), generator=rng).tolist()
            return torch.stack([among[view][row] for view, row in zip(chosen, rows.tolist(), strict=True)])
        return draw

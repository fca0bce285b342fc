"""Clients whose backbones learn in their last stages alone: what these read is computed once for all runs and kept on disk."""

import time
from collections import defaultdict

import torch

from .. import augment as augmentation
from ..client import HELD_OUT
from ..data import Samples
from ..networks.backbones import as_pixels, load_backbone, pixels_of, weights_digest
from ..networks.kept import KEY, kept_rows, keys_of
from ..networks.last import split
from ..networks.text import TEXT_LENGTH
from ..paths import FEATURES
from ..seeds import generator
from ..world.real.sources import SIDE
from .settings import Compute

AUGMENTATION = (augmentation.ROTATION, augmentation.ZOOM, augmentation.SHIFT, augmentation.CONTRAST, augmentation.BRIGHTNESS,
                augmentation.DROPPED)


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
        return {"backbone": self.name, "weights": self.weights, "until": self.trunk.at, "side": self.side or shape[-1]}

    def store(self, shape):
        """Name of the store for samples of a shape."""
        return "-".join(str(value) for value in self.about(shape).values()).replace("/", "_")

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


def outputs_read(settings_list):
    """{(backbone, last_stages, image_size): number of samples, each view for itself} of whose trunk outputs the runs read.

    With real data alone: of scenes nobody keeps any."""
    from .build import world_for

    found = defaultdict(set)
    for settings in settings_list:
        compute = settings.compute
        if compute.adaptation == "last":
            world = world_for(settings)
            for client, spec in enumerate(settings.setup.clients, 1):
                for source, rows, public in world.samples_read(client, HELD_OUT):
                    views = range(compute.views) if public and settings.method.changes_public else ()
                    for name in spec.backbones:
                        found[name, compute.last_stages, compute.image_size] |= {
                            (source, row, view) for row in rows for view in (None, *views)}
    return {trunk: len(samples) for trunk, samples in found.items()}


def to_be_kept(settings_list):
    """A line for each trunk whose outputs are not all kept yet: how many samples, how large, how long; "" where there is none.

    One batch is computed to tell.  What is kept of other samples counts as kept, so that there may be more to do."""
    from .runs import one_thread

    lines = []
    for (name, last_stages, side), count in outputs_read(settings_list).items():
        trunk, _ = split(load_backbone(name), last_stages)
        kept = KeptTrunk(trunk, name, Compute(adaptation="last", last_stages=last_stages, image_size=side))
        batch = torch.ones(8, TEXT_LENGTH, dtype=torch.long) if trunk.text else torch.zeros(8, 3, side or SIDE, side or SIDE)
        file = FEATURES / f"{kept.store(batch.shape[1:])}.keys"
        missing = count - (file.stat().st_size // KEY if file.is_file() else 0)
        if missing > 0:
            with one_thread():
                began = time.perf_counter()
                size = trunk(batch if trunk.text else as_pixels(trunk.backbone, batch, kept.scale))[0].numel() * 2
                seconds = (time.perf_counter() - began) / 8
            lines.append(f"trunk outputs of {name}: {missing:,} of {count:,} samples to be computed and kept, "
                         f"{missing * size / 2 ** 20:,.0f} MiB, about {missing * seconds / 60:.1f} min of one core")
    return "\n".join(lines)

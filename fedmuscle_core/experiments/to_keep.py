"""What runs read of frozen trunks whose outputs are kept, and what computing it takes, before anything is computed."""

import dataclasses
import time
from collections import defaultdict

import torch

from ..client import HELD_OUT, Training
from ..methods import Local
from ..networks.backbones import as_pixels, load_backbone
from ..networks.last import split
from ..networks.text import TEXT_LENGTH
from ..world.real.sources import SIDE
from .build import world_for
from .runs import one_thread
from .settings import Compute
from .trunks import KeptTrunk


def outputs_read(settings_list):
    """{(backbone, last_stages, image_size): number of samples, each view for itself} of whose trunk outputs the runs read.

    With real data alone: of scenes nobody keeps any."""
    found, seen = defaultdict(set), set()
    for settings in settings_list:
        compute, method = settings.compute, settings.method
        alike = (method.uses_public, method.changes_public, dataclasses.replace(settings, method=Local(), training=Training()))
        if alike in seen:
            continue
        seen.add(alike)
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
    lines = []
    for (name, last_stages, side), count in outputs_read(settings_list).items():
        trunk, _ = split(load_backbone(name), last_stages)
        kept = KeptTrunk(trunk, name, Compute(adaptation="last", last_stages=last_stages, image_size=side))
        batch = torch.ones(8, TEXT_LENGTH, dtype=torch.long) if trunk.text else torch.zeros(8, 3, side or SIDE, side or SIDE)
        missing = count - kept.count(batch.shape[1:])
        if missing > 0:
            with one_thread():
                began = time.perf_counter()
                size = trunk(batch if trunk.text else as_pixels(trunk.backbone, batch, kept.scale))[0].numel() * 2
                seconds = (time.perf_counter() - began) / 8
            lines.append(f"trunk outputs of {name}: {missing:,} of {count:,} samples to be computed and kept, "
                         f"{missing * size / 2 ** 20:,.0f} MiB, about {missing * seconds / 60:.1f} min of one core")
    return "\n".join(lines)

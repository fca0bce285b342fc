"""Public data as image-caption pairs: a client reads the image or the caption of the same sample."""

from functools import lru_cache
from typing import NamedTuple

import torch

from ..seeds import generator
from .captions import captions
from .scenes import digit_scenes, held_out_pairs, public_pairs, public_scenes

CAPTIONED = "pairs"    # the one public domain with captions


class Pairs(NamedTuple):
    """`images` (n, 3, 32, 32) in [0, 1]; `captions`: n texts in the same order, or None where the domain has none."""

    images: torch.Tensor
    captions: list | None


@lru_cache(maxsize=16)
def public_data(domain, n, seed):
    """`n` public samples of a domain, with captions where it is "pairs"; no labels exist."""
    if domain != CAPTIONED:
        return Pairs(public_scenes(domain, n, seed), None)
    scenes = public_pairs(n, seed)
    return Pairs(scenes.images, captions(scenes, generator(seed, "public captions")))


@lru_cache(maxsize=4)
def held_out_data(n):
    """`n` pairs of test handwriting with captions of their own: nobody trains on them."""
    scenes = held_out_pairs(n, 0)
    return Pairs(scenes.images, captions(scenes, generator(0, "held-out captions")))


@lru_cache(maxsize=64)
def scene_captions(split, layout, n, seed, *names):
    """Captions of `scenes.digit_scenes(split, layout, n, seed, *names)`, from a stream of their own."""
    return captions(digit_scenes(split, layout, n, seed, *names), generator(seed, "captions", split, layout, *names))

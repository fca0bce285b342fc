"""Scenes: 32x32 colour images composed of single characters, each carrying the labels of every task."""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..seeds import generator
from .glyphs import digit_pool, letter_pool

SIZE = 32
SLOTS = 4
TASK_LAYOUTS = ("single", "number", "multi")           # one glyph; two side by side; one to four on a 2x2 grid
LAYOUTS = (*TASK_LAYOUTS, "full")                      # all four on that grid, so that layout tells no scenes apart
DIGIT_DOMAINS = {"scenes": "multi", "full": "full", "number": "number", "single": "single"}      # and their layouts
CAPTIONED_DOMAIN = "pairs"               # single digits with captions, see `public_pairs`
SCENE_DOMAINS = (*DIGIT_DOMAINS, "letters", "textures", "noise", CAPTIONED_DOMAIN)        # most to least to see in one first


class Scenes(NamedTuple):
    """`images` (n, 3, 32, 32) in [0, 1]; `classes` (n, 4) glyph class per slot in reading order, -1 where empty;
    `masks` (n, 32, 32) per-pixel class, 0 = background and c + 1 = glyph class c.  Per slot, of no meaning where empty:
    `centre` (n, 4, 2) as (x, y) in [-1, 1], y downwards; `side` (n, 4) as a fraction of the scene's; `ink` (n, 4, 3) RGB."""

    images: torch.Tensor
    classes: torch.Tensor
    masks: torch.Tensor
    centre: torch.Tensor
    side: torch.Tensor
    ink: torch.Tensor


@lru_cache(maxsize=64)
def digit_scenes(split, layout, n, seed, *names):
    """`n` scenes of handwritten digits of one split (see `digit_pool`), drawn from the stream (seed, *names); cached."""
    return compose(digit_pool(split), layout, n, generator(seed, "scenes", split, layout, *names))


@lru_cache(maxsize=16)
def public_scenes(domain, n, seed):
    """Images (n, 3, 32, 32) of a public domain; digits come from the public split only.  Labels do not exist."""
    if domain == CAPTIONED_DOMAIN:
        return public_pairs(n, seed).images
    rng = generator(seed, "public", domain)
    if domain in DIGIT_DOMAINS:
        return compose(digit_pool("public"), DIGIT_DOMAINS[domain], n, rng).images
    if domain == "letters":
        return compose(letter_pool(), "multi", n, rng).images
    if domain == "textures":
        return textures(n, rng)
    if domain == "noise":
        return torch.rand(n, 3, SIZE, SIZE, generator=rng)
    raise ValueError(f"domain: got {domain!r}, expected one of {SCENE_DOMAINS}")


@lru_cache(maxsize=16)
def public_pairs(n, seed):
    """The `n` scenes of the public domain "pairs", to be captioned: single digits (our choice)."""
    return compose(digit_pool("public"), "single", n, generator(seed, "public", "pairs"))


@lru_cache(maxsize=16)
def held_out_pairs(n, seed):
    """As `public_pairs`, in test handwriting and from a stream of its own: to evaluate on."""
    return compose(digit_pool("test"), "single", n, generator(seed, "held-out pairs"))


def undrawn_scenes(layout, n, rng):
    """`n` scenes of uniformly random digits with all that a caption tells but no pixels: `images`, `masks` are (n, 0)."""
    centre, side, present = _place(layout, n, rng)
    classes = torch.where(present, torch.randint(10, (n, SLOTS), generator=rng), -1)
    ink = _bright_ink(_base_colour(n, rng), n, rng)
    return Scenes(torch.empty(n, 0), classes, torch.empty(n, 0, dtype=torch.long), centre, side, ink)


def compose(pool, layout, n, rng):
    """Draw `n` scenes: glyphs of `pool` with random size, position, tilt and colour on a soft textured background.

    pool: `GlyphPool`; layout: one of `LAYOUTS`; rng: `torch.Generator`.  Returns `Scenes`.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout: got {layout!r}, expected one of {LAYOUTS}")
    if n < 1:
        raise ValueError(f"n: got {n}, expected at least 1 scene")
    chunks = [_compose_chunk(pool, layout, min(1024, n - start), rng) for start in range(0, n, 1024)]
    return Scenes(*map(torch.cat, zip(*chunks, strict=True)))


def _compose_chunk(pool, layout, n, rng):
    chosen = torch.randint(len(pool.labels), (n, SLOTS), generator=rng)
    centre, side, present = _place(layout, n, rng)
    alpha = _stamp(pool.images[chosen.flatten()], centre.flatten(0, 1), side.flatten(), rng).reshape(n, SLOTS, SIZE, SIZE)
    alpha = alpha * present[:, :, None, None]

    images, base = _background(n, rng)
    ink = _bright_ink(base, n, rng)                                           # (n, SLOTS, 3)
    masks = torch.zeros(n, SIZE, SIZE, dtype=torch.long)
    classes = torch.where(present, pool.labels[chosen], -1)
    for slot in range(SLOTS):
        a = alpha[:, slot, None]                                              # (n, 1, 32, 32)
        images = images * (1 - a) + ink[:, slot, :, None, None] * a
        masks = torch.where(alpha[:, slot] > 0.4, classes[:, slot, None, None] + 1, masks)
    images = images + 0.03 * torch.randn(images.shape, generator=rng)
    return Scenes(images.clamp(0, 1), classes, masks, centre, side, ink)


def _place(layout, n, rng):
    """Centres (n, 4, 2) as (x, y) in [-1, 1], sides (n, 4) as a fraction of the scene, presence (n, 4)."""
    u = torch.rand(n, SLOTS, 3, generator=rng)
    present = torch.zeros(n, SLOTS, dtype=torch.bool)
    if layout == "single":
        present[:, 0] = True
        side = 0.40 + 0.32 * u[..., 2]
        centre = (2 * u[..., :2] - 1) * (1 - side)[..., None] * 0.8
        return centre, side, present
    side = 0.36 + 0.10 * u[..., 2]
    jitter = (2 * u[..., :2] - 1) * 0.08
    if layout == "number":
        present[:, :2] = True
        grid = torch.tensor([[-0.48, 0.0], [0.48, 0.0], [0.0, 0.0], [0.0, 0.0]])
        jitter[..., 1] *= 4
    else:
        count = torch.randint(1, SLOTS + 1, (n, 1), generator=rng) if layout == "multi" else SLOTS
        rank = torch.rand(n, SLOTS, generator=rng).argsort(1).argsort(1)
        present = rank < count
        grid = torch.tensor([[-0.48, -0.48], [0.48, -0.48], [-0.48, 0.48], [0.48, 0.48]])
    return grid + jitter, side, present


def _stamp(glyphs, centre, side, rng):
    """Glyphs (k, h, w) drawn at `centre` (k, 2) with `side` (k,) and a random tilt and slant: opacity (k, 32, 32)."""
    k = len(glyphs)
    tilt, slant = (torch.rand(2, k, generator=rng) - 0.5) * 0.5               # radians; horizontal shear
    cos, sin = tilt.cos() / side, tilt.sin() / side
    linear = torch.stack([torch.stack([cos + slant * sin, sin + slant * cos], 1),
                          torch.stack([-sin, cos], 1)], 1)                    # scene -> glyph coordinates
    shift = -(linear @ centre[:, :, None])
    grid = F.affine_grid(torch.cat([linear, shift], 2), (k, 1, SIZE, SIZE), align_corners=False)
    return F.grid_sample(glyphs[:, None], grid, align_corners=False)[:, 0].clamp(0, 1)


def _background(n, rng):
    """Soft dark backgrounds (n, 3, 32, 32) and their base colours (n, 3).

    Muted on purpose: with free colours the background alone tells the scenes of a batch apart, and a contrastive loss
    aligns models on that instead of on what the scene shows.
    """
    base = _base_colour(n, rng)
    soft = F.interpolate(torch.randn(n, 3, 4, 4, generator=rng), size=SIZE, mode="bicubic", align_corners=False)
    return base[:, :, None, None] + 0.06 * soft, base


def _base_colour(n, rng):
    brightness = 0.2 + 0.2 * torch.rand(n, 1, generator=rng)
    return brightness + 0.15 * (torch.rand(n, 3, generator=rng) - 0.5)


def _bright_ink(base, n, rng):
    """Ink colours (n, 4, 3), brighter than the background by 0.35 to 0.6."""
    ink = torch.rand(n, SLOTS, 3, generator=rng)
    gap = 0.35 + 0.25 * torch.rand(n, SLOTS, 1, generator=rng)
    return (ink - ink.mean(2, keepdim=True)) * 0.4 + base.mean(1)[:, None, None] + gap


def textures(n, rng):
    """Textures (n, 3, 32, 32) without any glyph: two coloured gratings on a soft background."""
    images, _ = _background(n, rng)
    axis = torch.linspace(-1, 1, SIZE)
    angle, pitch, phase = torch.rand(3, n, 2, 1, 1, generator=rng)
    along = (angle * torch.pi).cos() * axis[:, None] + (angle * torch.pi).sin() * axis[None, :]
    waves = torch.sin((4 + 16 * pitch) * along + 2 * torch.pi * phase)        # (n, 2, 32, 32)
    colour = 0.3 * torch.randn(n, 2, 3, 1, 1, generator=rng)
    images = images + (waves[:, :, None] * colour).sum(1) + 0.03 * torch.randn(images.shape, generator=rng)
    return images.clamp(0, 1)

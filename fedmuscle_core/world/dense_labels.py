"""Dense labels beside the class masks: parts, saliency, edges of scenes; objects and their outlines of photos.  What stands for
what is our choice."""

import torch
import torch.nn.functional as F

from ..tasks import VOID
from .scenes import SIZE


def parts(scenes):
    """(n, 32, 32) part of a glyph at every pixel, 0 = background: 1 upper left, 2 upper right, 3 lower left, 4 lower right
    of the glyph's centre.  Stands for the parts of a person or an animal."""
    slot, (x, y) = nearest_slot(scenes), _grid()
    centre = scenes.centre.gather(1, slot.flatten(1)[..., None].expand(-1, -1, 2)).view(*slot.shape, 2)
    return torch.where(scenes.masks > 0, 1 + (x > centre[..., 0]).long() + 2 * (y > centre[..., 1]).long(), 0)


def saliency(scenes):
    """(n, 32, 32) 1 where the glyph is that is brightest against the background, 0 elsewhere."""
    brightness = scenes.ink.mean(2).masked_fill(scenes.classes < 0, -1)        # (n, SLOTS); the background is one for all
    salient = nearest_slot(scenes) == brightness.argmax(1)[:, None, None]
    return (salient & (scenes.masks > 0)).long()


def edges(scenes):
    """(n, 32, 32) 1 on the outlines of glyphs, one pixel wide: background pixels beside, above or below a glyph's pixel."""
    glyph = (scenes.masks > 0).float()[:, None]
    cross = torch.tensor([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])[None, None]
    touching = F.conv2d(glyph, cross, padding=1) > 0
    return (touching & (glyph == 0))[:, 0].long()


def objects(masks):
    """(n, H, W) uint8 1 where a class mask of photos has an object of any class, 0 on the background, VOID where it has none:
    stands for saliency, as the labelled objects are what photos were taken of."""
    return torch.where(masks == VOID, VOID, (masks > 0).to(torch.uint8))


def outlines(masks):
    """(n, H, W) uint8 1 on the outlines of objects, 0 elsewhere: VOC's annotators left the pixels around objects without a
    class."""
    return (masks == VOID).to(torch.uint8)


def nearest_slot(scenes):
    """(n, 32, 32) the slot of the present glyph whose centre is nearest to a pixel."""
    x, y = _grid()
    centre = scenes.centre[:, :, None, None]                                  # (n, SLOTS, 1, 1, 2)
    squared = (x - centre[..., 0]) ** 2 + (y - centre[..., 1]) ** 2
    return squared.masked_fill((scenes.classes < 0)[:, :, None, None], torch.inf).argmin(1)


def _grid():
    """x (1, 32) and y (32, 1) of the pixels in [-1, 1], y downwards."""
    axis = (2 * torch.arange(SIZE) + 1) / SIZE - 1
    return axis[None, :], axis[:, None]

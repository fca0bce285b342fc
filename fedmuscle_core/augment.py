"""Random augmentations of a batch of public data, from a generator of their own."""

import torch
import torch.nn.functional as F

ROTATION, ZOOM, SHIFT, CONTRAST, BRIGHTNESS, DROPPED = 0.25, 0.2, 0.15, 0.3, 0.1, 0.15


def augment(batch, rng):
    """Another view of `batch`: images (B, C, H, W) in [0, 1], or token ids (B, L) with 0 = padding; ValueError for others.

    Images: each its own rotation (up to 0.25 rad), zoom (0.8 to 1.2), shift (up to 0.15 of the half side; the border is
    repeated), contrast (0.7 to 1.3) and brightness (up to 0.1).  No flips: a mirrored digit is another sign.
    Texts: each word but the first token is dropped with probability 0.15.
    torchvision's transforms draw one set of parameters for a whole batch and take no generator, hence this function.
    """
    images = batch.is_floating_point()
    if batch.ndim != (4 if images else 2):
        raise ValueError(f"view: got a batch of shape {tuple(batch.shape)}, {batch.dtype}, expected images (B, C, H, W) or "
                         "token ids (B, L): other data need a `view` of their own")
    return _images(batch, rng) if images else _tokens(batch, rng)


def _images(images, rng):
    n = len(images)
    u = 2 * torch.rand(6, n, generator=rng) - 1                               # six numbers in [-1, 1] an image
    angle, zoom = ROTATION * u[0], 1 + ZOOM * u[1]
    matrix = torch.stack([torch.stack([angle.cos() / zoom, -angle.sin() / zoom, SHIFT * u[2]], 1),
                          torch.stack([angle.sin() / zoom, angle.cos() / zoom, SHIFT * u[3]], 1)], 1)
    grid = F.affine_grid(matrix, images.shape, align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    contrast, brightness = (1 + CONTRAST * u[4])[:, None, None, None], (BRIGHTNESS * u[5])[:, None, None, None]
    centre = moved.mean((1, 2, 3), keepdim=True)
    return ((moved - centre) * contrast + centre + brightness).clamp(0, 1)


def _tokens(ids, rng):
    kept = torch.rand(ids.shape, generator=rng) >= DROPPED
    kept[:, 0] = True
    return torch.where(kept, ids, 0)

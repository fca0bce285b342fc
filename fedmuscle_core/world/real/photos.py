"""Photos and masks of a `layouts` table as tensors: decoded, resized and cropped together, every broken file named."""

from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from ...tasks import VOID


def load_photos(table, size, progress=False):
    """(images (n, 3, size, size) uint8, masks (n, size, size) uint8 or None where no row has one).

    The shorter side becomes `size`, then the centre is cropped; masks move with their photos, by nearest neighbour.  Raises
    ValueError naming the file that is missing, truncated, no image, or a mask of another size than its photo.
    """
    from torchvision import tv_tensors  # takes seconds, as all of torchvision
    from torchvision.transforms import InterpolationMode, v2

    fit = v2.Compose([v2.Resize(size, InterpolationMode.BILINEAR, antialias=True), v2.CenterCrop(size)])
    images, masks = [], []
    for row in tqdm(table.itertuples(), "photos", total=len(table), disable=not progress):
        photo = tv_tensors.Image(v2.functional.pil_to_tensor(_decoded(row.image, "RGB")))
        if row.mask is None:
            images.append(fit(photo))
            continue
        photo, mask = fit(photo, tv_tensors.Mask(_mask(row, photo.shape[1:])))
        images.append(photo)
        masks.append(mask)
    if masks and len(masks) < len(images):
        raise ValueError(f"table: got masks for {len(masks)} of {len(images)} photos, expected one for each or none")
    return torch.stack(images), torch.stack(masks) if masks else None


def check_samples(table, num_classes=None, progress=False):
    """Decode every file of the table, compare labels and masks with `num_classes` and masks with their photos; the number of
    samples.

    num_classes: of labels; masks may have it, the background and VOID.  Raises ValueError naming the first file at fault.
    """
    for row in tqdm(table.itertuples(), "checking", total=len(table), disable=not progress):
        where = row.image or f"{table.attrs.get('folder', 'table')}: sample {row.Index}"
        if row.image is not None:
            size = _decoded(row.image, "RGB").size[::-1]
        elif row.mask is not None:
            raise ValueError(f"{row.mask}: got a mask without an image, expected one for both")
        elif not row.texts:
            raise ValueError(f"{where}: got neither an image nor a text, expected at least one")
        classes = row.label if isinstance(row.label, tuple) else ()
        if num_classes is not None and classes and (len(classes) != num_classes or not set(classes) <= {0, 1}):
            raise ValueError(f"{where}: got label {row.label}, expected {num_classes} numbers, 0 or 1")
        if num_classes is not None and row.label is not None and not classes and not 0 <= row.label < num_classes:
            raise ValueError(f"{where}: got label {row.label}, expected 0 to {num_classes - 1}")
        if row.mask is not None:
            found = set(torch.unique(_mask(row, size)).tolist()) - {VOID}
            if num_classes is not None and found and max(found) > num_classes:
                raise ValueError(f"{row.mask}: got class {max(found)}, expected 0 to {num_classes} or {VOID} (void)")
    return len(table)


@lru_cache(maxsize=100_000)
def largest_class(path):
    """The class of most pixels of the mask in a file, background (0) and void aside; 0 where there is nothing else.

    Raises ValueError naming the file that is missing, truncated or no image.
    """
    counts = torch.bincount(_classes(path).flatten(), minlength=VOID + 1)
    counts[[0, VOID]] = 0
    return int(counts.argmax())


def _mask(row, size):
    """The classes (H, W) of a row's mask; ValueError where it is not as large, (H, W), as its photo."""
    mask = _classes(row.mask)
    if mask.shape != size:
        raise ValueError(f"{row.mask}: got a mask of {tuple(mask.shape)} pixels, expected {tuple(size)} as {row.image}")
    return mask


def _classes(path):
    """(H, W) uint8, the class at each pixel of a mask's file."""
    image = _decoded(path, None)
    if image.mode not in ("L", "P"):
        raise ValueError(f"{path}: got an image of mode {image.mode}, expected one channel of 8 bits, a class at each pixel")
    return torch.from_numpy(np.array(image))


def _decoded(path, mode):
    """The image in `path`, all of it read; `mode`: as PIL converts it, None: as it is (a mask's classes are its palette's)."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.convert(mode) if mode else image.copy()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except Exception as error:   # damaged files make decoders fail in many ways
        raise ValueError(f"{path}: not a whole image ({error})") from error

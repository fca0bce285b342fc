"""Photos and masks of a `layouts` table as tensors: decoded, resized and cropped together, every broken file named."""

from functools import lru_cache

import torch
from PIL import Image, UnidentifiedImageError
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from tqdm.auto import tqdm

from ...tasks import VOID


def load_photos(table, size, progress=False):
    """(images (n, 3, size, size) uint8, masks (n, size, size) uint8 or None where no row has one).

    The shorter side becomes `size`, then the centre is cropped; masks move with their photos, by nearest neighbour.  Raises
    ValueError naming the file that is missing, truncated, no image, or a mask of another size than its photo.
    """
    fit = v2.Compose([v2.Resize(size, InterpolationMode.BILINEAR, antialias=True), v2.CenterCrop(size)])
    images, masks = [], []
    for row in tqdm(table.itertuples(), "photos", total=len(table), disable=not progress):
        photo = tv_tensors.Image(v2.functional.pil_to_tensor(_decoded(row.image, "RGB")))
        if row.mask is None:
            images.append(fit(photo))
            continue
        mask = tv_tensors.Mask(v2.functional.pil_to_tensor(_decoded(row.mask, None))[0])
        if mask.shape != photo.shape[1:]:
            raise ValueError(f"{row.mask}: got a mask of {tuple(mask.shape)} pixels, expected {tuple(photo.shape[1:])} as "
                             f"{row.image}")
        photo, mask = fit(photo, mask)
        images.append(photo)
        masks.append(mask)
    if masks and len(masks) < len(images):
        raise ValueError(f"table: got masks for {len(masks)} of {len(images)} photos, expected one for each or none")
    return torch.stack(images), torch.stack(masks) if masks else None


def check_samples(table, num_classes=None, progress=False):
    """Decode every file of the table and compare labels and masks with `num_classes`; the number of samples.

    num_classes: of labels; masks may have it, the background and VOID.  Raises ValueError naming the first file at fault.
    """
    for row in tqdm(table.itertuples(), "checking", total=len(table), disable=not progress):
        where = row.image or f"sample {row.Index}"
        if row.image is not None:
            _decoded(row.image, "RGB")
        elif not row.texts:
            raise ValueError(f"{where}: got neither an image nor a text, expected at least one")
        classes = row.label if isinstance(row.label, tuple) else ()
        if num_classes is not None and classes and (len(classes) != num_classes or not set(classes) <= {0, 1}):
            raise ValueError(f"{where}: got label {row.label}, expected {num_classes} numbers, 0 or 1")
        if num_classes is not None and row.label is not None and not classes and not 0 <= row.label < num_classes:
            raise ValueError(f"{where}: got label {row.label}, expected 0 to {num_classes - 1}")
        if row.mask is not None:
            found = set(torch.unique(v2.functional.pil_to_tensor(_decoded(row.mask, None))).tolist()) - {VOID}
            if num_classes is not None and found and max(found) > num_classes:
                raise ValueError(f"{row.mask}: got class {max(found)}, expected 0 to {num_classes} or {VOID} (void)")
    return len(table)


@lru_cache(maxsize=100_000)
def largest_class(path):
    """The class of most pixels of the mask in a file, background (0) and void aside; 0 where there is nothing else.

    Raises ValueError naming the file that is missing, truncated or no image.
    """
    pixels = v2.functional.pil_to_tensor(_decoded(path, None))
    if len(pixels) != 1:
        raise ValueError(f"{path}: got {len(pixels)} channels, expected one, a class at each pixel")
    counts = torch.bincount(pixels.flatten(), minlength=VOID + 1)
    counts[[0, VOID]] = 0
    return int(counts.argmax())


def _decoded(path, mode):
    """The image in `path`, all of it read; `mode`: as PIL converts it, None: as it is (a mask's classes are its palette's)."""
    try:
        with Image.open(path) as image:
            image.load()
            return image.convert(mode) if mode else image.copy()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file") from error
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{path}: not a whole image ({error})") from error

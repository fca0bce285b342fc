"""Pools of single characters: real handwritten digits, and printed letters from the fonts that matplotlib bundles."""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ" "abdefghnqrt" "αβγδεζηθλμξπρστφχψωΓΔ"  # 58 shapes, no digit among them
TRAIN_FONTS = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Italic",
               "DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralBolIta")
HELD_OUT_FONTS = ("DejaVuSerif-Bold", "DejaVuSansMono-Oblique", "STIXGeneralItalic")
DIGIT_POOLS = {"train": 900, "validation": 250, "test": 350, "public": 297}


class GlyphPool(NamedTuple):
    """`images` (P, h, w) in [0, 1], stroke bright; `labels` (P,) class of each image; `num_classes`."""

    images: torch.Tensor
    labels: torch.Tensor
    num_classes: int


@cache
def digit_pool(split):
    """Handwritten digits of one split: "train", "validation", "test" or "public"; stratified, no image in two.

    The 1,797 images of scikit-learn's bundled set (8x8, UCI Optical Recognition of Handwritten Digits).
    """
    if split not in DIGIT_POOLS:
        raise ValueError(f"split: got {split!r}, expected one of {sorted(DIGIT_POOLS)}")
    from sklearn.datasets import load_digits  # takes a second, as all of sklearn

    images, labels = load_digits(return_X_y=True)
    index = digit_indices(labels)[split]
    return GlyphPool(torch.tensor(images[index], dtype=torch.float32).reshape(-1, 8, 8) / 16,
                     torch.tensor(labels[index]), 10)


def digit_indices(labels):
    """Rows of the bundled set that belong to each split, as {split: array}."""
    from sklearn.model_selection import train_test_split

    rest, indices = list(range(len(labels))), {}
    for split, size in DIGIT_POOLS.items():
        if size == len(rest):
            indices[split] = sorted(rest)
        else:
            chosen, rest = train_test_split(rest, train_size=size, stratify=labels[rest], random_state=0)
            indices[split] = sorted(chosen)
    return indices


@cache
def letter_pool(split="train"):
    """Printed letters: "train" from eight fonts, "held_out" from three other fonts; 58 classes."""
    fonts = {"train": TRAIN_FONTS, "held_out": HELD_OUT_FONTS}
    if split not in fonts:
        raise ValueError(f"split: got {split!r}, expected one of {sorted(fonts)}")
    images = [_render(letter, font) for font in fonts[split] for letter in LETTERS]
    labels = torch.arange(len(LETTERS)).repeat(len(fonts[split]))
    return GlyphPool(torch.stack(images), labels, len(LETTERS))


def _render(letter, font, size=12):
    """One letter as a (size, size) image whose larger side fills the square, as it does for the digits."""
    import matplotlib
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont

    face = ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"), 48)
    left, top, right, bottom = face.getbbox(letter)
    side = max(right - left, bottom - top)
    canvas = Image.new("L", (side, side))
    offset = ((side - (right - left)) // 2 - left, (side - (bottom - top)) // 2 - top)
    ImageDraw.Draw(canvas).text(offset, letter, fill=255, font=face)
    return torch.from_numpy(np.asarray(canvas.resize((size, size), Image.Resampling.BOX), dtype=np.float32) / 255)

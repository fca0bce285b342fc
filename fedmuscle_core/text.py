"""Captions as token ids: the tokenizer stored beside each text backbone."""

from functools import cache

import torch
from transformers import AutoTokenizer

from .paths import BACKBONES

MAX_LENGTH = 40     # tokens of the longest caption there can be, [CLS] and [SEP] included


@cache
def load_tokenizer(name):
    """The tokenizer of the text backbone `name`: a folder of `data/backbones`, or any name or path `AutoTokenizer` takes.

    Raises ValueError when neither a folder nor the hub (or its local cache) has it, or the folder is that of images.
    """
    folder = BACKBONES / name
    embedded = sorted(path.parent.name for path in BACKBONES.glob("*/tokenizer.json"))
    message = f"tokenizer: got {name!r}, expected a folder of data/backbones {embedded} or a model name the hub has"
    if folder.is_dir() and name not in embedded:
        raise ValueError(f"{message}; this backbone reads images")
    try:
        return AutoTokenizer.from_pretrained(folder if folder.is_dir() else name)
    except OSError as error:
        raise ValueError(f"{message}; loading it failed: {str(error).splitlines()[0]}") from error


def token_ids(tokenizer, captions, max_length=MAX_LENGTH):
    """Token ids (n, max_length), long, of n captions: [CLS] caption [SEP], then [PAD] (`tokenizer.pad_token_id`).

    Nothing is cut off: raises ValueError for a caption of more than `max_length` tokens, for no captions, for non-strings.
    """
    if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions):
        raise ValueError(f"captions: got {captions!r:.80}, expected a list of strings")
    if tokenizer.pad_token_id != 0:
        raise ValueError(f"tokenizer: got padding with token {tokenizer.pad_token_id}, expected 0: clients take 0 for padding")
    if not len(captions):
        raise ValueError("captions: got an empty list, expected at least one string")
    rows = tokenizer(list(captions))["input_ids"]
    for caption, row in zip(captions, rows, strict=True):
        if len(row) > max_length:
            raise ValueError(f"captions: {caption!r} has {len(row)} tokens, expected at most max_length = {max_length}")
    return torch.tensor([row + [tokenizer.pad_token_id] * (max_length - len(row)) for row in rows])

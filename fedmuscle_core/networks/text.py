"""Captions as token ids: the tokenizer stored beside each text backbone."""

from functools import cache

import torch
from transformers import AutoTokenizer

from .backbones import backbone_folder, check_files, loading, located

MAX_LENGTH = 40     # tokens of the longest caption of scenes there can be, [CLS] and [SEP] included
TEXT_LENGTH = 64    # of real texts (our choice)


@cache
def load_tokenizer(name):
    """The tokenizer of the text backbone `name`, found as `backbones.located` says.

    Raises ValueError where it cannot be had, or the folder is that of a backbone that reads images.
    """
    folder, arguments = backbone_folder(name), located(name)
    if folder is not None and not any(folder.glob("*token*")):
        raise ValueError(f"tokenizer: got {name!r}, expected a text backbone; this backbone reads images")
    if folder is not None:
        check_files(folder)
    with loading("tokenizer", name, arguments["pretrained_model_name_or_path"]):
        return AutoTokenizer.from_pretrained(**arguments, trust_remote_code=False)


def token_ids(tokenizer, captions, max_length=MAX_LENGTH, cut=False):
    """Token ids (n, max_length), long, of n captions: [CLS] caption [SEP], then [PAD] (`tokenizer.pad_token_id`).

    cut: what is longer is cut off.  Else raises ValueError for a caption of more than `max_length` tokens, and always for no
    captions, for non-strings.
    """
    if isinstance(captions, str) or not all(isinstance(caption, str) for caption in captions):
        raise ValueError(f"captions: got {captions!r:.80}, expected a list of strings")
    if tokenizer.pad_token_id != 0:
        raise ValueError(f"tokenizer: got padding with token {tokenizer.pad_token_id}, expected 0: clients take 0 for padding")
    if not len(captions):
        raise ValueError("captions: got an empty list, expected at least one string")
    rows = tokenizer(list(captions), truncation=cut, max_length=max_length if cut else None)["input_ids"]
    for caption, row in zip(captions, rows, strict=True):
        if len(row) > max_length:
            raise ValueError(f"captions: {caption!r} has {len(row)} tokens, expected at most max_length = {max_length}")
    return torch.tensor([row + [tokenizer.pad_token_id] * (max_length - len(row)) for row in rows])

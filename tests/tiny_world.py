"""Tiny real data in the official layouts and tiny checkpoints, written for tests: few photos a source, networks of a layer."""

import json

import numpy as np
from PIL import Image
from transformers import AutoModel, BertConfig, DistilBertConfig, SegformerConfig, ViTConfig

from fedmuscle_core.pretraining.texts import make_tokenizer
from fedmuscle_core.seeds import seeded
from fedmuscle_core.world.real.layouts import VOC_CLASSES

WORDS = ("A dog runs on grass.", "Two cats sleep.", "Stocks fall again.", "The team wins a match.")


def photo(path, rng, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)).save(path)


def write_cifar(folder, classes, train, test, rng):
    """As `fetch` unpacks CIFAR."""
    for split, count in (("train", train), ("test", test)):
        for number in range(count):
            for name in range(classes):
                photo(folder / split / f"class{name:03}" / f"{number:05}.png", rng, (32, 32))


def write_voc(folder, train, val, rng):
    """VOCdevkit with its official label files; every second photo has a mask, as have those of 2007, which have no labels."""
    base = folder / "VOCdevkit" / "VOC2012"
    names = {"train": [f"2008_{number:06}" for number in range(train)], "val": [f"2009_{number:06}" for number in range(val)]}
    unlabelled = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033"]}
    for part in ("Segmentation", "Main"):
        (base / "ImageSets" / part).mkdir(parents=True)
    (base / "SegmentationClass").mkdir()
    for split, found in names.items():
        masked = unlabelled[split] + found[::2]
        for name in found + unlabelled[split]:
            photo(base / "JPEGImages" / f"{name}.jpg", rng)
        for name in masked:
            mask = Image.fromarray(rng.integers(0, 21, (30, 40), dtype=np.uint8), mode="L")
            mask.paste(255, (0, 0, 4, 30))
            mask.save(base / "SegmentationClass" / f"{name}.png")
        (base / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(masked) + "\n")
        for label in VOC_CLASSES:
            lines = [f"{name} {rng.choice(['-1', ' 0', ' 1'])}" for name in found]
            (base / "ImageSets" / "Main" / f"{label}_{split}.txt").write_text("\n".join(lines) + "\n")


def write_coco(folder, count, rng):
    for number in range(count):
        photo(folder / "val2017" / f"{number:012}.jpg", rng)
    images = [{"id": number, "file_name": f"{number:012}.jpg"} for number in range(count)]
    captions = [{"id": number, "image_id": number % count, "caption": WORDS[number % 2]} for number in range(2 * count)]
    (folder / "annotations").mkdir()
    (folder / "annotations" / "captions_val2017.json").write_text(json.dumps({"images": images, "annotations": captions}))
    instances = {"categories": [{"id": 3 * number, "name": f"thing {number}"} for number in range(80)],
                 "annotations": [{"id": number, "image_id": number, "category_id": 3 * number} for number in range(count - 1)]}
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(instances))


def write_flickr(folder, count, rng):
    lines = ["image_name| comment_number| comment"]
    for number in range(count):
        photo(folder / "flickr30k_images" / f"{number}.jpg", rng)
        lines += [f"{number}.jpg| {place}| {WORDS[place]}" for place in (0, 1)]
    (folder / "results.csv").write_text("\n".join(lines) + "\n")


def write_ag_news(folder, train, test):
    folder.mkdir(parents=True)
    for split, count in (("train", train), ("test", test)):
        rows = [f'"{number % 4 + 1}","{WORDS[number % 4]}","Once {number}."' for number in range(count)]
        (folder / f"{split}.csv").write_text("\n".join(rows) + "\n")


def write_data(folder):
    """Every source of the paper profile."""
    rng = np.random.default_rng(0)
    write_cifar(folder / "cifar10", 10, 4, 1, rng)
    write_cifar(folder / "cifar100", 100, 1, 1, rng)
    write_voc(folder / "voc", 80, 12, rng)
    write_coco(folder / "coco", 30, rng)
    write_flickr(folder / "flickr30k", 30, rng)
    write_ag_news(folder / "ag_news", 60, 12)


def segformer(dropout):
    return SegformerConfig(num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3], strides=[4, 2],
                           sr_ratios=[2, 1], num_attention_heads=[1, 2], mlp_ratios=[2, 2], drop_path_rate=dropout)


def write_checkpoints(folder):
    """Every checkpoint of the paper profile, tiny, by `save_pretrained`."""
    tokenizer = make_tokenizer(WORDS)
    small = {"vocab_size": len(tokenizer), "max_position_embeddings": 64, "pad_token_id": 0}
    configs = {
        "vit_base": ViTConfig(image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                              intermediate_size=16),
        "segformer_b0": segformer(0.0), "segformer_b2": segformer(0.1),
        "bert_base": BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, **small),
        "distilbert_base": DistilBertConfig(dim=16, n_layers=1, n_heads=2, hidden_dim=16, **small),
    }
    for name, config in configs.items():
        with seeded(0, "tiny checkpoint", name):
            AutoModel.from_config(config).save_pretrained(folder / name)
        if "bert" in name:
            tokenizer.save_pretrained(folder / name)

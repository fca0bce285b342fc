"""Makes the small vision backbones of `networks/pretrained`: `python -m fedmuscle_core.pretraining.images [name ...]`.

They stand in for the papers' foundation models: each learns, once, to name printed letters (no digit among them), first
one a scene, then several in their places.  The transformers have no built-in sense of locality, so in the first stage they
also match the features that `resnet_medium` has after its own.
"""

import argparse
import copy
import csv
from functools import cache, partial

import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from tqdm.auto import tqdm
from transformers import AutoModel, ResNetConfig, SegformerConfig, ViTConfig

from ..network import in_batches
from ..networks.backbones import feature_map, feature_width, load_backbone, write_checksums
from ..networks.client_network import num_parameters
from ..paths import BACKBONES
from ..seeds import generator, seeded
from ..world.glyphs import digit_pool, letter_pool
from ..world.scenes import SIZE, compose

TEACHER = "resnet_medium"
SEED = 0


def vit(width, layers, heads):
    return ViTConfig(image_size=SIZE, patch_size=8, hidden_size=width, num_hidden_layers=layers,
                     num_attention_heads=heads, intermediate_size=2 * width)


def segformer(widths, depths):
    return SegformerConfig(num_encoder_blocks=2, depths=depths, hidden_sizes=widths, patch_sizes=[7, 3], strides=[4, 2],
                           sr_ratios=[2, 1], num_attention_heads=[1, 2], mlp_ratios=[2, 2], drop_path_rate=0.0)


def resnet(widths):
    return ResNetConfig(embedding_size=widths[0], hidden_sizes=widths, depths=[1] * len(widths), layer_type="basic")


CONFIGS = {  # name: (configuration, epochs)
    "resnet_medium": (resnet([24, 48, 96]), 16),
    "resnet_small": (resnet([16, 32, 64]), 16),
    "segformer_medium": (segformer([32, 64], [1, 2]), 24),
    "vit_medium": (vit(64, 4, 4), 60),
    "vit_small": (vit(48, 3, 3), 60),
}


def pretrain(name):
    """Make the backbone `name` of `CONFIGS` from random weights: one letter a scene, then several in their places."""
    backbone = copy.deepcopy(learn_single_letters(name))
    learn_letters_in_place(name, backbone)
    return backbone


@cache
def learn_single_letters(name, num_scenes=40_000):
    """Stage 1: name the one letter of a scene from the mean of its features; transformers also match the teacher's."""
    config, epochs = CONFIGS[name]
    with seeded(SEED, "pretrain", name):
        backbone = AutoModel.from_config(config)
        classify = nn.Linear(feature_width(config), letter_pool().num_classes)
        imitate = nn.Linear(feature_width(config), feature_width(CONFIGS[TEACHER][0]))
    scenes = compose(letter_pool(), "single", num_scenes, generator(SEED, "pretrain", "scenes"))
    wanted = None
    if not name.startswith("resnet"):
        wanted = in_batches(partial(mean_features, learn_single_letters(TEACHER)), scenes.images)

    def loss(rows, rng):
        features = mean_features(backbone, _shift(scenes.images[rows], rng))
        value = F.cross_entropy(classify(features), scenes.classes[rows, 0], label_smoothing=0.1)
        if wanted is not None:
            value = value + 1 - F.cosine_similarity(imitate(features), wanted[rows]).mean()
        return value

    fit(f"{name}: single letters", [backbone, classify, imitate], loss, num_scenes, epochs, max_lr=2e-3)
    return backbone


def learn_letters_in_place(name, backbone, num_scenes=12_000, epochs=10):
    """Stage 2: name every letter of a scene from the mean features of its own region: whole, half or quarter."""
    with seeded(SEED, "pretrain", name, "in place"):
        classify = nn.Linear(feature_width(backbone.config), letter_pool().num_classes)
    regions = {"single": (1, 1), "number": (1, 2), "multi": (2, 2)}
    scenes = {layout: compose(letter_pool(), layout, num_scenes, generator(SEED, "pretrain", "in place", layout))
              for layout in regions}

    def loss(rows, rng):
        value = 0
        for layout, grid in regions.items():
            maps = feature_map(backbone, _shift(scenes[layout].images[rows], rng))
            logits = classify(F.adaptive_avg_pool2d(maps, grid).flatten(2).transpose(1, 2))   # (B, regions, classes)
            letters = scenes[layout].classes[rows, :grid[0] * grid[1]]        # reading order, -1 where empty
            value = value + F.cross_entropy(logits.flatten(0, 1), letters.flatten(), ignore_index=-1, label_smoothing=0.1)
        return value

    fit(f"{name}: letters in place", [backbone, classify], loss, num_scenes, epochs, max_lr=1e-3)


def fit(title, modules, loss, num_scenes, epochs, max_lr, batch_size=128):
    """One-cycle AdamW on `loss(rows, rng)` over shuffled batches."""
    parameters = [parameter for module in modules for parameter in module.parameters()]
    steps = num_scenes // batch_size
    optimizer = torch.optim.AdamW(parameters, lr=max_lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr, total_steps=epochs * steps, pct_start=0.1)
    order = generator(SEED, "pretrain", "order")
    modules[0].train()
    for _ in (bar := tqdm(range(epochs), desc=title)):
        for rows in torch.randperm(num_scenes, generator=order)[:steps * batch_size].split(batch_size):
            value = loss(rows, order)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
        bar.set_postfix(loss=f"{value.item():.3f}")
    modules[0].eval()


def mean_features(backbone, images):
    """Mean over positions of the last features: (B, C)."""
    return feature_map(backbone, images).mean((2, 3))


def _shift(images, rng):
    """Cyclic shift of a whole batch by up to two pixels."""
    dx, dy = torch.randint(-2, 3, (2,), generator=rng).tolist()
    return images.roll((dy, dx), (2, 3))


def probe(backbone):
    """Accuracy of logistic regression on frozen features, as {"letters": ..., "digits": ...} in [0, 1].

    letters: fitted on 4,000 scenes of the pretraining fonts, scored on 2,000 scenes of fonts never seen;
    digits: fitted on 2,000 scenes of training handwriting, scored on 2,000 of validation handwriting.
    """
    features, scores = partial(mean_features, backbone.eval()), {}
    for what, fit_pool, score_pool, n in [("letters", letter_pool("train"), letter_pool("held_out"), 4000),
                                          ("digits", digit_pool("train"), digit_pool("validation"), 2000)]:
        fit = compose(fit_pool, "single", n, generator(SEED, "probe", what, "fit"))
        score = compose(score_pool, "single", 2000, generator(SEED, "probe", what, "score"))
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300))
        classifier.fit(in_batches(features, fit.images), fit.classes[:, 0])
        scores[what] = classifier.score(in_batches(features, score.images), score.classes[:, 0])
    return scores


def probe_table(names):
    """Write and return the rows of `networks/pretrained/probe.csv`: every backbone beside its own untrained twin."""
    rows = []
    for name in names:
        trained = load_backbone(name).eval()
        with seeded(SEED, "probe", name):
            untrained = AutoModel.from_config(trained.config).eval()
        for weights, backbone in [("pretrained", trained), ("untrained", untrained)]:
            scores = {what: round(value, 4) for what, value in probe(backbone).items()}
            rows.append({"backbone": name, "weights": weights, "parameters": num_parameters(backbone), **scores})
    with (BACKBONES / "probe.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return rows


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(CONFIGS), help=f"any of {list(CONFIGS)}; default: all")
    parser.add_argument("--probe-only", action="store_true", help="only score what is already in networks/pretrained")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(CONFIGS):
        parser.error(f"names: got {sorted(unknown)}, expected any of {list(CONFIGS)}")
    torch.set_num_threads(1)    # same weights on any number of cores; several names can be made side by side
    if not args.probe_only:
        for name in args.names:
            pretrain(name).save_pretrained(BACKBONES / name)
        write_checksums(BACKBONES)
    for row in probe_table([name for name in CONFIGS if (BACKBONES / name).is_dir()]):
        print(row)


if __name__ == "__main__":
    main()

"""Makes the small backbones of notebook 15 from real photos and texts:
`python -m fedmuscle_core.pretraining.photos [name ...]`.

They have the architectures of the embedded world's and learn from the parts of the excerpts that are reserved for this, never
from private, validation, test or public samples (see `world.real.splits`).  Those of images name the 110 classes of CIFAR-10
and CIFAR-100.  Those of texts fill the gaps of news, questions and of captions (COCO's photos have five; the first is public,
the others are read here), then name the ten classes of news and questions.  They go to `data/raw/backbones`, which is not under
version control: what is derived from the photos must not be published.  How well linear probes read the features of each goes
to `networks/pretrained/probe_photos.csv`.
"""

import argparse
import copy
from functools import cache

import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from transformers import AutoModel

from ..experiments.build import read
from ..experiments.store import write_atomically
from ..network import in_batches
from ..networks.backbones import backbone_digest, feature_width, load_backbone
from ..networks.client_network import RepresentationModel, TextRepresentationModel, num_parameters
from ..networks.text import TEXT_LENGTH, token_ids
from ..paths import BACKBONES, PHOTO_BACKBONES
from ..seeds import generator, seeded
from ..world.real.sources import source_table
from ..world.real.splits import split_rows, task_samples
from ..world.tasks import task_named
from ..world.worlds import Pairs
from . import images as vision
from . import texts as language

SEED = 0
PHOTO_SOURCES = ("cifar10_excerpt", "cifar100_excerpt")
TEXTS, CAPTIONS = ("ag_news_excerpt", "trec"), "coco_small"
EPOCHS = {"resnet_medium": 60, "resnet_small": 60, "segformer_medium": 60, "vit_medium": 60, "vit_small": 60,
          "bert_small": 16, "distilbert_small": 16}
CLASS_EPOCHS = 10               # of the texts' second stage
VOCABULARY, LEAST = 8000, 5     # most tokens; words that occur less often than that are spelt out
NAMES = [f"photo_{name}" for name in EPOCHS]
PROBES = {"image": ("class@cifar10_excerpt", "class@cifar100_excerpt"), "text": ("text@ag_news_excerpt", "text@trec")}
PROBE_TABLE = BACKBONES / "probe_photos.csv"


@cache
def labelled_photos(part="reserved"):
    """(images (n, 3, 32, 32) in [0, 1], classes (n,) from 0 to 109) of a part of both CIFAR excerpts."""
    images, classes, first = [], [], 0
    for source in PHOTO_SOURCES:
        task = task_named(f"class@{source}")
        found, labels = task_samples(task, split_rows(source)[part])
        images.append(found)
        classes.append(labels + first)
        first += task.num_outputs
    return torch.cat(images).float() / 255, torch.cat(classes)


@cache
def learn_photos(name, epochs=None):
    """The backbone `name` of `images.CONFIGS`, from random weights; transformers also match the features of the teacher."""
    images, classes = labelled_photos()
    config = vision.CONFIGS[name][0]
    with seeded(SEED, "pretrain photos", name):
        backbone = AutoModel.from_config(copy.deepcopy(config))
        classify = nn.Linear(feature_width(config), int(classes.max()) + 1)
        imitate = nn.Linear(feature_width(config), feature_width(vision.CONFIGS[vision.TEACHER][0]))
    teacher = None if name.startswith("resnet") else learn_photos(vision.TEACHER, epochs)

    def loss(rows, rng):
        seen = view(images[rows], rng)
        features = vision.mean_features(backbone, seen)
        value = F.cross_entropy(classify(features), classes[rows], label_smoothing=0.1)
        if teacher is not None:
            wanted = in_batches(lambda part: vision.mean_features(teacher, part), seen)
            value = value + 1 - F.cosine_similarity(imitate(features), wanted).mean()
        return value

    vision.fit(f"photo_{name}", [backbone, classify, imitate], loss, len(images), epochs or EPOCHS[name], max_lr=3e-3)
    return backbone


def view(images, rng):
    """Half of them mirrored; the batch shifted by up to four pixels, its border repeated."""
    mirrored = torch.rand(len(images), generator=rng) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    dx, dy = torch.randint(0, 9, (2,), generator=rng).tolist()
    side = images.shape[-1]
    return F.pad(images, (4, 4, 4, 4), mode="replicate")[..., dy:dy + side, dx:dx + side]


def learn_texts(name, lines, tokenizer, epochs=None):
    """The language model `name` of `texts.CONFIGS`: it fills the gaps of `lines`, then its body names the classes of
    news and questions from the mean over the tokens."""
    model = language.pretrain(name, tokenizer, lines, epochs or EPOCHS[name])
    ids, classes = labelled_texts(tokenizer)
    lengths = (ids != tokenizer.pad_token_id).sum(1)
    network = TextRepresentationModel(model.base_model, 1)
    with seeded(SEED, "pretrain photos", name):
        classify = nn.Linear(feature_width(model.config), int(classes.max()) + 1)

    def loss(rows, rng):
        features = network.pool(network.features(ids[rows, :lengths[rows].max()]))
        return F.cross_entropy(classify(features), classes[rows], label_smoothing=0.1)

    vision.fit(f"photo_{name}: classes", [model.base_model, classify], loss, len(ids), epochs or CLASS_EPOCHS, max_lr=1e-3)
    return model


def labelled_texts(tokenizer):
    """(token ids (n, L), classes (n,) from 0 to 9) of the reserved parts of news and questions."""
    ids, classes, first = [], [], 0
    for source in TEXTS:
        task = task_named(f"text@{source}")
        texts, labels = task_samples(task, split_rows(source)["reserved"])
        ids.append(token_ids(tokenizer, texts, TEXT_LENGTH, cut=True))
        classes.append(labels + first)
        first += task.num_outputs
    return torch.cat(ids), torch.cat(classes)


def corpus():
    """The texts that language models learn from, in a fixed random order."""
    def texts_of(source, part):
        return source_table(source)["texts"].iloc[split_rows(source)[part].tolist()]

    lines = [texts[0] for source in TEXTS for texts in texts_of(source, "reserved")]
    lines += [text for texts in texts_of(CAPTIONS, "pool") for text in texts[1:]]
    order = torch.randperm(len(lines), generator=generator(SEED, "pretrain photos", "texts"))
    return [lines[row] for row in order.tolist()]


def probe(name, backbone):
    """{source: accuracy in [0, 1]} of logistic regression on a frozen backbone's features, pooled as clients pool them: fitted
    on the pool of private samples, scored on the validation part."""
    text, found = hasattr(backbone.config, "vocab_size"), {}
    network = (TextRepresentationModel if text else RepresentationModel)(backbone.eval(), 1)
    for task in map(task_named, PROBES["text" if text else "image"]):
        features, labels = {}, {}
        for part in ("pool", "validation"):
            samples, labels[part] = task_samples(task, split_rows(task.source)[part])
            features[part] = in_batches(lambda inputs: network.pool(network.features(inputs)),
                                        read(task, name, Pairs(samples, samples)))
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        classifier.fit(features["pool"], labels["pool"])
        found[task.source] = classifier.score(features["validation"], labels["validation"])
    return found


def probe_table(names):
    """Write and return the scores of `probe`, a row a backbone, weights and source: every backbone and its untrained twin."""
    rows = []
    for name in names:
        trained = load_backbone(name)
        with seeded(SEED, "probe", name):
            untrained = AutoModel.from_config(trained.config)
        for weights, backbone in [("pretrained", trained), ("untrained", untrained)]:
            head = {"backbone": name, "digest": backbone_digest(name), "weights": weights,
                    "parameters": num_parameters(backbone)}
            rows += [{**head, "source": source, "accuracy": round(value, 4)} for source, value in probe(name, backbone).items()]
    table = pd.DataFrame(rows)
    write_atomically(PROBE_TABLE, table.to_csv(index=False, lineterminator="\n"))
    return table


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=NAMES, help=f"any of {NAMES}; default: all")
    parser.add_argument("--epochs", type=int, help="other than those that the notebook's backbones were made with")
    parser.add_argument("--probe-only", action="store_true", help="only score what was made before")
    args = parser.parse_args(argv)
    if unknown := set(args.names) - set(NAMES):
        parser.error(f"names: got {sorted(unknown)}, expected any of {NAMES}")
    torch.set_num_threads(1)    # same weights on any number of cores; several names can be made side by side
    lines = tokenizer = None
    for name in [] if args.probe_only else args.names:
        plain = name.removeprefix("photo_")
        if plain in vision.CONFIGS:
            learn_photos(plain, args.epochs).save_pretrained(PHOTO_BACKBONES / name)
            continue
        lines = lines or corpus()
        tokenizer = tokenizer or language.make_tokenizer(lines, least=LEAST, most=VOCABULARY, length=TEXT_LENGTH)
        model = learn_texts(plain, lines, tokenizer, args.epochs)
        language.save(PHOTO_BACKBONES / name, plain, model, tokenizer)
    print(f"backbones: {PHOTO_BACKBONES}")
    if not args.epochs and all((PHOTO_BACKBONES / name).is_dir() for name in NAMES):
        print(probe_table(NAMES).to_string(index=False))


if __name__ == "__main__":
    main()

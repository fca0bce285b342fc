"""Who takes part: the clients of each setup, their tasks, backbones and private sets, and what else belongs to a setup.

A setup is one `Setup`; wherever a name of SETUPS is taken, a `Setup` of one's own can be given instead.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from ..checks import one_of, positive_int


class ClientSpec(NamedTuple):
    """`task`: a name of `world.tasks.TASKS`, or "kind@source" on real data, see `world.tasks.task_named`; `backbone`: see
    `networks.backbones.load_backbone`; `train_size`: private samples."""

    task: str
    backbone: str
    train_size: int

    @property
    def backbones(self):
        """Names of the one backbone, or of the two, one for images and one for texts, that are written with + between them."""
        return tuple(self.backbone.split("+"))


@dataclass(frozen=True)
class Setup:
    """clients: `ClientSpec`s, client 1 first.  settings: {field: value} that it needs beside the defaults of `Settings`.

    one_start: clients of a task start from the same weights.  tuned_as: the setup whose tuned values it takes over where it has
    none of its own.  For tuning: tunes, names of methods or a group; tuning_seeds, never used for results.  paper: what profile
    "paper" plays instead.
    """

    name: str
    clients: tuple[ClientSpec, ...]
    settings: dict = field(default_factory=dict, hash=False)
    one_start: bool = False
    tuned_as: str = ""
    tunes: str | tuple = "aligning"
    tuning_seeds: tuple = (100, 101, 102)
    paper: str = ""

    def __post_init__(self):
        if not isinstance(self.name, str) or not re.fullmatch(r"[A-Za-z0-9._+-]+", self.name):
            raise ValueError(f"setup: got the name {self.name!r}, expected letters, digits and . _ + -, as files are called so")
        try:
            object.__setattr__(self, "clients", tuple(ClientSpec(*spec) for spec in self.clients))
        except TypeError as error:
            raise ValueError(f"setup {self.name}: got clients {self.clients!r}, expected (task, backbone, private samples) for "
                             "each") from error
        if not self.clients:
            raise ValueError(f"setup: got no clients in {self.name!r}, expected at least one")
        for number, spec in enumerate(self.clients, 1):
            positive_int(f"setup {self.name}: client {number}: train_size", spec.train_size)
        for name in ("tunes", "tuning_seeds"):
            if isinstance(getattr(self, name), list):                         # a `Setup` is a key, e.g. of what was computed
                object.__setattr__(self, name, tuple(getattr(self, name)))

    @property
    def tasks(self):
        return tuple(spec.task for spec in self.clients)

    @property
    def sizes(self):
        return tuple(spec.train_size for spec in self.clients)


def setup_named(setup):
    """A `Setup` as it is, or the one of SETUPS that has this name; ValueError for an unknown one."""
    if not isinstance(setup, Setup):
        return SETUPS[one_of("setup", setup, SETUPS)]
    for name in ("tuned_as", "paper"):
        if getattr(setup, name):
            one_of(f"setup {setup.name}: {name}", getattr(setup, name), SETUPS)
    return setup


def with_backbones(specs, *backbones):
    """The same clients with these backbones in turn."""
    return tuple(spec._replace(backbone=backbones[place % len(backbones)]) for place, spec in enumerate(specs))


def with_sizes(specs, *sizes):
    """The same clients, the first ones with these private sets."""
    return tuple(spec._replace(train_size=size) for spec, size in zip(specs, sizes, strict=False)) + specs[len(sizes):]


def with_tasks(sizes, backbone="segformer_medium"):
    """One client a size and task, of {task: sizes}."""
    return tuple(ClientSpec(task, backbone, size) for task, several in sizes.items() for size in several)


# The regime of the embedded setups: d and the public set are the paper's, some 60 contrastive steps a round, rounds until Local
# is flat, private sets so small that tuned Local is where the paper's is: chosen from Local alone, see data/PREDICTIONS.md.
EMBEDDED = {"dim": 256, "public_size": 5000, "contrastive_steps": 60, "rounds": 8, "local_epochs": 2, "keep_best": True}
LONGER = EMBEDDED | {"rounds": 10, "contrastive_steps": 48}               # for segmentation, which learns later; as many steps
PAIRS = LONGER | {"public_domain": "pairs"}
EMBEDDED_1 = (
    ClientSpec("mlc", "resnet_medium", 20),
    ClientSpec("mlc", "segformer_medium", 20),
    ClientSpec("mlc", "vit_medium", 20),
    ClientSpec("ic100", "segformer_medium", 200),
    ClientSpec("ic100", "vit_small", 200),
    ClientSpec("ic10", "resnet_small", 15),
)
EMBEDDED_2 = (
    *EMBEDDED_1,
    ClientSpec("ss", "segformer_medium", 300),
    ClientSpec("ss", "segformer_medium", 300),
    ClientSpec("tc10", "bert_small", 300),
    ClientSpec("tcleft", "distilbert_small", 800),
)
NONIID = tuple(ClientSpec(task, backbone, size) for task, size, backbones in (
    ("mlc", 20, ("resnet_medium", "segformer_medium", "vit_medium")),
    ("ic100", 200, ("segformer_medium", "vit_small", "resnet_medium")),
    ("ic10", 15, ("resnet_small", "vit_small", "segformer_medium")),
    ("ss", 300, ("segformer_medium",) * 3)) for backbone in backbones)
TEXTS = (*EMBEDDED_2[-2:], *with_backbones(EMBEDDED_2[-2:], "distilbert_small", "bert_small"))

# M-Fed: three clients a task with less and less data, one encoder architecture; as many contrastive steps in all as in Setup 1.
MFED = {"dim": 256, "rounds": 40, "min_local_steps": 4, "keep_best": True, "validation_size": 100, "public_size": 5000,
        "contrastive_steps": 12}
DENSE_SIZES = {"semseg": (400, 200, 100), "parts": (100, 50, 25), "saliency": (100, 50, 25), "edges": (40, 20, 10)}
LABEL_SIZES = {"mlc": (100, 50, 25), "largest": (100, 50, 25), "brightest": (100, 50, 25), "upper": (100, 50, 25)}
TASK_COUNTS = (1, 2, 4, 8)                            # 4 are those of mfed_dense


# CreamFL: the server's own model of images and texts, client 1, and nine others, three of each kind; public pairs are its data.
CREAMFL = LONGER | {"public_domain": "pairs", "public_size": 1000, "contrastive_steps": 31}
CREAMFL_CLIENTS = (
    ClientSpec("public_pairs", "resnet_medium+bert_small", 1000),
    *(ClientSpec(task, backbone, size) for task, size, backbones in (
        ("ic10", 30, ("resnet_small", "vit_small", "segformer_medium")),
        ("tc10", 300, ("bert_small", "distilbert_small", "bert_small")),
        ("pairs", 300, ("resnet_small+distilbert_small", "vit_small+bert_small", "resnet_medium+distilbert_small")))
      for backbone in backbones),
)


def sharing_setup(name, sizes, tuned_as="mfed_dense"):
    """A setup of M-Fed."""
    return Setup(name, with_tasks(sizes), MFED, one_start=True, tuned_as=tuned_as, tunes=(
        "fedavg", "fedprox", "encoder_only", "matfl", "mfed", "mfed_proximal", "centralised", "fedmuscle", "muscle_mfed"))


def official(setup):
    """A setup of excerpts on the whole data sets, with what was tuned on the excerpts; public data: COCO's."""
    clients = []
    for spec in setup.clients:
        kind, _, source = spec.task.partition("@")
        clients.append(spec._replace(task=f"{kind}@{OFFICIAL.get(source, source)}"))
    return Setup(f"{setup.name}_official", tuple(clients), setup.settings | {"public_domain": "coco"},
                 tuned_as=setup.tuned_as or setup.name)


# Real photos and texts with real pretrained networks out of packages (`networks.packaged`), whose last stages learn.
# Our choice: who has which network.  foundation_mixed: weak networks, made of printed letters, beside strong ones.
FOUNDATION = {"adaptation": "last", "image_size": 98, "dim": 256, "public_domain": "tiny_imagenet", "public_size": 900,
              "contrastive_steps": 30, "rounds": 8, "local_epochs": 2, "keep_best": True, "validation_size": 300,
              "test_size": 1000}
FOUNDATION_1 = (
    ClientSpec("labels@voc_animals", "efficientnet_lite2", 25),
    ClientSpec("labels@voc_animals", "dinov2_small", 25),
    ClientSpec("labels@voc_animals", "efficientnet_lite1", 25),
    ClientSpec("class@cifar100_excerpt", "efficientnet_lite1", 250),
    ClientSpec("class@cifar100_excerpt", "efficientnet_lite0", 250),
    ClientSpec("class@cifar10_excerpt", "efficientnet_lite0", 32),
)
FOUNDATION_2 = (
    *FOUNDATION_1,
    ClientSpec("pixels@voc_animals", "dinov2_small", 200),
    ClientSpec("pixels@voc_animals", "efficientnet_lite2", 200),
    ClientSpec("text@ag_news_excerpt", "minilm_l6", 12),
    ClientSpec("text@trec", "minilm_l3", 20),
)
# M-Fed on photos; of parts of objects these data say nothing.
FOUNDATION_DENSE = {"pixels@voc_animals": (90, 60, 30), "saliency@voc_animals": (60, 30, 15), "edges@voc_animals": (40, 20, 10)}
OFFICIAL = {"cifar10_excerpt": "cifar10", "cifar100_excerpt": "cifar100", "voc_animals": "voc", "ag_news_excerpt": "ag_news"}
# The grid of notebook 17: networks for the six clients' places in turn, three sizes of their private sets. No place has
# a network twice, as a client in two cells would be one observation twice.
GRID_NETWORKS = {"strong": ("efficientnet_lite2", "efficientnet_lite1", "dinov2_small", "efficientnet_lite0"),
                 "mixed": ("resnet_small", "efficientnet_lite2", "vit_small", "efficientnet_lite1"),
                 "weak": ("resnet_medium", "vit_small", "resnet_small")}
GRID_SIZES = {"few": (10, 10, 10, 80, 80, 10), "some": (25, 25, 25, 250, 250, 32), "many": (100, 100, 100, 1000, 1000, 200)}
# CreamFL on Flickr8k's photos and captions: client 1 is the server's model; few pairs are left for everybody.
CREAMFL_PHOTOS = (
    ClientSpec("public_pairs@flickr8k_pairs", "efficientnet_lite0+minilm_l3", 300),
    *(ClientSpec(task, backbone, size) for task, size, backbones in (
        ("class@cifar10_excerpt", 32, ("efficientnet_lite0", "dinov2_small", "efficientnet_lite2")),
        ("text@ag_news_excerpt", 12, ("minilm_l3", "minilm_l6", "minilm_l3")),
        ("pairs@flickr8k_pairs", 80, ("efficientnet_lite1+minilm_l3", "dinov2_small+minilm_l6")),
        ("pairs@coco_pairs", 80, ("efficientnet_lite2+minilm_l3",)))
      for backbone in backbones),
)
WITHOUT_VIEWS = ("simclr", "simclr_samples", "cofed", "fedhenn", "gramian", "pairwise", "fedmuscle")
FOUNDATIONS = (
    Setup("foundation1", FOUNDATION_1, FOUNDATION),
    Setup("foundation2", FOUNDATION_2, FOUNDATION | {"public_domain": "flickr8k", "public_size": 850}, tunes=WITHOUT_VIEWS),
    Setup("foundation_mixed", with_backbones(FOUNDATION_1, *GRID_NETWORKS["mixed"]), FOUNDATION, tunes=WITHOUT_VIEWS),
)
# paper1, paper2: the setups of the paper; which model each client has, and how much data, was not found: our choice. Sizes are
# those at which Local of `foundation1` and `foundation2` stands near the published one; with these models nobody has looked.
PAPER_1 = (
    ClientSpec("labels@voc", "vit_base", 25),
    ClientSpec("labels@voc", "segformer_b2", 25),
    ClientSpec("labels@voc", "segformer_b0", 25),
    ClientSpec("class@cifar100", "vit_base", 250),
    ClientSpec("class@cifar100", "segformer_b2", 250),
    ClientSpec("class@cifar10", "segformer_b0", 32),
)
PAPER_2 = (
    *PAPER_1,
    ClientSpec("pixels@voc", "segformer_b2", 200),
    ClientSpec("pixels@voc", "segformer_b0", 200),
    ClientSpec("text@ag_news", "bert_base", 12),
    ClientSpec("text@ag_news", "distilbert_base", 12),
)
PAPER_NONIID = tuple(ClientSpec(task, backbone, size) for task, size, backbones in (
    ("labels@voc", 25, ("vit_base", "segformer_b2", "segformer_b0")),
    ("class@cifar100", 250, ("vit_base", "segformer_b2", "segformer_b0")),
    ("class@cifar10", 32, ("vit_base", "segformer_b2", "segformer_b0")),
    ("pixels@voc", 200, ("segformer_b2", "segformer_b2", "segformer_b0"))) for backbone in backbones)
# M = 3, B = 32, d = 256, the temperatures and rank 16 are the paper's, all else ours; the paper has 5,000 public samples: VOC's
# training photos do not give as many beside clients of theirs (4,400 beside the non-IID ones), nor COCO's 5,000 beside the ones
# held out.
PAPER_SCALE = {"num_peers": 3, "batch_size": 32, "dim": 256, "tau": 0.2, "tau_prev": 0.15, "lora_rank": 16, "public_size": 4500,
               "adaptation": "lora", "rounds": 20, "local_lr": 3e-4, "contrastive_lr": 1e-4, "local_batch_size": 32,
               "image_size": 224, "precision": "bfloat16", "micro_batch_size": 32, "offload": True, "validation_size": 1000,
               "test_size": 10000}

SETUPS = {setup.name: setup for setup in (
    Setup("embedded1", EMBEDDED_1, EMBEDDED, paper="paper1"),
    Setup("embedded2", EMBEDDED_2, PAIRS, paper="paper2"),
    Setup("noniid", NONIID, LONGER, tuned_as="embedded1", paper="paper_noniid"),
    Setup("quickstart", (EMBEDDED_1[0], EMBEDDED_1[4], EMBEDDED_1[5]), EMBEDDED, tuned_as="embedded1"),
    Setup("hundred_rounds", (EMBEDDED_1[0], EMBEDDED_1[4], EMBEDDED_1[5]), EMBEDDED | {
        "rounds": 100, "contrastive_steps": 12, "local_epochs": 1, "num_peers": 2}, tuned_as="embedded1"),
    Setup("clients12", EMBEDDED_1 * 2, EMBEDDED, tuned_as="embedded1"),       # private sets of their own
    Setup("both12", EMBEDDED_1 * 2, EMBEDDED, tuned_as="embedded1", tunes=("mfed_per_architecture", "muscle_mfed")),
    Setup("clients24", EMBEDDED_1 * 4, EMBEDDED, tuned_as="embedded1"),
    Setup("one_kind", with_backbones(EMBEDDED_1, "resnet_medium"), EMBEDDED, tuned_as="embedded1"),
    Setup("two_kinds", with_backbones(EMBEDDED_1, "resnet_medium", "vit_medium"), EMBEDDED, tuned_as="embedded1"),
    Setup("images_only", EMBEDDED_1, PAIRS, tuned_as="embedded2"),
    Setup("one_text", (*EMBEDDED_1, TEXTS[0]), PAIRS, tuned_as="embedded2"),
    Setup("texts_only", TEXTS, PAIRS, tuned_as="embedded2"),
    sharing_setup("mfed_dense", DENSE_SIZES, tuned_as=""),
    sharing_setup("mfed_labels", LABEL_SIZES),
    *(sharing_setup(f"tasks{count}", dict(list((DENSE_SIZES | LABEL_SIZES).items())[:count]))
      for count in TASK_COUNTS if count != 4),
    Setup("creamfl", CREAMFL_CLIENTS, CREAMFL, tunes="server"),
    Setup("creamfl35", (*CREAMFL_CLIENTS[:1], *(4 * CREAMFL_CLIENTS[1:4])[:10], *(4 * CREAMFL_CLIENTS[4:7])[:10],
                        *5 * CREAMFL_CLIENTS[7:]), CREAMFL, tuned_as="creamfl"),               # the paper's numbers of clients
    *FOUNDATIONS,
    *map(official, FOUNDATIONS),
    Setup("creamfl_photos", CREAMFL_PHOTOS, FOUNDATION | {
        "public_domain": "flickr8k_pairs", "public_size": 300, "contrastive_steps": 9}, tunes="server"),
    Setup("foundation_mfed", with_tasks(FOUNDATION_DENSE, "efficientnet_lite2"),
          FOUNDATION | {"rounds": 20, "local_epochs": 1, "min_local_steps": 4, "last_stages": 2}, one_start=True,
          tunes=("fedavg", "encoder_only", "mfed", "mfed_proximal")),
    *(Setup(f"grid_{strength}_{labels}", with_sizes(with_backbones(FOUNDATION_1, *networks), *sizes), FOUNDATION,
            tuned_as="foundation1" if strength == "strong" else "foundation_mixed")
      for strength, networks in GRID_NETWORKS.items() for labels, sizes in GRID_SIZES.items()),
    Setup("paper1", PAPER_1, {"public_domain": "voc", **PAPER_SCALE}),
    Setup("paper2", PAPER_2, {"public_domain": "flickr30k", **PAPER_SCALE}),
    Setup("paper_noniid", PAPER_NONIID, {"public_domain": "voc", **PAPER_SCALE, "public_size": 4400}),
)}

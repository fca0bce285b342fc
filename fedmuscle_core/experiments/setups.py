"""Who takes part: the clients of each setup, their tasks, backbones and private sets."""

from typing import NamedTuple


class ClientSpec(NamedTuple):
    """`task`: a name of `tasks.TASKS`, or "kind@source" on real data, see `tasks.task_named`; `backbone`: see
    `backbones.load_backbone`; `train_size`: private samples."""

    task: str
    backbone: str
    train_size: int


SETUP_1 = (
    ClientSpec("mlc", "resnet_medium", 800),
    ClientSpec("mlc", "segformer_medium", 800),
    ClientSpec("mlc", "vit_medium", 800),
    ClientSpec("ic100", "segformer_medium", 400),
    ClientSpec("ic100", "vit_small", 400),
    ClientSpec("ic10", "resnet_small", 40),
)

SETUPS = {
    "setup1": SETUP_1,
    "setup2": (
        *SETUP_1,
        ClientSpec("ss", "segformer_medium", 800),
        ClientSpec("ss", "segformer_medium", 400),
        ClientSpec("tc10", "bert_small", 200),
        ClientSpec("tcleft", "distilbert_small", 800),
    ),
    "noniid": (                                                               # four tasks, three clients each
        ClientSpec("mlc", "resnet_medium", 400),
        ClientSpec("mlc", "segformer_medium", 400),
        ClientSpec("mlc", "vit_medium", 400),
        ClientSpec("ic100", "segformer_medium", 400),
        ClientSpec("ic100", "vit_small", 400),
        ClientSpec("ic100", "resnet_medium", 400),
        ClientSpec("ic10", "resnet_small", 80),
        ClientSpec("ic10", "vit_small", 80),
        ClientSpec("ic10", "segformer_medium", 80),
        ClientSpec("ss", "segformer_medium", 400),
        ClientSpec("ss", "segformer_medium", 400),
        ClientSpec("ss", "segformer_medium", 400),
    ),
    "quickstart": (                                                           # clients 1, 5 and 6 of Setup 1
        ClientSpec("mlc", "resnet_medium", 800),
        ClientSpec("ic100", "vit_small", 400),
        ClientSpec("ic10", "resnet_small", 40),
    ),
}

def with_backbones(specs, *backbones):
    """The same clients with these backbones in turn."""
    return tuple(spec._replace(backbone=backbones[place % len(backbones)]) for place, spec in enumerate(specs))


def with_sizes(specs, *sizes):
    """The same clients, the first ones with these private sets."""
    return tuple(spec._replace(train_size=size) for spec, size in zip(specs, sizes, strict=False)) + specs[len(sizes):]


SETUPS |= {
    "clients12": SETUP_1 * 2,                                                 # private sets of their own
    "clients24": SETUP_1 * 4,
    "one_kind": with_backbones(SETUP_1, "resnet_medium"),
    "two_kinds": with_backbones(SETUP_1, "resnet_medium", "vit_medium"),
    "images_only": SETUP_1,
    "one_text": (*SETUP_1, ClientSpec("tc10", "bert_small", 200)),
    "texts_only": (
        ClientSpec("tc10", "bert_small", 200),
        ClientSpec("tcleft", "distilbert_small", 800),
        ClientSpec("tc10", "distilbert_small", 200),
        ClientSpec("tcleft", "bert_small", 800),
    ),
}

# M-Fed: three clients a task with less and less data, one encoder architecture.
DENSE_SIZES = {"semseg": (800, 200, 50), "parts": (400, 100, 50), "saliency": (400, 100, 50), "edges": (200, 100, 50)}
LABEL_SIZES = {"mlc": (800, 200, 50), "largest": (800, 200, 50), "brightest": (400, 100, 50), "upper": (400, 100, 50)}


def with_tasks(sizes, backbone="segformer_medium"):
    """One client a size and task."""
    return tuple(ClientSpec(task, backbone, size) for task, several in sizes.items() for size in several)


EIGHT_TASKS = DENSE_SIZES | LABEL_SIZES
TASK_COUNTS = (1, 2, 4, 6, 8)                                                 # 4 are those of mfed_dense
MFED_SETUPS = {"mfed_dense": with_tasks(DENSE_SIZES), "mfed_labels": with_tasks(LABEL_SIZES)}
MFED_SETUPS |= {f"tasks{count}": with_tasks(dict(list(EIGHT_TASKS.items())[:count])) for count in TASK_COUNTS if count != 4}
SETUPS |= MFED_SETUPS                                                         # clients of a task start from the same weights

# Real data.  photos1, photos2: Setups 1 and 2 on excerpts, with small backbones made by `pretrain_photos`.  paper1, paper2:
# those of the paper; which model each client has, and how much data, was not found: our choice.
PHOTOS_1 = (
    ClientSpec("labels@voc_animals", "photo_resnet_medium", 150),
    ClientSpec("labels@voc_animals", "photo_segformer_medium", 150),
    ClientSpec("labels@voc_animals", "photo_vit_medium", 150),
    ClientSpec("class@cifar100_excerpt", "photo_segformer_medium", 1600),
    ClientSpec("class@cifar100_excerpt", "photo_vit_small", 1600),
    ClientSpec("class@cifar10_excerpt", "photo_resnet_small", 100),
)
PAPER_1 = (
    ClientSpec("labels@voc", "vit_base", 400),
    ClientSpec("labels@voc", "segformer_b2", 400),
    ClientSpec("labels@voc", "segformer_b0", 400),
    ClientSpec("class@cifar100", "vit_base", 5000),
    ClientSpec("class@cifar100", "segformer_b2", 5000),
    ClientSpec("class@cifar10", "segformer_b0", 5000),
)
SETUPS |= {
    "photos1": PHOTOS_1,
    "photos2": (
        *PHOTOS_1,
        ClientSpec("pixels@voc_animals", "photo_segformer_medium", 90),
        ClientSpec("pixels@voc_animals", "photo_segformer_medium", 90),
        ClientSpec("text@ag_news_excerpt", "photo_bert_small", 800),
        ClientSpec("text@trec", "photo_distilbert_small", 800),
    ),
    "paper1": PAPER_1,
    "paper2": (
        *with_sizes(PAPER_1, 200, 200, 200),
        ClientSpec("pixels@voc", "segformer_b2", 200),
        ClientSpec("pixels@voc", "segformer_b0", 200),
        ClientSpec("text@ag_news", "bert_base", 5000),
        ClientSpec("text@ag_news", "distilbert_base", 5000),
    ),
    "paper_noniid": (                                                         # four tasks, three clients each
        ClientSpec("labels@voc", "vit_base", 400),
        ClientSpec("labels@voc", "segformer_b2", 400),
        ClientSpec("labels@voc", "segformer_b0", 400),
        ClientSpec("class@cifar100", "vit_base", 5000),
        ClientSpec("class@cifar100", "segformer_b2", 5000),
        ClientSpec("class@cifar100", "segformer_b0", 5000),
        ClientSpec("class@cifar10", "vit_base", 5000),
        ClientSpec("class@cifar10", "segformer_b2", 5000),
        ClientSpec("class@cifar10", "segformer_b0", 5000),
        ClientSpec("pixels@voc", "segformer_b2", 200),
        ClientSpec("pixels@voc", "segformer_b2", 200),
        ClientSpec("pixels@voc", "segformer_b0", 200),
    ),
}
PAPER_SETUPS = {"setup1": "paper1", "setup2": "paper2", "noniid": "paper_noniid"}     # what profile "paper" plays instead

# What a setup needs beside its clients; every other setting has the default of `Settings`.
CAPTIONED = {"public_domain": "pairs", "rounds": 10}
# M = 3, B = 32, d = 256, the temperatures and rank 16 are the paper's, all else ours; the paper has 5,000 public samples, which
# VOC's training photos do not give beside three clients of theirs.
PAPER_SCALE = {"num_peers": 3, "batch_size": 32, "dim": 256, "tau": 0.2, "tau_prev": 0.15, "lora_rank": 16, "public_size": 3000,
               "adaptation": "lora", "rounds": 20, "local_lr": 3e-4, "contrastive_lr": 1e-4, "local_batch_size": 32,
               "image_size": 224, "precision": "bfloat16", "micro_batch_size": 32, "offload": True, "validation_size": 1000,
               "test_size": 10000}
SETUP_SETTINGS = {"setup2": CAPTIONED, "images_only": CAPTIONED, "one_text": CAPTIONED, "texts_only": CAPTIONED,
                  "noniid": {"rounds": 10}, **dict.fromkeys(MFED_SETUPS, {"validation_size": 200}),
                  "photos1": {"public_domain": "public_unlabeled_tiny"},
                  "photos2": {"public_domain": "coco_small", "public_size": 320},
                  "paper1": {"public_domain": "voc", **PAPER_SCALE},
                  "paper2": {"public_domain": "flickr30k", **PAPER_SCALE},
                  "paper_noniid": {"public_domain": "voc", **PAPER_SCALE}}

# Setups that take over what was tuned for another.
TUNED_AS = {"noniid": "setup1", "clients12": "setup1", "clients24": "setup1", "one_kind": "setup1", "two_kinds": "setup1",
            "photos2": "photos1", "images_only": "setup2", "one_text": "setup2", "texts_only": "setup2",
            **{f"tasks{count}": "mfed_dense" for count in TASK_COUNTS if count != 4}}

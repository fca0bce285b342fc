"""Who takes part: the clients of each setup, their tasks, backbones and private sets."""

from typing import NamedTuple


class ClientSpec(NamedTuple):
    """`task`: a name of `tasks.TASKS`; `backbone`: a folder of `data/backbones` or a hub name; `train_size`: scenes."""

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
MFED_SETUPS = {"mfed_dense": with_tasks(DENSE_SIZES), "mfed_labels": with_tasks(LABEL_SIZES)}
MFED_SETUPS |= {f"tasks{count}": with_tasks(dict(list(EIGHT_TASKS.items())[:count])) for count in range(1, 9) if count != 4}
SETUPS |= MFED_SETUPS                                                         # clients of a task start from the same weights

# What a setup needs beside its clients; every other setting has the default of `Settings`.
CAPTIONED = {"public_domain": "pairs", "rounds": 10}
SETUP_SETTINGS = {"setup2": CAPTIONED, "images_only": CAPTIONED, "one_text": CAPTIONED, "texts_only": CAPTIONED,
                  "noniid": {"rounds": 10}, **dict.fromkeys(MFED_SETUPS, {"validation_size": 200})}

# Setups that take over what was tuned for another.
TUNED_AS = {"noniid": "setup1", "clients12": "setup1", "clients24": "setup1", "one_kind": "setup1", "two_kinds": "setup1",
            "images_only": "setup2", "one_text": "setup2", "texts_only": "setup2",
            **{f"tasks{count}": "mfed_dense" for count in range(1, 9) if count != 4}}

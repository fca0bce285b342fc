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
    "quickstart": (                                                           # clients 1, 5 and 6 of Setup 1
        ClientSpec("mlc", "resnet_medium", 800),
        ClientSpec("ic100", "vit_small", 400),
        ClientSpec("ic10", "resnet_small", 40),
    ),
}

# What a setup needs beside its clients; every other setting has the default of `Settings`.
SETUP_SETTINGS = {"setup2": {"public_domain": "pairs", "rounds": 10}}

"""Who takes part: the clients of each setup, their tasks, backbones and private sets."""

from typing import NamedTuple


class ClientSpec(NamedTuple):
    """`task`: a name of `tasks.TASKS`; `backbone`: a folder of `data/backbones` or a hub name; `train_size`: scenes."""

    task: str
    backbone: str
    train_size: int


SETUPS = {
    "setup1": (
        ClientSpec("mlc", "resnet_medium", 800),
        ClientSpec("mlc", "segformer_medium", 800),
        ClientSpec("mlc", "vit_medium", 800),
        ClientSpec("ic100", "segformer_medium", 400),
        ClientSpec("ic100", "vit_small", 400),
        ClientSpec("ic10", "resnet_small", 40),
    ),
    "quickstart": (                                                           # clients 1, 5 and 6 of Setup 1
        ClientSpec("mlc", "resnet_medium", 800),
        ClientSpec("ic100", "vit_small", 400),
        ClientSpec("ic10", "resnet_small", 40),
    ),
}

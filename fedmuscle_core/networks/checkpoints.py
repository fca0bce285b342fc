"""The pretrained checkpoints of the paper profile: hub name, pinned revision, architecture.

Which sizes the papers gave to which clients was not found: the choice is ours.  The revisions are those that public projects
pin and that have their weights as safetensors: of NVIDIA's models, the hub's own conversion.  `FEDMUSCLE_CHECKPOINTS` names a
folder of local copies (`save_pretrained`), one folder a name of `CHECKPOINTS`.
"""

from typing import NamedTuple

from transformers import BertConfig, DistilBertConfig, PretrainedConfig, SegformerConfig, ViTConfig


class Checkpoint(NamedTuple):
    """config: the architecture, for estimates without a download.  imagenet: whether pixels have ImageNet's statistics."""

    hub: str
    revision: str
    config: PretrainedConfig
    imagenet: bool = False
    licence: str = "Apache-2.0"


def segformer(depths, widths):
    """A mix transformer of the SegFormer paper."""
    return SegformerConfig(depths=depths, hidden_sizes=widths)


NVIDIA = "NVIDIA Source Code License for SegFormer: no commercial use"
CHECKPOINTS = {
    "vit_base": Checkpoint("google/vit-base-patch16-224-in21k", "b4569560a39a0f1af58e3ddaf17facf20ab919b0", ViTConfig()),
    "segformer_b0": Checkpoint("nvidia/mit-b0", "25ce79d97e6d9d509ed12e17cb2eb89b0a83a2dc",
                               segformer([2, 2, 2, 2], [32, 64, 160, 256]), True, NVIDIA),
    "segformer_b2": Checkpoint("nvidia/mit-b2", "d15ed1f9ae92346f6a6067dbb490a62494ae0d28",
                               segformer([3, 4, 6, 3], [64, 128, 320, 512]), True, NVIDIA),
    "bert_base": Checkpoint("google-bert/bert-base-uncased", "86b5e0934494bd15c9632b12f734a8a67f723594", BertConfig()),
    "distilbert_base": Checkpoint("distilbert/distilbert-base-uncased", "12040accade4e8a0f71eabdb258fecc2e7e948be",
                                  DistilBertConfig()),
}

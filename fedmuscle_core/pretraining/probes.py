"""How much of real photos and texts a network reads before any training: `python -m fedmuscle_core.pretraining.probes`.

Linear probes: logistic regression on the features that a client's projection reads, fitted on LABELS samples of a source's
pool, scored on its validation part; for each network of `networks.packaged` and the small ones of printed letters, beside the
same architecture untrained.  Goes to `networks/pretrained/probe_real.csv`.
"""

import argparse

import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoModel

from ..experiments.build import read
from ..experiments.store import write_atomically
from ..network import in_batches
from ..networks.backbones import backbone_digest, load_backbone, pixels_of
from ..networks.client_network import RepresentationModel, TextRepresentationModel, num_parameters
from ..networks.packaged import PACKAGED
from ..paths import BACKBONES
from ..seeds import generator, seeded
from ..world.real.sources import SIDE
from ..world.real.splits import split_rows, task_samples
from ..world.tasks import task_named
from ..world.worlds import Pairs
from .images import CONFIGS

LABELS, SEED = 1500, 0
TASKS = {"images": ("class@cifar10_excerpt", "class@cifar100_excerpt"), "texts": ("text@ag_news_excerpt", "text@trec")}
NETWORKS = {name: entry.reads for name, entry in PACKAGED.items()} | dict.fromkeys(CONFIGS, "images")
TABLE = BACKBONES / "probe_real.csv"


def probe(name, backbone, reads, labels=LABELS):
    """{source: accuracy in [0, 1]} of a backbone that reads "images" or "texts"."""
    make, found = {"images": RepresentationModel, "texts": TextRepresentationModel}[reads], {}
    network = make(backbone.eval(), 1, pixels_of(name, SIDE))
    for task in map(task_named, TASKS[reads]):
        rows = split_rows(task.source)
        pool = rows["pool"][torch.randperm(len(rows["pool"]), generator=generator(SEED, "probe", task.source))[:labels]]
        features, wanted = {}, {}
        for part, chosen in (("fitted", pool), ("scored", rows["validation"])):
            samples, wanted[part] = task_samples(task, chosen)
            features[part] = in_batches(lambda inputs: network.pool(network.features(inputs)),
                                        read(task, name, task.modality, Pairs(samples, samples)))
        classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
        classifier.fit(features["fitted"], wanted["fitted"])
        found[task.source] = classifier.score(features["scored"], wanted["scored"])
    return found


def probe_table(names=tuple(NETWORKS), labels=LABELS):
    """Write and return the scores of `probe`, a row a network, weights and source."""
    rows = []
    for name in names:
        trained = load_backbone(name)
        with seeded(SEED, "probe", name):
            untrained = AutoModel.from_config(trained.config)
        for weights, backbone in (("pretrained", trained), ("untrained", untrained)):
            head = {"backbone": name, "digest": backbone_digest(name), "weights": weights,
                    "parameters": num_parameters(backbone), "labels": labels}
            rows += [{**head, "source": source, "accuracy": round(value, 4)}
                     for source, value in probe(name, backbone, NETWORKS[name], labels).items()]
    table = pd.DataFrame(rows)
    write_atomically(TABLE, table.to_csv(index=False, lineterminator="\n"))
    return table


def main(argv=None):
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)
    print(probe_table().to_string(index=False))


if __name__ == "__main__":
    main()

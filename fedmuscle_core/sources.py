"""The real data sets: what they are, where they come from, under which terms, how big; and how `layouts` reads them.

`fedmuscle data` shows this table, fetches and checks.  A folder named as a source that already lies in the data folder serves
as well, whoever put it there: that is how excerpts and data of one's own are used.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import layouts
from .checks import one_of
from .paths import DATA


class File(NamedTuple):
    """One file to download: its address, size in bytes, MD5 sum."""

    url: str
    size: int
    md5: str


class Source(NamedTuple):
    """`read(folder)` -> a `layouts` table; num_classes: of its labels, None where it has none.  Without `files` the terms allow
    no direct download: `terms` says where to ask."""

    about: str
    terms: str
    read: Callable
    num_classes: int | None = None
    files: tuple[File, ...] = ()


TORONTO, COCO = "https://www.cs.toronto.edu/~kriz", "http://images.cocodataset.org"
AG_NEWS = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"

SOURCES = {
    "cifar10": Source("CIFAR-10, 60,000 photos of 32x32, 10 classes", "none stated", layouts.image_folder, 10, (
        File(f"{TORONTO}/cifar-10-python.tar.gz", 170_498_071, "c58f30108f718f92721af3b95e74349a"),)),
    "cifar100": Source("CIFAR-100, 60,000 photos of 32x32, 100 classes", "none stated", layouts.image_folder, 100, (
        File(f"{TORONTO}/cifar-100-python.tar.gz", 169_001_437, "eb9058c3a382ffc7106e4002c42a8d85"),)),
    "voc": Source("Pascal VOC 2012, photos with masks and 20 labels", "photos: Flickr terms", layouts.voc, 20, (
        File("https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar", 1_999_639_040,
             "6cd6e144f989b92b3379bac3b3de84fd"),)),
    "coco": Source("COCO 2017 (val), 5,000 photos with five captions each", "annotations CC BY 4.0; photos: Flickr terms",
                   layouts.coco_captions, None, (
        File(f"{COCO}/zips/val2017.zip", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
        File(f"{COCO}/annotations/annotations_trainval2017.zip", 252_907_541, "f4bbac642086de4f52a3fdda2de5fa2c"))),
    "flickr30k": Source("Flickr30K, 31,783 photos with five captions each",
                        "for research, on request: https://shannon.cs.illinois.edu/DenotationGraph", layouts.flickr_captions),
    "ag_news": Source("AG News, 127,600 articles, 4 classes", "research only", layouts.ag_news, 4, (
        File(f"{AG_NEWS}/train.csv", 29_470_338, "b1a00f826fdfbd249f79597b59e1dc12"),
        File(f"{AG_NEWS}/test.csv", 1_857_427, "d52ea96a97a2d943681189a97654912d"))),
    "photos": Source("any photos without labels, as public data", "put your own there", layouts.flat_folder),
}


def data_folder():
    """Where real data lie: the environment variable FEDMUSCLE_DATA, or data/raw (not under version control)."""
    return Path(os.environ.get("FEDMUSCLE_DATA") or DATA / "raw")


def source_folder(name):
    """The folder of a source, there or not; ValueError for an unknown name."""
    return data_folder() / one_of("source", name, SOURCES)


def read_source(name):
    """The `layouts` table of a source; ValueError, with the command that fetches it, where its folder is missing."""
    folder = source_folder(name)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; `fedmuscle data fetch {name}` gets it, or set FEDMUSCLE_DATA to a folder "
                         f"that has {name!r}")
    return SOURCES[name].read(folder)

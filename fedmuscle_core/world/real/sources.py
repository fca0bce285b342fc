"""The real data sets: what they are, where they come from, under which terms, how big; and how `layouts` reads them.

`fedmuscle data` shows this table, fetches and checks.  A folder named as a source that already lies in the data folder serves
as well, whoever put it there.  Data of one's own, in any of `READERS`, take a role by a file sources.toml in the data folder:

    [cifar10]                      # this role of the setups, or any other name
    folder = "/photos/birds"       # or relative to the file
    layout = "image_folder"
    classes = 12                   # of its labels; left out where it has none
"""

import os
import tomllib
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

from ...checks import one_of
from ...paths import DATA
from . import layouts


class File(NamedTuple):
    """One file to download: its address, size in bytes, MD5 sum."""

    url: str
    size: int
    md5: str


class Source(NamedTuple):
    """`read(folder)` -> a `layouts` table; num_classes: of its labels, None where it has none.  Without `files` the terms allow
    no direct download: `terms` says where to ask.

    folder: in the data folder, its name if empty.  size: side of its photos as they are kept.  test: the split that scores are
    of, none if empty.  reserved: share of the train split that backbones are pretrained on and clients never get.
    """

    about: str
    terms: str
    read: Callable
    num_classes: int | None = None
    files: tuple[File, ...] = ()
    folder: str = ""
    size: int = 224
    test: str = "test"
    reserved: float = 0.0


TORONTO, COCO = "https://www.cs.toronto.edu/~kriz", "http://images.cocodataset.org"
AG_NEWS = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"
TREC = partial(layouts.labelled_lines, train="TREC.train.all", test="TREC.test.all", num_classes=6)
READERS = {"image_folder": layouts.image_folder, "flat_folder": layouts.flat_folder, "voc": layouts.voc, "coco": layouts.coco,
           "flickr_captions": layouts.flickr_captions, "ag_news": layouts.ag_news, "csv": layouts.csv_table}

SOURCES = {
    "cifar10": Source("CIFAR-10, 60,000 photos of 32x32, 10 classes", "none stated", layouts.image_folder, 10, (
        File(f"{TORONTO}/cifar-10-python.tar.gz", 170_498_071, "c58f30108f718f92721af3b95e74349a"),), size=32),
    "cifar100": Source("CIFAR-100, 60,000 photos of 32x32, 100 classes", "none stated", layouts.image_folder, 100, (
        File(f"{TORONTO}/cifar-100-python.tar.gz", 169_001_437, "eb9058c3a382ffc7106e4002c42a8d85"),), size=32),
    "voc": Source("Pascal VOC 2012, photos with masks and 20 labels", "photos: Flickr terms", layouts.voc, 20, (
        File("https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar", 1_999_639_040,
             "6cd6e144f989b92b3379bac3b3de84fd"),), test="val"),
    "coco": Source("COCO 2017 (val), 5,000 photos with five captions each", "annotations CC BY 4.0; photos: Flickr terms",
                   layouts.coco, 80, (
        File(f"{COCO}/zips/val2017.zip", 815_585_330, "442b8da7639aecaf257c1dceb8ba8c80"),
        File(f"{COCO}/annotations/annotations_trainval2017.zip", 252_907_541, "f4bbac642086de4f52a3fdda2de5fa2c")), test="val"),
    "flickr30k": Source("Flickr30K, 31,783 photos with five captions each",
                        "for research, on request: https://shannon.cs.illinois.edu/DenotationGraph", layouts.flickr_captions),
    "ag_news": Source("AG News, 127,600 articles, 4 classes", "research only", layouts.ag_news, 4, (
        File(f"{AG_NEWS}/train.csv", 29_470_338, "b1a00f826fdfbd249f79597b59e1dc12"),
        File(f"{AG_NEWS}/test.csv", 1_857_427, "d52ea96a97a2d943681189a97654912d"))),
    "photos": Source("any photos without labels, as public data", "put your own there", layouts.flat_folder),
}

# Excerpts: small parts of public data sets, for notebook 15 and the tests of real data.
SOURCES |= {
    "cifar10_excerpt": SOURCES["cifar10"]._replace(about="10,000 photos of CIFAR-10", files=(), folder="cifar10", reserved=0.5),
    "cifar100_excerpt": SOURCES["cifar100"]._replace(about="10,000 photos of CIFAR-100, a split of their own", files=(),
                                                     folder="cifar100", reserved=0.5),
    "voc_animals": SOURCES["voc"]._replace(about="900 photos of Pascal VOC 2012, mostly animals", files=(), size=32),
    "coco_small": SOURCES["coco"]._replace(about="363 captioned photos of COCO 2017", num_classes=None, files=(), size=32,
                                           test=""),
    "public_unlabeled_tiny": Source("2,000 photos of Tiny ImageNet without labels", "ImageNet terms", layouts.flat_folder,
                                    size=32),
    "ag_news_excerpt": SOURCES["ag_news"]._replace(about="12,599 articles of AG News", files=(), folder="text/ag_news",
                                                   reserved=0.5),
    "trec": Source("TREC questions, 5,952, 6 classes", "academic", TREC, 6, folder="text/trec", reserved=0.5),
}


def data_folder():
    """Where real data lie: the environment variable FEDMUSCLE_DATA, or data/raw (not under version control)."""
    return Path(os.environ.get("FEDMUSCLE_DATA") or DATA / "raw")


def sources():
    """{name: Source}: those of this file, with what the data folder's sources.toml puts in their place or beside them.

    Raises ValueError naming the file and the entry that is not as the head of this module says.
    """
    path = data_folder() / "sources.toml"
    if not path.is_file():
        return SOURCES
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: not TOML ({error})") from error
    return SOURCES | {name: _local(name, entry, path) for name, entry in content.items()}


def _local(name, entry, path):
    known = {"folder": str, "layout": str, "classes": int, "size": int, "test": str}
    wrong = [key for key, value in entry.items() if not isinstance(value, known.get(key, ()))]
    if wrong or not {"folder", "layout"} <= set(entry):
        raise ValueError(f"{path}: [{name}]: got {entry}, expected folder and layout, and any of classes, size, test")
    read = READERS[one_of(f"{path}: [{name}]: layout", entry["layout"], READERS)]
    before = SOURCES.get(name, SOURCES["photos"]._replace(test="val" if entry["layout"] in ("voc", "coco") else "test"))
    return before._replace(about=f"local data in the layout {entry['layout']}", terms="your own", read=read, files=(),
                           num_classes=entry.get("classes"), folder=str(path.parent / entry["folder"]),
                           size=entry.get("size", before.size), test=entry.get("test", before.test))


def source_named(name):
    """The source of that name; ValueError for an unknown one."""
    found = sources()
    return found[one_of("source", name, found)]


def source_folder(name):
    """The folder of a source, there or not; ValueError for an unknown name."""
    return data_folder() / (source_named(name).folder or name)


def read_source(name):
    """The `layouts` table of a source; ValueError, with the command that fetches it, where its folder is missing."""
    folder = source_folder(name)
    if not folder.is_dir():
        hint = f"`fedmuscle data fetch {name}` gets it, or " if source_named(name).files else ""
        raise ValueError(f"{folder}: no such folder; {hint}set FEDMUSCLE_DATA to a folder that has {name!r}")
    return source_named(name).read(folder)


@lru_cache(maxsize=16)
def _read(name, folder):
    return read_source(name)


def source_table(name):
    """As `read_source`, read once."""
    return _read(name, str(source_folder(name)))

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

from ...paths import DATA
from . import layouts


class File(NamedTuple):
    """One file to download: its address, size in bytes, SHA-256."""

    url: str
    size: int
    sha256: str


class Source(NamedTuple):
    """`read(folder)` -> a `layouts` table; num_classes: of its labels, None where it has none.  Without `files` the terms allow
    no direct download: `terms` says where to ask.

    folder: in the data folder, its name if empty.  size: side of its photos as they are kept.  test: the split that scores are
    of, none if empty; test_share: of its samples that are set apart for scores where it has no such split.  least: of several
    labels a photo, those that fewer photos of the test split have do not count in a score, nor does the overlap of their pixels
    (our choice).
    """

    about: str
    terms: str
    read: Callable
    num_classes: int | None = None
    files: tuple[File, ...] = ()
    folder: str = ""
    size: int = 224
    test: str = "test"
    test_share: float = 0.0
    least: int = 0


TORONTO = "https://www.cs.toronto.edu/~kriz"
COCO = "https://s3.amazonaws.com/images.cocodataset.org"     # the bucket behind images.cocodataset.org, whose name has no TLS
AG_NEWS = "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv"
TREC = partial(layouts.labelled_lines, train="TREC.train.all", test="TREC.test.all", num_classes=6)
READERS = {"image_folder": layouts.image_folder, "flat_folder": layouts.flat_folder, "voc": layouts.voc, "coco": layouts.coco,
           "flickr_captions": layouts.flickr_captions, "ag_news": layouts.ag_news, "csv": layouts.csv_table}

SOURCES = {
    "cifar10": Source("CIFAR-10, 60,000 photos of 32x32, 10 classes", "none stated", layouts.image_folder, 10, (
        File(f"{TORONTO}/cifar-10-python.tar.gz", 170_498_071,
             "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"),), size=32),
    "cifar100": Source("CIFAR-100, 60,000 photos of 32x32, 100 classes", "none stated", layouts.image_folder, 100, (
        File(f"{TORONTO}/cifar-100-python.tar.gz", 169_001_437,
             "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7"),), size=32),
    "voc": Source("Pascal VOC 2012, photos with masks and 20 labels", "photos: Flickr terms", layouts.voc, 20, (
        File("https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar", 1_999_639_040,
             "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb"),), test="val"),
    "coco": Source("COCO 2017 (val), 5,000 photos with five captions each", "annotations CC BY 4.0; photos: Flickr terms",
                   layouts.coco, 80, (
        File(f"{COCO}/zips/val2017.zip", 815_585_330, "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05"),
        File(f"{COCO}/annotations/annotations_trainval2017.zip", 252_907_541,
             "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268")), test="val"),
    "flickr30k": Source("Flickr30K, 31,783 photos with five captions each",
                        "for research, on request: https://shannon.cs.illinois.edu/DenotationGraph", layouts.flickr_captions),
    "ag_news": Source("AG News, 127,600 articles, 4 classes", "research only", layouts.ag_news, 4, (
        File(f"{AG_NEWS}/train.csv", 29_470_338, "76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e"),
        File(f"{AG_NEWS}/test.csv", 1_857_427, "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699"))),
    "photos": Source("any photos without labels, as public data", "put your own there", layouts.flat_folder),
}

# Excerpts: small parts of public data sets, for notebooks 15 and 17 and the tests of real data.
SIDE = 98                                             # 7 x 14: the ViT has patches of 14 pixels
SOURCES |= {
    "cifar10_excerpt": SOURCES["cifar10"]._replace(about="10,000 photos of CIFAR-10", files=(), folder="cifar10"),
    "cifar100_excerpt": SOURCES["cifar100"]._replace(about="10,000 photos of CIFAR-100, a split of their own", files=(),
                                                     folder="cifar100"),
    "voc_animals": SOURCES["voc"]._replace(about="900 photos of Pascal VOC 2012, mostly animals", files=(), size=SIDE,
                                           least=15),
    "coco_small": SOURCES["coco"]._replace(about="363 captioned photos of COCO 2017", num_classes=None, files=(), size=SIDE,
                                           test=""),
    "flickr8k": Source("1,000 photos of Flickr8k with five captions each", "research and education only",
                       layouts.flickr_captions, folder="flickr8k_1000", size=SIDE),
    "flickr8k_pairs": Source("the same, a part of it for scores of retrieval", "research and education only",
                             layouts.flickr_captions, folder="flickr8k_1000", size=SIDE, test_share=0.3),
    "coco_pairs": SOURCES["coco"]._replace(
        about="the 363 of COCO 2017, a part of them for scores of retrieval", num_classes=None, files=(), folder="coco_small",
        size=SIDE, test="", test_share=0.3),
    "tiny_imagenet": Source("2,000 photos of Tiny ImageNet without labels", "ImageNet terms", layouts.flat_folder,
                            folder="public_unlabeled_tiny", size=64),
    "imagenet": Source("1,000 photos of ImageNet, one a class, without labels", "ImageNet terms", layouts.flat_folder,
                       folder="public_unlabeled_imagenet1000", size=SIDE),
    "ag_news_excerpt": SOURCES["ag_news"]._replace(about="12,599 articles of AG News", files=(), folder="text/ag_news"),
    "trec": Source("TREC questions, 5,952, 6 classes", "academic", TREC, 6, folder="text/trec"),
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
    except ValueError as error:                                               # neither TOML nor UTF-8
        raise ValueError(f"{path}: not TOML ({error})") from error
    return SOURCES | {name: _local(name, entry, path) for name, entry in content.items()}


def _local(name, entry, path):
    known = {"folder": str, "layout": str, "classes": int, "size": int, "test": str}
    if not isinstance(entry, dict):
        raise ValueError(f"{path}: got {name} = {entry!r}, expected a table [{name}] with folder and layout")
    wrong = [key for key, value in entry.items() if type(value) is not known.get(key) or type(value) is int and value < 1]
    if wrong or not {"folder", "layout"} <= set(entry):
        raise ValueError(f"{path}: [{name}]: got {entry}, expected folder and layout, and any of classes, size, test")
    if entry["layout"] not in READERS:
        raise ValueError(f"{path}: [{name}]: layout: got {entry['layout']!r}, expected one of {tuple(READERS)}")
    read = READERS[entry["layout"]]
    before = SOURCES.get(name, SOURCES["photos"]._replace(test="val" if entry["layout"] in ("voc", "coco") else "test"))
    return before._replace(about=f"local data in the layout {entry['layout']}", terms="your own", read=read, files=(),
                           num_classes=entry.get("classes"), folder=str(path.parent / entry["folder"]),
                           size=entry.get("size", before.size), test=entry.get("test", before.test))


def source_named(name):
    """The source of that name; ValueError for an unknown one."""
    found = sources()
    if name not in found:
        raise ValueError(f"source: got {name!r}, expected one of {tuple(found)}")
    return found[name]


def source_folder(name):
    """The folder of a source, there or not; ValueError for an unknown name."""
    return data_folder() / (source_named(name).folder or name)


def read_source(name):
    """The `layouts` table of a source; ValueError, with the command that fetches it, where its folder is missing."""
    folder = source_folder(name)
    if not folder.is_dir():
        hint = f"`fedmuscle data fetch {name}` gets it, or " if source_named(name).files else ""
        raise ValueError(f"{folder}: no such folder; {hint}set FEDMUSCLE_DATA to a folder that has {name!r}")
    table = source_named(name).read(folder)
    if table.empty:
        raise ValueError(f"{folder}: got no sample, expected some")
    table.attrs["folder"] = str(folder)
    return table


@lru_cache(maxsize=16)
def _read(name, folder):
    return read_source(name)


def source_table(name):
    """As `read_source`, read once."""
    return _read(name, str(source_folder(name)))

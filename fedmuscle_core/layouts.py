"""Real data in the layouts they come in, as tables: one row a sample, nothing opened yet.

Every reader returns a DataFrame with the columns COLUMNS.  split: "train", "val" or "test", as the folder names it.  image,
mask: paths, None where a sample has none.  label: a class, a tuple of 0 and 1, or None.  texts: a tuple, empty where there are
none.  Its `attrs["classes"]` names the classes.  Samples are in a fixed order.  A file or folder that is missing, or holds
what it should not, is a ValueError that names it.
"""

import json
from pathlib import Path

import pandas as pd
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

COLUMNS = ["split", "image", "mask", "label", "texts"]
VOC_CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
               "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")

AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")


def image_folder(folder):
    """`folder`/<split>/<class>/*: one class a sample."""
    names = [split for split in ("train", "val", "test") if (_there(folder) / split).is_dir()]
    splits = {split: ImageFolder(Path(folder) / split) for split in names}
    if not splits:
        raise ValueError(f"{folder}: got no folder train, val or test, expected <split>/<class>/<image>")
    classes = {split: tuple(found.classes) for split, found in splits.items()}
    if len(set(classes.values())) > 1:
        raise ValueError(f"{folder}: got other classes in {list(classes)}, expected the same in every split")
    rows = [(split, Path(path), None, label, ()) for split, found in splits.items() for path, label in found.samples]
    return _table(rows, next(iter(classes.values())))


def flat_folder(folder):
    """Every image below `folder`, without labels: public data.  All are "train"."""
    paths = sorted(path for path in _there(folder).rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if not paths:
        raise ValueError(f"{folder}: got no image, expected some of {IMG_EXTENSIONS}")
    return _table([("train", path, None, None, ()) for path in paths], ())


def voc(folder, year="2012"):
    """`folder`/VOCdevkit/VOC<year>: photos with masks and which of the 20 classes occur.

    Photos and splits of ImageSets/Segmentation; labels of ImageSets/Main/<class>_<split>.txt, 1 where a class occurs, or of a
    file multilabel.csv (image, split, one column a class) beside VOCdevkit.
    """
    base = _there(Path(folder) / "VOCdevkit" / f"VOC{year}")
    labels, rows = _voc_labels(Path(folder), base), []
    for split in ("train", "val"):
        for name in _lines(base / "ImageSets" / "Segmentation" / f"{split}.txt"):
            if name not in labels:
                raise ValueError(f"{base}: got no label of photo {name!r}, expected one of every photo of the split {split}")
            files = base / "JPEGImages" / f"{name}.jpg", base / "SegmentationClass" / f"{name}.png"
            rows.append((split, *files, labels[name], ()))
    return _table(rows, VOC_CLASSES)


def _voc_labels(folder, base):
    """{photo: tuple of 20 numbers, 0 or 1}."""
    if (folder / "multilabel.csv").is_file():
        table = pd.read_csv(folder / "multilabel.csv", dtype={"image": str}).set_index("image")
        return {row[0]: row[1:] for row in table[list(VOC_CLASSES)].itertuples(name=None)}
    found = {}
    for place, name in enumerate(VOC_CLASSES):
        for split in ("train", "val"):
            for line in _lines(base / "ImageSets" / "Main" / f"{name}_{split}.txt"):
                photo, occurs = line.split()
                found.setdefault(photo, [0] * len(VOC_CLASSES))[place] = int(occurs == "1")
    return {photo: tuple(values) for photo, values in found.items()}


def coco_captions(folder):
    """`folder`/annotations/captions_<split>2017.json and images/<split>2017 or <split>2017: photos with their captions, of the
    splits whose photos are there."""
    rows = []
    for split in ("train", "val"):
        places = _there(folder) / "images" / f"{split}2017", Path(folder) / f"{split}2017"
        photos = next(filter(Path.is_dir, places), None)
        if photos is None:
            continue
        path = Path(folder) / "annotations" / f"captions_{split}2017.json"
        content = _json(path, ("images", "annotations"))
        names, texts = {image["id"]: image["file_name"] for image in content["images"]}, {}
        for annotation in content["annotations"]:
            if annotation["image_id"] not in names:
                raise ValueError(f"{path}: got a caption (id {annotation['id']}) without image {annotation['image_id']}, "
                                 "expected one that `images` lists")
            texts.setdefault(annotation["image_id"], []).append(annotation["caption"].strip())
        rows += [(split, photos / names[index], None, None, tuple(texts[index])) for index in sorted(texts)]
    if not rows:
        raise ValueError(f"{folder}: got no captioned photo, expected a folder train2017 or val2017, or images with one of "
                         "them, and its annotations/captions_<split>2017.json")
    return _table(rows, ())


def flickr_captions(folder):
    """`folder`/results.csv (image_name| comment_number| comment) and flickr30k_images/: photos with captions, all "train"."""
    path = Path(folder) / "results.csv"
    table = pd.read_csv(_file(path), sep="|", skipinitialspace=True, dtype=str)
    table.columns = [name.strip() for name in table.columns]
    if missing := {"image_name", "comment"} - set(table.columns):
        raise ValueError(f"{path}: got columns {list(table.columns)}, expected also {sorted(missing)}")
    captions = table.dropna(subset="comment").groupby("image_name")["comment"]
    texts = captions.apply(lambda found: tuple(text.strip() for text in found))
    return _table([("train", Path(folder) / "flickr30k_images" / name, None, None, found) for name, found in texts.items()], ())


def ag_news(folder):
    """`folder`/train*.csv and test.csv, rows "class","title"[,"description"], with classes 1 to 4."""
    classes, rows = AG_NEWS_CLASSES, []
    for split in ("train", "test"):
        path = next(iter(sorted(_there(folder).glob(f"{split}*.csv"))), Path(folder) / f"{split}.csv")
        table = pd.read_csv(_file(path), header=None, dtype=str, keep_default_na=False)
        for place, row in enumerate(table.itertuples(index=False), 1):
            rows.append((split, None, None, _class(path, place, row[0], len(classes), first=1), (" ".join(row[1:]),)))
    return _table(rows, classes)


def labelled_lines(folder, train, test, num_classes):
    """Files `train` and `test` with lines "<class> <text>", classes from 0."""
    rows = []
    for split, name in (("train", train), ("test", test)):
        for place, line in enumerate(_lines(Path(folder) / name), 1):
            label, _, text = line.partition(" ")
            rows.append((split, None, None, _class(Path(folder) / name, place, label, num_classes, first=0), (text.strip(),)))
    return _table(rows, tuple(map(str, range(num_classes))))


def _class(path, line, given, count, first):
    if not given.strip().isdigit() or not first <= int(given) < first + count:
        raise ValueError(f"{path}, line {line}: got class {given!r}, expected {first} to {first + count - 1}")
    return int(given) - first


def _table(rows, classes):
    table = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
    table.attrs["classes"] = classes
    return table


def _there(folder):
    if not Path(folder).is_dir():
        raise ValueError(f"{folder}: no such folder")
    return Path(folder)


def _file(path):
    if not Path(path).is_file():
        raise ValueError(f"{path}: no such file")
    return Path(path)


def _lines(path):
    return [line for line in _file(path).read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]


def _json(path, keys):
    try:
        content = json.loads(_file(path).read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict) or (missing := [key for key in keys if key not in content]):
        raise ValueError(f"{path}: got no {missing if isinstance(content, dict) else 'object'}, expected the keys {list(keys)}")
    return content

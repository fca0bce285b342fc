"""Real data in the layouts they come in, as tables: one row a sample, nothing opened yet.

Every reader returns a DataFrame with the columns SAMPLE_COLUMNS.  split: "train", "val" or "test", as the folder names it.
image,
mask: paths, None where a sample has none.  label: a class, a tuple of 0 and 1, or None.  texts: a tuple, empty where there are
none.  Its `attrs["classes"]` names the classes.  Samples are in a fixed order.  A file or folder that is missing, or holds
what it should not, is a ValueError that names it.
"""

import io
import json
import warnings
from pathlib import Path

import pandas as pd

SAMPLE_COLUMNS = ["split", "image", "mask", "label", "texts"]
VOC_CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
               "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")

_ID = (int, str)
AG_NEWS_CLASSES = ("World", "Sports", "Business", "Sci/Tech")


def image_folder(folder):
    """`folder`/<split>/<class>/*: one class a sample."""
    from torchvision.datasets import ImageFolder  # takes seconds

    names = [split for split in ("train", "val", "test") if (_there(folder) / split).is_dir()]
    try:
        splits = {split: ImageFolder(Path(folder) / split) for split in names}
    except FileNotFoundError as error:                                        # a class without an image
        raise ValueError(f"{folder}: {error}") from error
    if not splits:
        raise ValueError(f"{folder}: got no folder train, val or test, expected <split>/<class>/<image>")
    for found in splits.values():
        places = {}
        for place in sorted({Path(path).parent for path, _ in found.samples}):
            if (other := places.setdefault(place.resolve(), place)) != place:
                raise ValueError(f"{place}: got a link to {other}, expected every folder once")
    classes = {split: tuple(found.classes) for split, found in splits.items()}
    if len(set(classes.values())) > 1:
        raise ValueError(f"{folder}: got other classes in {list(classes)}, expected the same in every split")
    rows = [(split, Path(path), None, label, ()) for split, found in splits.items() for path, label in found.samples]
    return _table(rows, next(iter(classes.values())))


def flat_folder(folder):
    """Every image below `folder`, without labels: public data.  All are "train"."""
    from torchvision.datasets.folder import IMG_EXTENSIONS  # takes seconds

    paths = sorted(path for path in _there(folder).rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if not paths:
        raise ValueError(f"{folder}: got no image, expected some of {IMG_EXTENSIONS}")
    return _table([("train", path, None, None, ()) for path in paths], ())


def voc(folder, year="2012"):
    """`folder`/VOCdevkit/VOC<year>: photos with which of the 20 classes occur and, where there are any, masks.

    Labels of ImageSets/Main/<class>_<split>.txt, 1 where a class occurs, or of a file multilabel.csv (image, split, one column
    a class) beside VOCdevkit; masks of the photos that ImageSets/Segmentation lists, which have labels only where Main lists
    them, too.  A photo that either lists under val is "val".
    """
    base = _there(Path(folder) / "VOCdevkit" / f"VOC{year}")
    labels = _voc_labels(Path(folder), base)
    masked = {split: _lines(base / "ImageSets" / "Segmentation" / f"{split}.txt") for split in ("train", "val")}
    has_mask, found = {name for names in masked.values() for name in names}, labels["train"] | labels["val"]
    held = {*labels["val"], *masked["val"]}
    rows = []
    for split, names in (("train", ({*found} | has_mask) - held), ("val", held)):
        for name in sorted(names):
            mask = base / "SegmentationClass" / f"{name}.png" if name in has_mask else None
            rows.append((split, base / "JPEGImages" / f"{name}.jpg", mask, found.get(name), ()))
    return _table(rows, VOC_CLASSES)


def _voc_labels(folder, base):
    """{split: {photo: tuple of 20 numbers, 0 or 1}}."""
    found = {"train": {}, "val": {}}
    if (path := folder / "multilabel.csv").is_file():
        table, wanted = _csv(path, dtype={"image": str}), ["split", "image", *VOC_CLASSES]
        if missing := [name for name in wanted if name not in table.columns]:
            raise ValueError(f"{path}: got no columns {missing}, expected {wanted}")
        for place, (split, name, *row) in enumerate(table[wanted].itertuples(index=False, name=None), 2):
            if split not in found:
                raise ValueError(f"{path}: got split {split!r} of {name}, expected one of {tuple(found)}")
            if not set(row) <= {0, 1} or name in found["train"] | found["val"]:
                raise ValueError(f"{path}, line {place}: got {row} for {name}, expected 0 or 1 a class, and every photo once")
            found[split][name] = tuple(row)
        return found
    for place, name in enumerate(VOC_CLASSES):
        for split, labels in found.items():
            path = base / "ImageSets" / "Main" / f"{name}_{split}.txt"
            for number, line in _numbered(path):
                photo, *occurs = line.split()
                if occurs not in (["1"], ["0"], ["-1"]):
                    raise ValueError(f"{path}, line {number}: got {line!r}, expected a photo and 1, 0 or -1")
                labels.setdefault(photo, [0] * len(VOC_CLASSES))[place] = int(occurs == ["1"])
    return {split: {photo: tuple(values) for photo, values in labels.items()} for split, labels in found.items()}


def coco(folder):
    """`folder`/annotations and images/<split>2017 or <split>2017: photos with captions or labels, of the splits that have
    photos.

    captions_<split>2017.json names the photos, instances_<split>2017.json where there are no captions.  By the latter a
    photo's label is which of its categories occur, in the order of their ids; photos without an object have none.
    """
    rows, classes = [], ()
    for split in ("train", "val"):
        places = _there(folder) / "images" / f"{split}2017", Path(folder) / f"{split}2017"
        photos = next(filter(Path.is_dir, places), None)
        if photos is None:
            continue
        path, instances = (Path(folder) / "annotations" / f"{kind}_{split}2017.json" for kind in ("captions", "instances"))
        captioned = path.is_file() or not instances.is_file()
        content = _json(path if captioned else instances, ("images", "annotations"))
        names = _images(path if captioned else instances, content["images"])
        texts = {} if captioned else {index: () for index in names}
        wanted = {"id": _ID, "image_id": _ID, "caption": str}
        for annotation in _entries(path, "annotations", content["annotations"], wanted) if captioned else ():
            if annotation["image_id"] not in names:
                raise ValueError(f"{path}: got a caption (id {annotation['id']}) without image {annotation['image_id']}, "
                                 "expected one that `images` lists")
            texts.setdefault(annotation["image_id"], []).append(annotation["caption"].strip())
        classes, labels = _coco_labels(instances, classes, names)
        rows += [(split, photos / names[index], None, labels.get(index), tuple(texts[index])) for index in sorted(texts)]
    if not rows:
        raise ValueError(f"{folder}: got no annotated photo, expected a folder train2017 or val2017, or images with one of "
                         "them, and its annotations/captions_<split>2017.json or instances_<split>2017.json")
    return _table(rows, classes)


def _images(path, images):
    """{id: file name}."""
    names = {}
    for image in _entries(path, "images", images, {"id": _ID, "file_name": str}):
        if names.setdefault(image["id"], image["file_name"]) is not image["file_name"]:
            raise ValueError(f"{path}: got image {image['id']} twice, expected every id once")
    return names


def _coco_labels(path, classes, photos):
    """(names of the categories, {photo's id: tuple of 0 and 1}) of an instances file; (classes, {}) where it is not there."""
    if not path.is_file():
        return classes, {}
    content = _json(path, ("categories", "annotations"))
    categories = _entries(path, "categories", content["categories"], {"id": int, "name": str})
    names = {category["id"]: category["name"] for category in sorted(categories, key=lambda found: found["id"])}
    photos = photos.keys() | _images(path, content.get("images", [])).keys()
    place, found = {index: position for position, index in enumerate(names)}, {}
    for annotation in _entries(path, "annotations", content["annotations"], {"id": _ID, "image_id": _ID, "category_id": int}):
        if annotation["image_id"] not in photos:
            raise ValueError(f"{path}: got annotation {annotation['id']} without image {annotation['image_id']}, expected one "
                             "that `images` lists")
        if annotation["category_id"] not in place:
            raise ValueError(f"{path}: got category {annotation['category_id']} of annotation {annotation['id']}, expected one "
                             f"of {list(place)}")
        found.setdefault(annotation["image_id"], [0] * len(place))[place[annotation["category_id"]]] = 1
    return tuple(names.values()), {index: tuple(values) for index, values in found.items()}


def csv_table(folder):
    """`folder`/samples.csv: data of one's own.  Columns, each optional but the first: split; image and mask, paths in the
    folder; label, a class from 0, or several divided by spaces: which of the classes occur; text.

    `folder`/classes.txt names the classes, one a line; a label column needs it, several classes in any row make all rows
    multi-label.
    """
    path = Path(folder) / "samples.csv"
    table = _csv(path, dtype=str, keep_default_na=False)
    if "split" not in table.columns or set(table.columns) - {"split", "image", "mask", "label", "text"}:
        raise ValueError(f"{path}: got columns {list(table.columns)}, expected split and any of image, mask, label, text")
    classes = tuple(_lines(Path(folder) / "classes.txt")) if "label" in table.columns else ()
    several = "label" in table.columns and table["label"].str.split().str.len().gt(1).any()
    rows = []
    for place, row in enumerate(table.to_dict("records"), 2):
        if row["split"] not in ("train", "val", "test"):
            raise ValueError(f"{path}, line {place}: got split {row['split']!r}, expected train, val or test")
        given = [_class(path, place, text, len(classes), first=0) for text in row.get("label", "").split()]
        label = (given or [None])[0]
        if several and given:
            label = tuple(int(index in given) for index in range(len(classes)))
        files = [Path(folder) / row[name] if row.get(name) else None for name in ("image", "mask")]
        rows.append((row["split"], *files, label, (row["text"],) if row.get("text") else ()))
    return _table(rows, classes)


def flickr_captions(folder):
    """Photos with captions, all "train": `folder`/flickr30k-images/ and results_20130124.token (name#number, tab, caption), as
    the authors give them away, or flickr30k_images/ and results.csv (image_name| comment_number| comment)."""
    official = _there(folder) / "results_20130124.token"
    if official.is_file():
        texts = {}
        for place, line in _numbered(official):
            name, found, text = line.partition("\t")
            if not found:
                raise ValueError(f"{official}, line {place}: got {line!r}, expected name#number, a tab, a caption")
            texts.setdefault(name.rpartition("#")[0], []).append(text.strip())
        photos = Path(folder) / "flickr30k-images"
        return _table([("train", photos / name, None, None, tuple(texts[name])) for name in sorted(texts)], ())
    path = Path(folder) / "results.csv"
    table = _csv(path, sep="|", skipinitialspace=True, dtype=str)
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
        table = _csv(path, header=None, dtype=str, keep_default_na=False)
        for place, row in enumerate(table.itertuples(index=False), 1):
            if not "".join(row[1:]).strip():
                raise ValueError(f"{path}, line {place}: got no text, expected one after the class")
            rows.append((split, None, None, _class(path, place, row[0], len(classes), first=1), (" ".join(row[1:]),)))
    return _table(rows, classes)


def labelled_lines(folder, train, test, num_classes):
    """Files `train` and `test` with lines "<class> <text>", classes from 0."""
    rows = []
    for split, name in (("train", train), ("test", test)):
        for place, line in _numbered(Path(folder) / name):
            label, _, text = line.partition(" ")
            rows.append((split, None, None, _class(Path(folder) / name, place, label, num_classes, first=0), (text.strip(),)))
    return _table(rows, tuple(map(str, range(num_classes))))


def _class(path, line, given, count, first):
    if not given.strip().isdecimal() or not first <= int(given) < first + count:
        raise ValueError(f"{path}, line {line}: got class {given!r}, expected {first} to {first + count - 1}")
    return int(given) - first


def _table(rows, classes):
    table = pd.DataFrame(rows, columns=SAMPLE_COLUMNS, dtype=object)
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


def _text(path):
    content = _file(path).read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: not UTF-8 ({error.reason})") from error


def _numbered(path):
    """[(number from 1, line)] of the lines of a file that are not empty."""
    return [(number, line) for number, line in enumerate(_text(path).splitlines(), 1) if line.strip()]


def _lines(path):
    return [line for _, line in _numbered(path)]


def _csv(path, **options):
    """The table of a file, as `pandas.read_csv` reads it; rows do not have more fields than the first."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(io.StringIO(_text(path)), index_col=False, **options)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning) as error:
            raise ValueError(f"{path}: not a table ({str(error).strip()})") from error


def _json(path, keys):
    """The object in a file of JSON, which has `keys`."""
    try:
        content = json.loads(_text(path))
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict) or (missing := [key for key in keys if key not in content]):
        raise ValueError(f"{path}: got no {missing if isinstance(content, dict) else 'object'}, expected the keys {list(keys)}")
    return content


def _entries(path, key, entries, kinds):
    """The list under a key of a file of JSON, every entry an object with these names, {name: its type}."""
    for place, entry in enumerate(entries if isinstance(entries, list) else [None]):
        if not isinstance(entry, dict) or not all(isinstance(entry.get(name), kind) for name, kind in kinds.items()):
            raise ValueError(f"{path}: {key}, entry {place}: got {str(entry)[:80]}, expected an object with {list(kinds)}")
    return entries

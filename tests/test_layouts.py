"""Readers of real data, on tiny data sets written in each official layout, and on the real excerpts where they are at hand."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fedmuscle_core.world.real import layouts, photos

REAL = os.environ.get("FEDMUSCLE_DATA")
real = pytest.mark.skipif(not REAL, reason="FEDMUSCLE_DATA is not set: it names the folder of the real excerpts")


def write_image(path, size=(40, 30), colour=(255, 0, 0), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


@pytest.fixture
def voc(tmp_path):
    """Three photos, masks with the classes 0, 12 and void; labels in the official files."""
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for number, name in enumerate(("2007_000001", "2007_000002", "2007_000003")):
        write_image(base / "JPEGImages" / f"{name}.jpg")
        mask = Image.new("P", (40, 30), 0)
        mask.putpalette([0, 0, 0, 9, 9, 9] * 128)
        mask.paste(12, (10, 0, 20 + number, 30))
        mask.paste(255, (0, 0, 5, 30))
        (base / "SegmentationClass").mkdir(exist_ok=True)
        mask.save(base / "SegmentationClass" / f"{name}.png")
    for split, names in (("train", ["2007_000001", "2007_000003"]), ("val", ["2007_000002"])):
        (base / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
        (base / "ImageSets" / "Main").mkdir(exist_ok=True)
        (base / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for place, label in enumerate(layouts.VOC_CLASSES):
            occurs = {"2007_000001": 11, "2007_000002": 14, "2007_000003": 11}
            lines = [f"{name} {' 1' if occurs[name] == place else '-1'}" for name in names]
            (base / "ImageSets" / "Main" / f"{label}_{split}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.fixture
def coco(tmp_path):
    for index in (7, 3):
        write_image(tmp_path / "val2017" / f"{index:012}.jpg")
    content = {"images": [{"id": index, "file_name": f"{index:012}.jpg"} for index in (7, 3)],
               "annotations": [{"id": 1, "image_id": 7, "caption": " A cat. "}, {"id": 2, "image_id": 3, "caption": "A dog."},
                               {"id": 3, "image_id": 7, "caption": "It sits."}]}
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "captions_val2017.json").write_text(json.dumps(content))
    return tmp_path


def test_image_folder(tmp_path):
    for split, name, number in (("train", "dog", 2), ("train", "cat", 1), ("test", "cat", 1), ("test", "dog", 1)):
        for index in range(number):
            write_image(tmp_path / split / name / f"{index}.png")
    table = layouts.image_folder(tmp_path)
    assert list(table.columns) == layouts.SAMPLE_COLUMNS and table.attrs["classes"] == ("cat", "dog")
    assert table[["split", "label"]].values.tolist() == [["train", 0], ["train", 1], ["train", 1], ["test", 0], ["test", 1]]
    assert photos.check_samples(table, 2) == 5
    (tmp_path / "test" / "empty").mkdir()
    with pytest.raises(ValueError, match="Found no valid file for the classes empty"):
        layouts.image_folder(tmp_path)
    (tmp_path / "test" / "empty").rmdir()
    write_image(tmp_path / "test" / "zebra" / "0.png")
    with pytest.raises(ValueError, match="got other classes in"):
        layouts.image_folder(tmp_path)
    with pytest.raises(ValueError, match="got no folder train, val or test"):
        layouts.image_folder(tmp_path / "train" / "dog")


def test_a_flat_folder_is_public_data_without_labels(tmp_path):
    write_image(tmp_path / "b" / "2.png")
    write_image(tmp_path / "1.JPG")
    (tmp_path / "notes.txt").write_text("no image")
    table = layouts.flat_folder(tmp_path)
    assert [path.name for path in table["image"]] == ["1.JPG", "2.png"] and table["label"].isna().all()
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: got no image"):
        layouts.flat_folder(tmp_path / "empty")


def test_voc_with_its_official_labels(voc):
    table = layouts.voc(voc)
    assert table["split"].tolist() == ["train", "train", "val"]
    assert [label.index(1) for label in table["label"]] == [11, 11, 14] and {len(label) for label in table["label"]} == {20}
    assert photos.check_samples(table, 20) == 3
    images, masks = photos.load_photos(table, 16)
    assert images.shape == (3, 3, 16, 16) and images.dtype == torch.uint8 and masks.shape == (3, 16, 16)
    assert set(masks.unique().tolist()) <= {0, 12, 255} and (masks == 12).any()


def test_voc_with_labels_in_one_table(voc):
    rows = [f"{name},train,{','.join('1' if place == 2 else '0' for place in range(20))}" for name in
            ("2007_000001", "2007_000002", "2007_000003")]
    (voc / "multilabel.csv").write_text("\n".join([f"image,split,{','.join(layouts.VOC_CLASSES)}", *rows]) + "\n")
    assert [label.index(1) for label in layouts.voc(voc)["label"]] == [2, 2, 2]
    strange = rows[0].replace("train", "dev")
    (voc / "multilabel.csv").write_text("\n".join([f"image,split,{','.join(layouts.VOC_CLASSES)}", strange]))
    with pytest.raises(ValueError, match="multilabel.csv: got split 'dev' of 2007_000001, expected one of"):
        layouts.voc(voc)


def test_voc_photos_without_a_mask_and_those_that_any_list_holds_out(voc):
    base = voc / "VOCdevkit" / "VOC2012" / "ImageSets"
    (base / "Segmentation" / "train.txt").write_text("2007_000001\n")
    assert [path is None for path in layouts.voc(voc)["mask"]] == [False, True, False]
    (base / "Segmentation" / "val.txt").write_text("2007_000002\n2007_000003\n")
    assert layouts.voc(voc)["split"].tolist() == ["train", "val", "val"]
    (base / "Segmentation" / "val.txt").write_text("2007_000009\n")        # as many of the official ones: in no list of Main
    table = layouts.voc(voc)
    assert table["label"].isna().tolist() == [False, False, False, True] and table["split"].tolist()[2:] == ["val", "val"]


def test_masks_move_with_their_photos(voc):
    """A photo that is white exactly where its mask is 12: so it stays after resizing and cropping."""
    table = layouts.voc(voc).iloc[:1]
    where = np.asarray(Image.open(table["mask"].iloc[0])) == 12
    Image.fromarray(np.uint8(255 * where)).save(path := voc / "white.png")
    table = table.assign(image=[path])
    images, masks = photos.load_photos(table, 24)
    inside, outside = images[0, 0][masks[0] == 12].float(), images[0, 0][masks[0] != 12].float()
    assert inside.mean() > 200 > 60 > outside.mean()


def test_coco(coco):
    table = layouts.coco(coco)
    assert [path.name for path in table["image"]] == ["000000000003.jpg", "000000000007.jpg"]
    assert table["texts"].tolist() == [("A dog.",), ("A cat.", "It sits.")] and set(table["split"]) == {"val"}
    assert photos.check_samples(table) == 2


def test_a_caption_without_its_image_is_named(coco):
    path = coco / "annotations" / "captions_val2017.json"
    content = json.loads(path.read_text())
    content["annotations"].append({"id": 9, "image_id": 99, "caption": "Nobody."})
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"captions_val2017.json: got a caption \(id 9\) without image 99"):
        layouts.coco(coco)
    (coco / "val2017" / "000000000003.jpg").unlink()
    path.write_text(json.dumps(content | {"annotations": content["annotations"][:3]}))
    with pytest.raises(ValueError, match="000000000003.jpg: no such file"):
        photos.check_samples(layouts.coco(coco))
    path.write_text("{")
    with pytest.raises(ValueError, match="captions_val2017.json: not JSON"):
        layouts.coco(coco)
    (coco / "train2017").mkdir()
    with pytest.raises(ValueError, match="captions_train2017.json: no such file"):
        layouts.coco(coco)
    (coco / "train2017").rmdir()
    path.write_text("{}")
    with pytest.raises(ValueError, match=r"captions_val2017.json: got no \['images', 'annotations'\]"):
        layouts.coco(coco)


def test_coco_labels_are_the_categories_that_occur(coco):
    content = {"categories": [{"id": 44, "name": "bottle"}, {"id": 17, "name": "cat"}],
               "annotations": [{"id": 1, "image_id": 7, "category_id": 44}, {"id": 2, "image_id": 7, "category_id": 44}]}
    path = coco / "annotations" / "instances_val2017.json"
    path.write_text(json.dumps(content))
    table = layouts.coco(coco)
    assert table.attrs["classes"] == ("cat", "bottle") and table["label"].tolist() == [None, (0, 1)]
    captions = coco / "annotations" / "captions_val2017.json"
    images = json.loads(captions.read_text())["images"]
    kept = captions.rename(coco / "kept.json")                                # labels alone serve as well
    path.write_text(json.dumps(content | {"images": images}))
    alone = layouts.coco(coco)
    assert alone["label"].tolist() == [None, (0, 1)] and alone["texts"].tolist() == [(), ()]
    assert alone["image"].tolist() == table["image"].tolist()
    kept.rename(captions)
    content["annotations"].append({"id": 5, "image_id": 3, "category_id": 18})
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="instances_val2017.json: got category 18 of annotation 5, expected one of"):
        layouts.coco(coco)


def test_a_csv_of_ones_own(tmp_path):
    (tmp_path / "classes.txt").write_text("cat\ndog\nbird\n")
    table_path = tmp_path / "samples.csv"
    table_path.write_text("split,image,label,text\ntrain,a.png,2,A bird.\ntest,b.png,0,\n")
    table = layouts.csv_table(tmp_path)
    assert table["label"].tolist() == [2, 0] and table["texts"].tolist() == [("A bird.",), ()]
    assert table["image"].tolist() == [tmp_path / "a.png", tmp_path / "b.png"] and table["mask"].tolist() == [None, None]
    assert table.attrs["classes"] == ("cat", "dog", "bird") and table["split"].tolist() == ["train", "test"]
    table_path.write_text("split,image,label\ntrain,a.png,0 2\ntrain,b.png,1\n")
    assert layouts.csv_table(tmp_path)["label"].tolist() == [(1, 0, 1), (0, 1, 0)]
    table_path.write_text("split,image,label\ntrain,a.png,0 2\ntrain,b.png,\n")
    assert layouts.csv_table(tmp_path)["label"].tolist() == [(1, 0, 1), None]
    for text, message in (("image\na.png\n", r"samples.csv: got columns \['image'\], expected split and any of"),
                          ("split,label\ntrain,3\n", "samples.csv, line 2: got class '3', expected 0 to 2"),
                          ("split,text\ndev,Hello\n", "samples.csv, line 2: got split 'dev'")):
        table_path.write_text(text)
        with pytest.raises(ValueError, match=message):
            layouts.csv_table(tmp_path)


def test_flickr_captions(tmp_path):
    write_image(tmp_path / "flickr30k_images" / "10.jpg")
    lines = ("image_name| comment_number| comment", "10.jpg| 0| A man walks.", "10.jpg| 1| Somebody walks .")
    (tmp_path / "results.csv").write_text("\n".join(lines) + "\n")
    table = layouts.flickr_captions(tmp_path)
    assert table["texts"].tolist() == [("A man walks.", "Somebody walks .")] and photos.check_samples(table) == 1
    write_image(tmp_path / "flickr30k-images" / "7.jpg")
    (tmp_path / "results_20130124.token").write_text("7.jpg#0\tTwo men .\n7.jpg#1\tThey run .\n")
    table = layouts.flickr_captions(tmp_path)
    assert table["texts"].tolist() == [("Two men .", "They run .")] and photos.check_samples(table) == 1
    (tmp_path / "results_20130124.token").write_text("7.jpg#0 Two men .\n")
    with pytest.raises(ValueError, match="results_20130124.token, line 1: got '7.jpg#0 Two men .'"):
        layouts.flickr_captions(tmp_path)


def test_ag_news_with_two_or_three_columns(tmp_path):
    (tmp_path / "train_subset.csv").write_text('"4","BEA ""buzzing"" about"\n"1","Storm"\n')
    (tmp_path / "test.csv").write_text('"3","Fears for pension","Unions say"\n')
    table = layouts.ag_news(tmp_path)
    assert table["label"].tolist() == [3, 0, 2] and table["split"].tolist() == ["train", "train", "test"]
    assert table["texts"].tolist() == [('BEA "buzzing" about',), ("Storm",), ("Fears for pension Unions say",)]
    (tmp_path / "test.csv").write_text('"5","Out of range"\n')
    with pytest.raises(ValueError, match="test.csv, line 1: got class '5', expected 1 to 4"):
        layouts.ag_news(tmp_path)


def test_labelled_lines(tmp_path):
    (tmp_path / "a").write_text("0 How did it end ?\n5 What ?\n")
    (tmp_path / "b").write_text("1 Who ?\n")
    table = layouts.labelled_lines(tmp_path, "a", "b", 6)
    assert table["label"].tolist() == [0, 5, 1] and table["texts"].iloc[0] == ("How did it end ?",)
    (tmp_path / "b").write_text("6 Who ?\n")
    with pytest.raises(ValueError, match="b, line 1: got class '6', expected 0 to 5"):
        layouts.labelled_lines(tmp_path, "a", "b", 6)


def test_broken_files_are_named_before_anything_is_loaded(voc):
    table = layouts.voc(voc)
    photo, mask = table["image"].iloc[1], table["mask"].iloc[1]
    whole = photo.read_bytes()
    photo.write_bytes(whole[:len(whole) // 2])
    for call in (lambda: photos.check_samples(table, 20), lambda: photos.load_photos(table, 8)):
        with pytest.raises(ValueError, match="2007_000003.jpg: not a whole image"):
            call()
    photo.write_text("no image at all")
    with pytest.raises(ValueError, match="2007_000003.jpg: not a whole image"):
        photos.check_samples(table, 20)
    photo.write_bytes(whole)
    Image.new("P", (7, 7)).save(mask)
    with pytest.raises(ValueError, match=r"2007_000003.png: got a mask of \(7, 7\) pixels, expected \(30, 40\)"):
        photos.load_photos(table, 8)
    with pytest.raises(ValueError, match=r"2007_000003.png: got a mask of \(7, 7\) pixels, expected \(30, 40\)"):
        photos.check_samples(table, 20)
    for mode in ("RGB", "I;16", "1", "LA"):
        Image.new(mode, (40, 30)).save(mask)
        for call in (lambda: photos.check_samples(table, 20), lambda: photos.load_photos(table, 8)):
            with pytest.raises(ValueError, match=f"2007_000003.png: got an image of mode {mode}, expected one channel"):
                call()
    Image.new("L", (40, 30), 33).save(mask)
    with pytest.raises(ValueError, match="2007_000003.png: got class 33, expected 0 to 20 or 255"):
        photos.check_samples(table, 20)
    with pytest.raises(ValueError, match="got masks for 2 of 3 photos"):
        photos.load_photos(table.assign(mask=[*table["mask"].iloc[:2], None]), 8)


PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("content", [b"", PNG, PNG + b"\xff" * 100, b"II*\x00\xff\xff\xff\xff", b"GIF89a" + b"\xff" * 30,
                                     b"BM" + b"\x01" * 60, b"P6\n99999 99999\n255\n", None])
def test_whatever_a_decoder_stumbles_over_is_named(tmp_path, content):
    path = tmp_path / "0.png"
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match="0.png: not a whole image"):
        photos.check_samples(layouts.flat_folder(tmp_path))


VOC_LABELS = "VOCdevkit/VOC2012/ImageSets/Main/cow_train.txt"
COCO_CAPTIONS = "annotations/captions_val2017.json"
COLUMNS = ",".join(layouts.VOC_CLASSES)


@pytest.mark.parametrize(("read", "file", "content", "message"), [
    ("voc", VOC_LABELS, "2007_000001 1\n\n2007_000003\n", "cow_train.txt, line 3: got '2007_000003', expected"),
    ("voc", VOC_LABELS, "2007_000001 yes\n", "cow_train.txt, line 1: got '2007_000001 yes'"),
    ("voc", VOC_LABELS, b"2007_000001 1\n\xff\n", "cow_train.txt, line 2: not UTF-8"),
    ("voc", "multilabel.csv", "image,split\na,train\n", r"multilabel.csv: got no columns \['aeroplane', "),
    ("voc", "multilabel.csv", f"image,split,{COLUMNS}\na,train{',0' * 19},2\n", "csv, line 2: got .* for a, expected 0"),
    ("voc", "multilabel.csv", f"image,split,{COLUMNS}\na,train{',0' * 19}\n", "multilabel.csv, line 2: got .*nan"),
    ("voc", "multilabel.csv", f"image,split,{COLUMNS}\n" + f"a,train{',0' * 20}\n" * 2, "line 3: got .* every photo once"),
    ("voc", "multilabel.csv", "", "multilabel.csv: not a table"),
    ("coco", COCO_CAPTIONS, b"\xff", "captions_val2017.json, line 1: not UTF-8"),
    ("coco", COCO_CAPTIONS, "[" * 100_000, "captions_val2017.json: not JSON"),
    ("coco", COCO_CAPTIONS, '{"images": 3, "annotations": []}', "captions_val2017.json: images, entry 0: got None"),
    ("coco", COCO_CAPTIONS, '{"images": [{"id": 7}], "annotations": []}', "json: images, entry 0: got .*'id': 7.*'file_name'"),
    ("coco", COCO_CAPTIONS, '{"images": [{"id": 7, "file_name": "a"}, {"id": 7, "file_name": "b"}], "annotations": []}',
     "captions_val2017.json: got image 7 twice"),
    ("coco", COCO_CAPTIONS, '{"images": [], "annotations": [{"id": 1, "image_id": [], "caption": "A"}]}', "tions, entry 0"),
    ("coco", COCO_CAPTIONS, '{"images": [], "annotations": [{"id": 1, "image_id": 7, "caption": null}]}', "tions, entry 0"),
    ("coco", "annotations/instances_val2017.json", '{"categories": [{"id": 1, "name": "cat"}], "annotations": '
     '[{"id": 5, "image_id": 8, "category_id": 1}]}', "instances_val2017.json: got annotation 5 without image 8"),
    ("coco", "annotations/instances_val2017.json", '{"categories": [1], "annotations": []}', "categories, entry 0: got 1"),
    ("csv_table", "samples.csv", "split,text\ntrain,a,b\n", "samples.csv: not a table"),
    ("csv_table", "samples.csv", "split,text\ntrain,a\ntrain,a,b\n", "samples.csv: not a table .*line 3"),
    ("csv_table", "samples.csv", 'split,text\ntrain,"a\n', "samples.csv: not a table"),
    ("csv_table", "samples.csv", b"split,text\ntrain,\xe9\n", "samples.csv, line 2: not UTF-8"),
    ("csv_table", "samples.csv", "split,label\ntrain,\u00b2\n", "samples.csv, line 2: got class '\u00b2', expected 0 to 1"),
    ("ag_news", "train.csv", '"1","a"\n"2"\n', "train.csv, line 2: got no text"),
    ("ag_news", "train.csv", '"1","a"\n"2","b","c"\n', "train.csv: not a table .*line 2"),
    ("ag_news", "train.csv", b'"1","\xff"\n', "train.csv, line 1: not UTF-8"),
    ("flickr_captions", "results.csv", b"image_name| comment\n\xff", "results.csv, line 2: not UTF-8"),
    ("flickr_captions", "results_20130124.token", "\n\n7.jpg#0 no tab\n", "token, line 3: got '7.jpg#0 no tab'"),
])
def test_a_damaged_file_is_named_with_its_line_or_entry(request, tmp_path, read, file, content, message):
    folder = request.getfixturevalue(read) if read in ("voc", "coco") else tmp_path
    (folder / "classes.txt").write_text("cat\ndog\n")
    (folder / "test.csv").write_text('"1","a"\n')
    (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        getattr(layouts, read)(folder)


def test_a_folder_that_links_into_itself_is_named(tmp_path):
    write_image(tmp_path / "train" / "cat" / "0.png")
    (tmp_path / "train" / "cat" / "again").symlink_to(tmp_path / "train" / "cat")
    with pytest.raises(ValueError, match="train/cat/again: got a link to .*train/cat, expected every folder once"):
        layouts.image_folder(tmp_path)
    assert len(layouts.flat_folder(tmp_path)) == 1


def test_a_mask_needs_a_photo(tmp_path):
    (tmp_path / "samples.csv").write_text("split,mask,text\ntrain,m.png,A text.\n")
    write_image(tmp_path / "m.png", mode="L", colour=0)
    with pytest.raises(ValueError, match="m.png: got a mask without an image"):
        photos.check_samples(layouts.csv_table(tmp_path))


@pytest.mark.parametrize(("label", "message"), [(3, "got label 3, expected 0 to 2"), (-1, "got label -1"),
                                               ((0, 1), r"got label \(0, 1\), expected 3 numbers"),
                                               ((0, 1, 2), r"got label \(0, 1, 2\), expected 3 numbers, 0 or 1")])
def test_labels_out_of_range_are_named_with_their_file(tmp_path, label, message):
    write_image(tmp_path / "0.png")
    table = layouts.flat_folder(tmp_path)
    table.at[0, "label"] = label
    with pytest.raises(ValueError, match=f"0.png: {message}"):
        photos.check_samples(table, 3)


@pytest.mark.parametrize("read", [layouts.image_folder, layouts.flat_folder, layouts.voc, layouts.ag_news])
def test_a_missing_folder_is_named(tmp_path, read):
    with pytest.raises(ValueError, match="nowhere.*: no such f"):
        read(tmp_path / "nowhere")


@real
@pytest.mark.parametrize(("name", "read", "classes", "count"), [
    ("cifar10", layouts.image_folder, 10, 10_000), ("cifar100", layouts.image_folder, 100, 10_000),
    ("voc_animals", layouts.voc, 20, 900), ("coco_small", layouts.coco, None, 363),
    ("public_unlabeled_tiny", layouts.flat_folder, None, 2000), ("text/ag_news", layouts.ag_news, 4, 12_599),
    ("text/trec", lambda folder: layouts.labelled_lines(folder, "TREC.train.all", "TREC.test.all", 6), 6, 5952),
])
def test_the_real_excerpts_are_whole(name, read, classes, count):
    table = read(Path(REAL) / name)
    assert len(table) == count
    sample = table.iloc[::max(1, len(table) // 100)]
    assert photos.check_samples(sample, classes) == len(sample)
    if table["image"].notna().all():
        images, masks = photos.load_photos(sample, 32)
        assert images.shape == (len(sample), 3, 32, 32) and (masks is not None) == table["mask"].notna().all()

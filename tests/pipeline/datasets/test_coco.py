"""COCO's format: classes, regions, and every entry that does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hdm_core import Preprocess
from pipeline.datasets import Sample, list_samples, parse_dataset
from pipeline.datasets.images import UnreadableError, read_image, read_mask, read_region
from pipeline.section import SectionError
from tests.support.plans import refused, save_picture

CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 90, "name": "ant"}, {"id": 1, "name": "<b>cat\n"}]
CROWD = {"size": [20, 24], "counts": [0, 20, 460]}  # the first column


def entry(number: int, image: Any, category: int, box: list[float], **keys: Any) -> dict[str, Any]:
    left, top, width, height = box
    outline = [left, top, left + width, top, left + width, top + height, left, top + height]
    values = {"id": number, "image_id": image, "category_id": category, "bbox": box, "area": width * height}
    return {**values, "segmentation": [outline], "iscrowd": 0, **keys}


def write(folder: Path, **changes: Any) -> Path:
    names = ["a.png", "it's <script>\n.png", "c.png", "d.png"]
    for number, name in enumerate(names):
        save_picture(folder / "images" / name, 24, 20, seed=number)
    content = {
        "images": [{"id": number, "file_name": name, "width": 24, "height": 20} for number, name in enumerate(names)],
        "annotations": [
            entry(1, 0, 18, [2, 3, 10, 5]),
            entry(2, 0, 18, [8, 10, 4, 4]),
            entry(3, 0, 90, [0, 0, 3, 3]),
            entry(4, 1, 90, [0, 0, 24, 20], segmentation=CROWD, iscrowd=1),
            entry(5, 1, 90, [5, 5, 2, 2], segmentation={"size": [20, 24], "counts": "o2"}),
            entry(6, 2, 1, [1, 1, 5, 5]),
            entry(7, 2, 1, [1, 1, 0, 5]),
            entry(8, 99, 1, [1, 1, 5, 5]),
            entry(9, 2, 77, [1, 1, 5, 5]),
        ],
        "categories": CATEGORIES,
    }
    file = folder / "instances.json"
    file.write_text(json.dumps(content | changes))
    return file


def read(folder: Path, **keys: Any) -> Any:
    section = {"kind": "coco", "root": str(folder / "images"), "annotations": str(folder / "instances.json"), **keys}
    return list_samples(parse_dataset(section), {})


def area(sample: Sample) -> int:
    mask = read_mask(sample, (24, 20), {})
    return 0 if mask is None else int(np.asarray(mask).sum())


def test_an_image_has_the_class_of_its_largest_object_and_the_region_of_that_class(tmp_path: Path) -> None:
    write(tmp_path)
    save_picture(tmp_path / "images" / "extra.png")
    samples = read(tmp_path)
    assert [(sample.image_id, sample.label, sample.class_name) for sample in samples] == [
        ("a.png", 2, "dog"),
        ("it's <script>\n.png", 1, "ant"),  # a crowd does not decide, and the numbers are those of the sorted names
        ("c.png", 0, "<b>cat\n"),
        ("d.png", None, None),
    ]
    assert area(samples[0]) == 10 * 5 + 4 * 4
    assert area(read(tmp_path, region_of="all")[0]) == 50 + 16 + 9
    assert read(tmp_path, regions="boxes")[0].shapes == '{"size":[24,20],"boxes":[[2.0,3.0,12.0,8.0],[8.0,10.0,12.0,14.0]]}'
    preprocess = Preprocess(resize=(20, 24), crop=(20, 24))
    for keys, kind in (({}, "segmentation"), ({"regions": "boxes"}, "bbox")):
        sample = read(tmp_path, **keys)[0]
        region, found = read_region(sample, read_image(sample, {}), preprocess, {})
        assert (int(region.sum()), found) == (66, kind)
    assert read_region(samples[3], read_image(samples[3], {}), preprocess, {})[1] == "none"
    assert samples.notes.left_out() == [{"reason": "that the annotations do not name", "count": 1, "examples": {"extra.png": 1}}]
    remarks = "; ".join(samples.notes.remarks)
    for words in (
        "without an area, which are not used: 1 (such as 7",
        "that the file does not have, which are not used: 1 (such as 8",
        "9 of",
    ):
        assert words in remarks
    single = read(tmp_path, label="single")
    assert [sample.image_id for sample in single] == ["it's <script>\n.png", "c.png", "d.png"]
    assert single.notes.counts["with objects of several categories"] == 1


def test_a_crowd_belongs_to_the_region_and_a_broken_encoding_costs_its_image_only(tmp_path: Path) -> None:
    write(tmp_path)
    broken = read(tmp_path)[1]
    with pytest.raises(UnreadableError, match="a segmentation of its annotations is invalid: the runs have 95 pixels"):
        area(broken)
    write(tmp_path, annotations=[entry(4, 1, 90, [0, 0, 1, 20], segmentation=CROWD, iscrowd=1), entry(5, 1, 90, [5, 5, 2, 2])])
    assert area(read(tmp_path)[1]) == 20 + 4


def test_sizes_are_those_of_the_upright_image(tmp_path: Path) -> None:
    write(tmp_path, annotations=[entry(1, 3, 18, [0, 0, 5, 5])])
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (24, 20)).save(tmp_path / "images" / "d.png", exif=exif)
    sample = read(tmp_path)[3]
    with pytest.raises(UnreadableError, match="its annotations are of 24 x 20 pixels, the upright image has 20 x 24"):
        read_region(sample, read_image(sample, {}), Preprocess(resize=16, crop=16), {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": [{"id": 5, "file_name": "a.png"}, {"id": 5, "file_name": "c.png"}]}, "2 entries have the image id 5; ids must differ"),
        ({"images": [{"id": 5, "file_name": "a.png"}, {"id": 6, "file_name": "a.png"}]}, "two images have the id 'a.png'"),
        ({"images": [{"id": 5, "file_name": "../../etc/passwd"}], "annotations": []}, "leaves the dataset's root"),
        ({"images": [{"id": 5}], "annotations": []}, "not of COCO's format (KeyError"),
        ({"images": [7]}, "not of COCO's format"),
        ({"images": []}, "no images"),
        ({"images": {}}, "COCO's format has the lists"),
        ({"categories": [*CATEGORIES, {"id": 2, "name": "dog"}]}, "2 categories have the name 'dog'"),
        ({"categories": [*CATEGORIES, {"id": 1, "name": "x"}]}, "2 entries have the category id 1"),
        ({"annotations": [{"id": 1, "image_id": 0, "category_id": 18}]}, "not of COCO's format (KeyError"),
        ({"annotations": [entry(1, 0, 18, [0, 0, 2, 2], area="big")]}, "not of COCO's format (ValueError"),
    ],
    ids=repr,
)
def test_a_file_that_does_not_fit_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    write(tmp_path, **changes)
    assert words in refused(lambda: read(tmp_path))


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    write(tmp_path).write_text('{"images": [')
    assert "instances.json: cannot be read as JSON" in refused(lambda: read(tmp_path))
    with pytest.raises(SectionError, match="annotations is missing"):
        parse_dataset({"kind": "coco", "root": "images"})

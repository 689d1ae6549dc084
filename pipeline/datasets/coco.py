"""Dataset kind `coco`: a folder of images, and COCO's file with their objects."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import fsspec
from pydantic import Field, model_validator

from pipeline.datasets.formats import has_image_suffix
from pipeline.datasets.kind import DatasetConfig, DatasetKind
from pipeline.datasets.listing import Listing, ListingNotes
from pipeline.datasets.root import Root
from pipeline.datasets.sample import Sample, absolute
from pipeline.datasets.shapes import Box, pack_shapes
from pipeline.errors import InputError, one_line

_COUNTED = {
    "image": "annotations of images that the file does not have",
    "category": "annotations of categories that the file does not have",
    "empty": "annotations without an area",
}


class CocoConfig(DatasetConfig):
    """Configuration of a dataset in COCO's format."""

    root_description = "the folder of the images"
    has_splits = False

    kind: Literal["coco"] = Field(description="A folder of images, and a JSON file with their objects in COCO's format.")
    annotations: str | None = Field(None, description="JSON file with the keys images, annotations and categories; a local path or a URL.")
    label: Literal["largest", "single"] = Field(
        "largest",
        description="Class of an image: the category of its largest object that is no crowd (`largest`), or its only category (`single`: "
        "images with several are left out).",
    )
    regions: Literal["masks", "boxes"] = Field("masks", description="Ground truth: the union of the segmentations or of the boxes.")
    region_of: Literal["label", "all"] = Field("label", description="Objects in the region: those of the image's class, or all.")

    @model_validator(mode="after")
    def _check_annotations(self) -> CocoConfig:
        if not self.annotations:
            raise ValueError("annotations is missing: set dataset.annotations to the JSON file, such as instances_val2017.json")
        return self


def read_coco(config: CocoConfig, storage: Mapping[str, Any]) -> Listing:
    """List the images in the order of the file.

    Classes are all categories of the file, numbered in the order of their names. Crowds (`iscrowd`) are part of the region, but do not
    decide the class. Annotations without an area, of unknown images or of unknown categories are counted and left out.

    Raises:
        InputError: if the folder is missing, or the file is not of COCO's format or names an image id or a category twice.
    """
    root = Root.at(str(config.root), storage, "the folder of the images")
    file, notes = absolute(str(config.annotations)), ListingNotes()
    images, annotations, categories = _read(file, storage)
    try:
        names = _by_id(categories, "category", file)
        by_image = _by_id(images, "image", file)
        numbers = _class_numbers([str(each["name"]) for each in names.values()], file)
        objects = _objects(annotations, by_image, names, notes, file)
        samples = []
        for image_id, image in by_image.items():
            relative = str(image["file_name"])
            if config.label == "single" and len({each["category_id"] for each in objects[image_id]}) > 1:
                notes.leave_out("with objects of several categories", relative)
                continue
            samples.append(_sample(config, root, image, objects[image_id], names, numbers))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{file}: an entry is not of COCO's format ({type(error).__name__}: {one_line(error)})") from None
    named = {str(image["file_name"]) for image in images}
    for relative in root.find(notes=notes):
        if has_image_suffix(relative) and relative not in named:
            notes.leave_out("that the annotations do not name", relative)
    return Listing(samples, notes)


COCO = DatasetKind("coco", CocoConfig, read_coco)


def _read(file: str, storage: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Read the lists images, annotations and categories."""
    try:
        with fsspec.open(file, "rb", **(storage if "://" in file else {})) as opened:
            content = json.loads(opened.read())
    except (OSError, ValueError, ImportError, RecursionError) as error:
        raise InputError(f"{file}: cannot be read as JSON ({one_line(error)}); look at dataset.annotations") from None
    lists: list[Any] = [content.get(key) for key in ("images", "annotations", "categories")] if isinstance(content, dict) else [None]
    if not all(isinstance(each, list) for each in lists):
        raise InputError(f"{file}: COCO's format has the lists images, annotations and categories; look at dataset.annotations")
    return lists


def _by_id(entries: Sequence[dict[str, Any]], what: str, file: str) -> dict[Any, dict[str, Any]]:
    by_id = {entry["id"]: entry for entry in entries}
    if len(by_id) != len(entries):
        twice, count = Counter(entry["id"] for entry in entries).most_common(1)[0]
        raise InputError(f"{file}: {count} entries have the {what} id {twice!r}; ids must differ")
    return by_id


def _class_numbers(names: Sequence[str], file: str) -> dict[str, int]:
    """Assign numbers to the categories in the order of their names."""
    twice, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise InputError(f"{file}: {count} categories have the name {twice!r}; names must differ")
    return {name: number for number, name in enumerate(sorted(names))}


def _objects(
    annotations: Sequence[dict[str, Any]], images: Mapping[Any, Any], names: Mapping[Any, Any], notes: ListingNotes, file: str
) -> defaultdict[Any, list[dict[str, Any]]]:
    """Group the valid annotations by image; count the others in remarks."""
    objects: defaultdict[Any, list[dict[str, Any]]] = defaultdict(list)
    counts: Counter[str] = Counter()
    examples: dict[str, Any] = {}
    for annotation in annotations:
        if annotation["image_id"] not in images:
            problem = "image"
        elif annotation["category_id"] not in names:
            problem = "category"
        elif not _area(annotation) > 0:
            problem = "empty"
        else:
            objects[annotation["image_id"]].append(annotation)
            continue
        counts[problem] += 1
        examples.setdefault(problem, annotation.get("id"))
    for problem, count in counts.items():
        notes.remark(f"{_COUNTED[problem]}, which are not used: {count:,} (such as {examples[problem]!r} of {file})")
    return objects


def _area(annotation: Mapping[str, Any]) -> float:
    """Return the area of an object or else of its box, in pixels; NaN if infinite."""
    if "area" in annotation:
        area = float(annotation["area"])
    else:
        width, height = annotation["bbox"][2:]
        area = float(width) * float(height) if width > 0 and height > 0 else 0.0
    return area if math.isfinite(area) else math.nan


def _sample(
    config: CocoConfig, root: Root, image: Mapping[str, Any], objects: Sequence[Mapping[str, Any]], names: Mapping[Any, Any], numbers: Any
) -> Sample:
    relative = str(image["file_name"])
    single = [each for each in objects if not each.get("iscrowd")]
    category = max(single, key=_area)["category_id"] if single else None  # the first of equals
    class_name = None if category is None else str(names[category]["name"])
    shown = objects if config.region_of == "all" else [each for each in objects if each["category_id"] == category]
    size = (int(image["width"]), int(image["height"])) if "width" in image and "height" in image else None
    if config.regions == "boxes":
        shapes = pack_shapes([_box(each["bbox"]) for each in shown], size=size)
    else:
        shapes = pack_shapes(segmentations=[each["segmentation"] for each in shown if each.get("segmentation")], size=size)
    label = None if class_name is None else numbers[class_name]
    return Sample(relative, root.path(relative), label=label, class_name=class_name, shapes=shapes, root=root.local)


def _box(box: Sequence[float]) -> Box:
    """Convert COCO's box (left, top, width, height)."""
    left, top, width, height = (float(number) for number in box)
    if not (math.isfinite(left + top + width + height) and width > 0 and height > 0):
        raise ValueError(f"bbox {list(box)!r}; it must be left, top, width and height")
    return left, top, left + width, top + height

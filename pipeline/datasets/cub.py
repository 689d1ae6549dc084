"""Dataset kind `cub`: CUB-200-2011 in its official layout."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Literal

from pydantic import Field

from pipeline.datasets.formats import has_image_suffix
from pipeline.datasets.kind import DatasetConfig, DatasetKind
from pipeline.datasets.listing import Listing, ListingNotes
from pipeline.datasets.root import Root
from pipeline.datasets.sample import Masks, Sample, below
from pipeline.errors import InputError

_SPLITS = {"0": "test", "1": "train"}
_IMAGES = "images"
_SEGMENTATIONS = "segmentations"


class CubConfig(DatasetConfig):
    """Configuration of CUB-200-2011."""

    kind: Literal["cub"] = Field(description="CUB-200-2011: birds with classes, splits, boxes and segmentations.")


def read_cub(config: CubConfig, storage: Mapping[str, Any]) -> Listing:
    """List the birds in the order of images.txt.

    The label of a class is its number minus one.

    The region is the segmentation if there is one, else the box. CUB ships its segmentations as a separate archive, unpacked into the
    dataset's folder or next to it; where several annotators disagree, pixels with a grey level of one half or more are inside.

    Raises:
        InputError: if a file of the layout is missing, or an image has no class, box or split.
    """
    root = Root.at(str(config.root), storage, "the folder CUB_200_2011, which holds images.txt")
    images = _table(root, "images.txt")
    names = _table(root, "classes.txt")
    classes = _table(root, "image_class_labels.txt", images)
    splits = _table(root, "train_test_split.txt", images)
    boxes = _table(root, "bounding_boxes.txt", images)
    masks = _segmentations(root)
    notes = _notes(root, images.values(), masks)
    samples = []
    for image, relative in images.items():
        number, split = classes[image], splits[image]
        if number not in names or not number.isdecimal():
            raise InputError(
                f"{root.path('image_class_labels.txt')}: image {image} has the class {number!r}, which classes.txt does not have"
            )
        if split not in _SPLITS:
            raise InputError(f"{root.path('train_test_split.txt')}: image {image} has {split!r}; write 1 for training, 0 for test")
        samples.append(
            Sample(
                image_id=relative,
                path=below(root.path(_IMAGES), relative),
                label=int(number) - 1,
                class_name=names[number],
                split=_SPLITS[split],
                masks=masks.get(relative.rpartition(".")[0]),
                bbox=_box(root, image, boxes[image]),
                root=root.local,
            )
        )
    return Listing(samples, notes)


CUB = DatasetKind("cub", CubConfig, read_cub)


def _notes(root: Root, images: Collection[str], masks: Mapping[str, Masks]) -> ListingNotes:
    """Count the images and segmentations that images.txt does not use.

    Images without a segmentation are a remark.
    """
    notes = ListingNotes()
    listed = {f"{_IMAGES}/{relative}" for relative in images}
    for relative in root.find(_IMAGES, notes):
        if has_image_suffix(relative) and relative not in listed:
            notes.leave_out("that images.txt does not name", relative)
    names = {relative.rpartition(".")[0] for relative in images}
    for name in masks.keys() - names:
        notes.leave_out("that are segmentations of no image", name)
    if masks and (without := names - masks.keys()):
        notes.remark(f"images without a segmentation, whose region is the box: {len(without):,} (such as {min(without)})")
    return notes


def _table(root: Root, name: str, images: Mapping[str, str] | None = None) -> dict[str, str]:
    """Read a file of CUB as a mapping from number to the rest of the line.

    Args:
        images: numbers that need exactly one line each, with no other lines. Default: any numbers.
    """
    table: dict[str, str] = {}
    for number, value in root.rows(name, 2):
        if number in table:
            raise InputError(f"{root.path(name)}: the number {number} has two lines; numbers must differ")
        table[number] = value.strip()
    if images is not None:
        if missing := images.keys() - table.keys():
            raise InputError(f"{root.path(name)}: no line for {_name_images(missing)} of images.txt; every image needs one")
        if foreign := table.keys() - images.keys():
            raise InputError(f"{root.path(name)}: a line for {_name_images(foreign)}, which images.txt does not have")
    return table


def _name_images(numbers: set[str]) -> str:
    """Name the lowest of some image numbers, and count the others."""
    first = min(numbers, key=lambda number: (len(number), number))
    return f"image {first}" if len(numbers) == 1 else f"image {first} and {len(numbers) - 1} more"


def _box(root: Root, image: str, text: str) -> tuple[float, float, float, float]:
    try:
        left, top, width, height = (float(number) for number in text.split())
    except ValueError:
        left = top = width = height = math.nan
    if not (math.isfinite(left + top + width + height) and width > 0 and height > 0):
        raise InputError(f"{root.path('bounding_boxes.txt')}: image {image} has the box {text!r}; write left top width height")
    return left, top, left + width, top + height


def _segmentations(root: Root) -> dict[str, Masks]:
    """Map each image's path to its segmentation.

    The path is below `images` and without suffix. The segmentations are in the dataset's folder or else next to it.
    """
    for folder in (root, root.parent()):
        paths = [path for path in folder.find(_SEGMENTATIONS) if path.endswith(".png")] if folder else []
        if folder and paths:
            masks_root = None if folder.local is None else f"{folder.local}/{_SEGMENTATIONS}"
            return {path[len(_SEGMENTATIONS) + 1 : -4]: Masks((folder.path(path),), root=masks_root) for path in paths}
    return {}

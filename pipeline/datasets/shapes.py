"""Ground truth as shapes in an image: boxes, polygons and run-length encodings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from hdm_core import Preprocess
from pipeline.datasets.errors import UnreadableError
from pipeline.datasets.polygon import fill_polygon
from pipeline.datasets.rle import decode_mask_of_runs
from pipeline.errors import one_line

Box = tuple[float, float, float, float]


def pack_shapes(boxes: Sequence[Box] = (), segmentations: Sequence[Any] = (), size: tuple[int, int] | None = None) -> str | None:
    """Return shapes as the text that a Sample has; None if there is none.

    A text of 1 byte per character takes a tenth of the memory of lists of floats, and a dataset may have millions of polygons.

    Args:
        boxes: (left, top, right, bottom) in pixels of the upright image.
        segmentations: COCO's: lists of polygons [x, y, x, y, ...], or objects with the keys `size` and `counts`.
        size: width and height that the image must have. None: not checked.
    """
    if not boxes and not segmentations:
        return None
    values = {"size": size, "boxes": list(boxes), "segmentations": list(segmentations)}
    return json.dumps({key: value for key, value in values.items() if value}, separators=(",", ":"))


def is_segmented(shapes: str) -> bool:
    """Return whether shapes have a segmentation, and not boxes alone."""
    return "segmentations" in json.loads(shapes)


def draw_shapes(shapes: str, size: tuple[int, int]) -> Image.Image:
    """Draw the union of shapes at the image's size, white on black, of the mode 1.

    A pixel is inside a box or a polygon if its centre is; COCO's own API may differ by one pixel along a polygon's boundary.

    Args:
        size: width and height of the upright image.

    Raises:
        UnreadableError: if the annotation is of an image of another size, or a shape is invalid.
    """
    values = _loaded(shapes, size)
    inside = np.zeros(size[::-1], dtype=bool)
    x, y = np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5
    for left, top, right, bottom in values.get("boxes", []):
        inside |= ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))[None, :]
    for segmentation in values.get("segmentations", []):
        try:
            inside |= _segmentation(segmentation, size)
        except (ValueError, TypeError, KeyError) as error:
            raise UnreadableError(f"a segmentation of its annotations is invalid: {one_line(error)}") from None
    return Image.fromarray(inside)


def region_of_shapes(shapes: str, size: tuple[int, int], preprocess: Preprocess) -> tuple[Tensor, str]:
    """Return the union of shapes after resize and crop.

    Returns:
        A mask, (H, W) bool, and its kind: segmentation or bbox, or none if no pixel of the image is inside.

    Raises:
        UnreadableError: if the annotation is of an image of another size, a shape is invalid, or all boxes lie outside the image.
    """
    if is_segmented(shapes):
        mask = draw_shapes(shapes, size)
        return preprocess.region(mask), "segmentation" if mask.getbbox() else "none"
    region = torch.zeros(preprocess.size, dtype=torch.bool)
    boxes = _loaded(shapes, size)["boxes"]
    if not any(right > 0 and bottom > 0 and left < size[0] and top < size[1] for left, top, right, bottom in boxes):
        raise UnreadableError(f"all of its {len(boxes)} boxes lie outside the image of {size[0]} x {size[1]}")
    for box in boxes:
        region |= preprocess.region_of_box(box, *size)
    return region, "bbox"


def _loaded(shapes: str, size: tuple[int, int]) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(shapes)
    expected = values.get("size")
    if expected is not None and tuple(expected) != size:
        raise UnreadableError(f"its annotations are of {expected[0]} x {expected[1]} pixels, the upright image has {size[0]} x {size[1]}")
    return values


def _segmentation(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    if isinstance(segmentation, Mapping):
        height, width = segmentation["size"]
        if (width, height) != size:
            raise ValueError(f"its mask is {width} x {height}, the image {size[0]} x {size[1]}")
        return decode_mask_of_runs(segmentation["counts"], height, width)
    inside = np.zeros(size[::-1], dtype=bool)
    for polygon in segmentation:
        inside |= fill_polygon(polygon, size[1], size[0])
    return inside

"""Crops of photographs, as the run recorded them and the network saw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from pipeline.datasets import Sample
from pipeline.datasets.images import UnreadableError, read_image


def read_crop(image: Mapping[str, Any], side: int, storage: Mapping[str, Any]) -> Image.Image:
    """Read the crop of a photograph that the network saw, side x side pixels, RGB.

    Args:
        image: row of images.parquet.
        side: pixels of each side of the result.
        storage: fsspec options.

    Raises:
        UnreadableError: if the photograph cannot be read any more, or has changed since the run.
    """
    decoded = read_image(Sample(image["image_id"], image["path"]), storage)
    if decoded.sha256 != image["sha256"]:
        raise UnreadableError(f"{image['path']} has changed since the run")
    return crop(decoded.image, image["crop"], side)


def crop(photograph: Image.Image, box: Sequence[float], side: int) -> Image.Image:
    """Crop a box to side x side pixels, padded with black beyond the photograph.

    Args:
        box: (left, top, right, bottom) in pixels of the photograph.
        side: pixels of each side of the result.
    """
    left, top, right, bottom = box
    inside = (max(left, 0.0), max(top, 0.0), min(right, photograph.width), min(bottom, photograph.height))
    scale_x, scale_y = side / (right - left), side / (bottom - top)
    position = (round((inside[0] - left) * scale_x), round((inside[1] - top) * scale_y))
    size = (round((inside[2] - left) * scale_x) - position[0], round((inside[3] - top) * scale_y) - position[1])
    cropped = Image.new("RGB", (side, side))
    cropped.paste(photograph.resize(size, Image.Resampling.BILINEAR, box=inside), position)
    return cropped

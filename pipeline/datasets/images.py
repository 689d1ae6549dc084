"""Reading of a sample's image and ground truth.

An image file gives its bytes, its checksum and upright pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from hdm_core import Preprocess
from hdm_core.photograph import Photograph
from pipeline.datasets.decode import decode_mask, decode_photograph
from pipeline.datasets.errors import UnreadableError
from pipeline.datasets.files import read_file
from pipeline.datasets.sample import Sample
from pipeline.datasets.shapes import draw_shapes, region_of_shapes

__all__ = ["DecodedImage", "UnreadableError", "read_file", "read_image", "read_mask", "read_region"]


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image, upright, with the checksum of its file.

    Upright means that the EXIF orientation is applied.

    Attributes:
        image: of the mode L or RGB, or (H, W, C) float32 in [0, 1] if it is deeper or has other channels.
        size: width and height of the upright photograph; `image` may be a smaller copy of it.
    """

    image: Photograph
    size: tuple[int, int]
    sha256: str


def read_image(
    sample: Sample, storage: Mapping[str, Any], preprocess: Preprocess | None = None, timeout: float = 10.0, channels: int | None = None
) -> DecodedImage:
    """Read and decode a sample's image.

    Args:
        preprocess: preprocessing whose channels and resize are applied; a large JPEG is then not decoded at full size.
        timeout: seconds for which requests to an object store are retried.
        channels: of the image, if there is no preprocessing; None for RGB with 8 bits, as a viewer shows it.

    Raises:
        StorageTimeoutError: if the object store does not answer: the image itself may be fine.
        UnreadableError: if there is no such file, it is no image, it has other channels, it is larger than Pillow's limit against
            decompression bombs, also after the resize, or its path leads out of the dataset's root.
    """
    data = read_file(sample.path, sample.root, storage, timeout)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        return DecodedImage(*decode_photograph(data, preprocess, channels if preprocess is None else preprocess.channels), sha256)
    except UnreadableError as error:
        error.sha256 = sha256
        raise


def read_region(
    sample: Sample, image: DecodedImage, preprocess: Preprocess, storage: Mapping[str, Any], timeout: float = 10.0
) -> tuple[Tensor, str]:
    """Read the ground truth after resize and crop.

    Return a mask, (H, W) bool, and its kind: segmentation, bbox or none.

    Empty masks have the kind none.

    Raises:
        UnreadableError: if a mask cannot be read or has another size than the image, or a shape is invalid, or the box lies outside the
            image.
    """
    if sample.masks is None and sample.shapes is not None:
        return region_of_shapes(sample.shapes, image.size, preprocess)
    if (mask := read_mask(sample, image.size, storage, timeout)) is not None:
        return preprocess.region(mask), "segmentation" if mask.getbbox() else "none"
    if sample.bbox is not None:
        left, top, right, bottom = sample.bbox
        if right <= 0 or bottom <= 0 or left >= image.size[0] or top >= image.size[1]:
            width, height = image.size
            raise UnreadableError(f"the box {left:g} {top:g} {right:g} {bottom:g} lies outside the image of {width} x {height}")
        return preprocess.region_of_box(sample.bbox, *image.size), "bbox"
    return torch.zeros(preprocess.size, dtype=torch.bool), "none"


def read_mask(sample: Sample, size: tuple[int, int], storage: Mapping[str, Any], timeout: float = 10.0) -> Image.Image | None:
    """Read the union of a sample's masks or shapes, white on black.

    None if it has neither.

    Args:
        size: width and height of the upright image.

    Raises:
        UnreadableError: if a mask cannot be read or has another size, or a shape is invalid.
    """
    if sample.masks is None:
        return None if sample.shapes is None else draw_shapes(sample.shapes, size)
    inside = np.zeros(size[::-1], dtype=bool)
    for path in sample.masks.paths:
        mask = decode_mask(read_file(path, sample.masks.root, storage, timeout))
        if mask.size != size:
            raise UnreadableError(f"the mask {path} is {mask.width} x {mask.height}, the image {size[0]} x {size[1]}")
        match sample.masks.ink:
            case "light":
                inside |= np.asarray(mask.convert("L")) >= 128
            case "dark":
                inside |= np.asarray(mask.convert("L")) < 128
            case "any":
                inside |= np.asarray(mask.convert("RGB")).any(axis=2)
    return Image.fromarray(inside)

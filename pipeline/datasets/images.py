"""From a Sample to the picture itself: bytes, checksum, pixels upright and in RGB."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from hdm_core import Preprocess
from pipeline.datasets.sample import Sample
from pipeline.errors import one_line


class UnreadableError(Exception):
    """The image cannot be had or is no image; its row gets the status `unreadable` with this text."""


@dataclass(frozen=True)
class Picture:
    """A decoded image: RGB, upright (EXIF orientation applied), with the checksum of its file."""

    image: Image.Image
    sha256: str


def read_picture(sample: Sample, storage: Mapping[str, Any]) -> Picture:
    """Reads and decodes a sample's image.

    Raises:
        UnreadableError: if there is no such file, it is no image, it is larger than Pillow's limit against decompression
            bombs, or its path leads out of the dataset's root.
    """
    data = _read(sample.path, sample.root, storage)
    image = _decode(data)
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette may hold transparency, which Pillow does not drop without a warning
    return Picture(image.convert("RGB"), hashlib.sha256(data).hexdigest())


def read_region(sample: Sample, picture: Picture, preprocess: Preprocess, storage: Mapping[str, Any]) -> tuple[Tensor, str]:
    """The ground truth as the network sees it, (crop, crop) bool, and what it is: segmentation, bbox or none.

    Raises:
        UnreadableError: if the mask cannot be read or has another size than the image.
    """
    if (mask := read_mask(sample, picture.image.size, storage)) is not None:
        return preprocess.region(mask), "segmentation"
    if sample.bbox is not None:
        return preprocess.region_of_box(sample.bbox, *picture.image.size), "bbox"
    return torch.zeros(preprocess.crop, preprocess.crop, dtype=torch.bool), "none"


def read_mask(sample: Sample, size: tuple[int, int], storage: Mapping[str, Any]) -> Image.Image | None:
    """The union of a sample's masks, white on black; None where it has none.

    Args:
        size: width and height of the upright image.

    Raises:
        UnreadableError: if a mask cannot be read or has another size.
    """
    if sample.masks is None:
        return None
    inside = np.zeros(size[::-1], dtype=bool)
    for path in sample.masks.paths:
        mask = _decode(_read(path, sample.masks.root, storage))
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


def _read(path: str, root: str | None, storage: Mapping[str, Any]) -> bytes:
    try:
        if "://" not in path:
            if root is not None and not Path(path).resolve().is_relative_to(Path(root).resolve()):
                raise UnreadableError(f"{path} leads out of the dataset's root {root}")
            return Path(path).read_bytes()
        with fsspec.open(path, "rb", **storage) as file:
            data: bytes = file.read()
    except (OSError, ValueError, ImportError, RuntimeError) as error:  # RuntimeError: a link that leads to itself
        raise UnreadableError(f"cannot read {path}: {one_line(error)}") from None
    return data


def _decode(data: bytes) -> Image.Image:
    if not data:
        raise UnreadableError("the file is empty")
    try:
        file = Image.open(io.BytesIO(data))
        file.load()
        image = ImageOps.exif_transpose(file)
    except UnidentifiedImageError:  # its own text holds a memory address, which would differ from run to run
        raise UnreadableError("no image of a format that is known") from None
    except Exception as error:  # broken bytes make Pillow's decoders raise whatever comes
        raise UnreadableError(f"the image cannot be decoded: {one_line(error)}") from None
    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        raise UnreadableError(f"pixels of Pillow's mode {image.mode} have no known range; save the image with 8 or 16 bits a channel")
    return image

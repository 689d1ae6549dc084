"""From a Sample to the picture itself: bytes, checksum, pixels upright and in RGB."""

from __future__ import annotations

import hashlib
import io
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import torch
from aiohttp import ClientResponseError
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from hdm_core import Preprocess
from pipeline.datasets.sample import Sample
from pipeline.errors import one_line
from pipeline.storage.retry import StorageTimeoutError, retry

# Pillow knows many more, rare and old, and hands one of them, EPS, to an interpreter of programs.
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
_MOST_BYTES = 1 << 30  # of a file: more than the largest picture that is decoded takes uncompressed
_OVERSAMPLING = 2  # a JPEG is never decoded to less than so many times the pixels that are kept, on each side


class UnreadableError(Exception):
    """The image cannot be had or is no image; its row gets the status `unreadable` with this text.

    Attributes:
        sha256: of the image's file, where it could be read and not decoded.
    """

    sha256: str | None = None


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image: RGB, upright (EXIF orientation applied), with the checksum of its file.

    Attributes:
        size: width and height of the upright photograph, which `image` may be a smaller copy of.
    """

    image: Image.Image
    size: tuple[int, int]
    sha256: str


def read_image(sample: Sample, storage: Mapping[str, Any], preprocess: Preprocess | None = None, timeout: float = 10.0) -> DecodedImage:
    """Reads and decodes a sample's image.

    Args:
        preprocess: what the image is for: it comes at the size to which this resizes, from a large JPEG without decoding all of it.
        patience: for so many seconds an object store is waited for.

    Raises:
        AwayError: if the object store does not come back: nothing can be said of the image then.
        UnreadableError: if there is no such file, it is no image, it is larger than Pillow's limit against decompression
            bombs, also after the resize, or its path leads out of the dataset's root.
    """
    data = read_file(sample.path, sample.root, storage, timeout)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        return DecodedImage(*_picture(data, preprocess), sha256)
    except UnreadableError as error:
        error.sha256 = sha256
        raise


def _picture(data: bytes, preprocess: Preprocess | None) -> tuple[Image.Image, tuple[int, int]]:
    image, size = _decode(data, preprocess)
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette may hold transparency, which Pillow does not drop without a warning
    image = image.convert("RGB")
    if preprocess is not None:
        image = image.resize(_resized(preprocess, *size), Image.Resampling[preprocess.interpolation.name])
    return image, size


def read_region(
    sample: Sample, picture: DecodedImage, preprocess: Preprocess, storage: Mapping[str, Any], timeout: float = 10.0
) -> tuple[Tensor, str]:
    """The ground truth as the network sees it, (crop, crop) bool, and what it is: segmentation, bbox or none.

    Masks in which nothing is marked are none.

    Raises:
        UnreadableError: if a mask cannot be read or has another size than the image, or the box lies outside of it.
    """
    if (mask := read_mask(sample, picture.size, storage, timeout)) is not None:
        return preprocess.region(mask), "segmentation" if mask.getbbox() else "none"
    if sample.bbox is not None:
        left, top, right, bottom = sample.bbox
        if right <= 0 or bottom <= 0 or left >= picture.size[0] or top >= picture.size[1]:
            width, height = picture.size
            raise UnreadableError(f"the box {left:g} {top:g} {right:g} {bottom:g} lies outside the image of {width} x {height}")
        return preprocess.region_of_box(sample.bbox, *picture.size), "bbox"
    return torch.zeros(preprocess.crop, preprocess.crop, dtype=torch.bool), "none"


def read_mask(sample: Sample, size: tuple[int, int], storage: Mapping[str, Any], timeout: float = 10.0) -> Image.Image | None:
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
        mask, _ = _decode(read_file(path, sample.masks.root, storage, timeout))
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


def read_file(path: str, root: str | None, storage: Mapping[str, Any], timeout: float = 10.0) -> bytes:
    """A file's bytes, local or at a URL.

    Args:
        patience: for so many seconds an object store is waited for.

    Raises:
        AwayError: if the object store does not come back.
        UnreadableError: if it cannot be read, is too large, or a local path leads out of the root.
    """

    def fetch() -> bytes:
        with fsspec.open(path, "rb", **storage) as file:
            _check_bytes(getattr(file, "size", None) or 0)  # a server may not say
            data: bytes = file.read(_MOST_BYTES + 1)
            _check_bytes(len(data))
        return data

    stored = not path.startswith(("http://", "https://"))  # any host may be gone for good, an object store comes back
    try:
        if "://" not in path:
            if root is not None and not Path(path).resolve().is_relative_to(Path(root).resolve()):
                raise UnreadableError(f"{path} leads out of the dataset's root {root}")
            facts = Path(path).stat()
            if not stat.S_ISREG(facts.st_mode):  # a FIFO would keep its reader waiting for ever
                raise UnreadableError(f"cannot read {path}: it is no file")
            _check_bytes(facts.st_size)
            return Path(path).read_bytes()
        return retry(fetch, timeout if stored else min(timeout, 10.0), path)
    except StorageTimeoutError as error:
        if stored:
            raise
        raise UnreadableError(one_line(error)) from None
    except (OSError, ValueError, ImportError, RuntimeError, ClientResponseError) as error:  # RuntimeError: a link that leads to itself
        raise UnreadableError(f"cannot read {path}: {one_line(error)}") from None


def _check_bytes(count: int) -> None:
    if count > _MOST_BYTES:
        raise UnreadableError(f"the file has more than {_MOST_BYTES / 2**30:g} GiB, which no image that is read has")


def _decode(data: bytes, preprocess: Preprocess | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """The upright image, perhaps smaller where a preprocessing is given, and the size that it has in full."""
    if not data:
        raise UnreadableError("the file is empty")
    try:
        file: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
        size = file.size
        image = file if preprocess is None else _draft(file, preprocess)
        image.load()
        turned = image.getexif().get(ExifTags.Base.Orientation) in {5, 6, 7, 8}
        image = ImageOps.exif_transpose(image)
    except UnreadableError:
        raise
    except UnidentifiedImageError:  # its own text holds a memory address, which would differ from run to run
        raise UnreadableError("no image of a format that is known") from None
    except Exception as error:  # broken bytes make Pillow's decoders raise whatever comes
        raise UnreadableError(f"the image cannot be decoded: {one_line(error)}") from None
    if image.mode.startswith("I;16"):  # Pillow would clip at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        raise UnreadableError(f"pixels of Pillow's mode {image.mode} have no known range; save the image with 8 or 16 bits a channel")
    return image, size[::-1] if turned else size


def _draft(file: Image.Image, preprocess: Preprocess) -> Image.Image:
    """A JPEG of at least four times the size that is needed, decoded at 1/2, 1/4 or 1/8 and resized; others as they are.

    JPEG's own scaling averages blocks of pixels. It leaves twice the pixels that are needed on both sides, and the filter of the
    resize does the rest.
    """
    size, (width, height) = file.size, _resized(preprocess, *file.size)
    drafted = file.draft("", (_OVERSAMPLING * width, _OVERSAMPLING * height))
    if drafted is None or file.size == size:
        return file
    return file.resize((width, height), Image.Resampling[preprocess.interpolation.name], box=drafted[1])


def _resized(preprocess: Preprocess, width: int, height: int) -> tuple[int, int]:
    across, down = preprocess.resized(width, height)
    if Image.MAX_IMAGE_PIXELS is not None and across * down > Image.MAX_IMAGE_PIXELS:
        raise UnreadableError(
            f"an image of {width} x {height} is too narrow: with a short side of {preprocess.resize} it is {across} x {down}"
        )
    return across, down

"""Decoding of a sample's image and ground truth.

An image file gives its bytes, its checksum and upright RGB pixels.
"""

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
from hdm_core.photograph import to_eight_bits, to_rgb
from hdm_core.sources.paths import local_path
from pipeline.datasets.formats import FORMATS
from pipeline.datasets.sample import Sample
from pipeline.errors import one_line
from pipeline.storage.retry import StorageTimeoutError, retry

_MAX_BYTES = 1 << 30  # of a file: more than the largest image that is decoded takes uncompressed
_OVERSAMPLING = 2  # a JPEG is decoded to at least this multiple of the resized width and height


class UnreadableError(Exception):
    """An image that cannot be read or decoded.

    Its record gets the status `unreadable` with the text of this error.

    Attributes:
        sha256: checksum of the image's file, if it could be read but not decoded.
    """

    sha256: str | None = None


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image in upright RGB with the checksum of its file.

    Upright means that the EXIF orientation is applied.

    Attributes:
        size: width and height of the upright photograph; `image` may be a smaller copy of it.
    """

    image: Image.Image
    size: tuple[int, int]
    sha256: str


def read_image(sample: Sample, storage: Mapping[str, Any], preprocess: Preprocess | None = None, timeout: float = 10.0) -> DecodedImage:
    """Read and decode a sample's image.

    Args:
        preprocess: preprocessing whose resize is applied; a large JPEG is then not decoded at full size.
        timeout: seconds for which requests to an object store are retried.

    Raises:
        StorageTimeoutError: if the object store does not answer: the image itself may be fine.
        UnreadableError: if there is no such file, it is no image, it is larger than Pillow's limit against decompression
            bombs, also after the resize, or its path leads out of the dataset's root.
    """
    data = read_file(sample.path, sample.root, storage, timeout)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        return DecodedImage(*_decode_rgb(data, preprocess), sha256)
    except UnreadableError as error:
        error.sha256 = sha256
        raise


def _decode_rgb(data: bytes, preprocess: Preprocess | None) -> tuple[Image.Image, tuple[int, int]]:
    """Decode an image to RGB and resize it; return it with its full size."""
    image, size = _decode(data, preprocess)
    try:
        image = to_rgb(image)
    except Exception as error:  # Pillow has no conversion for some modes
        raise UnreadableError(f"the image cannot be converted to RGB: {one_line(error)}") from None
    if preprocess is not None:
        image = image.resize(_resized(preprocess, *size), preprocess.resampling)
    return image, size


def read_region(
    sample: Sample, image: DecodedImage, preprocess: Preprocess, storage: Mapping[str, Any], timeout: float = 10.0
) -> tuple[Tensor, str]:
    """Read the ground truth after resize and crop.

    Return a mask, (crop, crop) bool, and its kind: segmentation, bbox or none.

    Empty masks have the kind none.

    Raises:
        UnreadableError: if a mask cannot be read or has another size than the image, or the box lies outside the image.
    """
    if (mask := read_mask(sample, image.size, storage, timeout)) is not None:
        return preprocess.region(mask), "segmentation" if mask.getbbox() else "none"
    if sample.bbox is not None:
        left, top, right, bottom = sample.bbox
        if right <= 0 or bottom <= 0 or left >= image.size[0] or top >= image.size[1]:
            width, height = image.size
            raise UnreadableError(f"the box {left:g} {top:g} {right:g} {bottom:g} lies outside the image of {width} x {height}")
        return preprocess.region_of_box(sample.bbox, *image.size), "bbox"
    return torch.zeros(preprocess.crop, preprocess.crop, dtype=torch.bool), "none"


def read_mask(sample: Sample, size: tuple[int, int], storage: Mapping[str, Any], timeout: float = 10.0) -> Image.Image | None:
    """Read the union of a sample's masks, white on black; None if it has no masks.

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
    """Read a file, local or at a URL.

    Args:
        timeout: seconds for which requests to an object store are retried.

    Raises:
        StorageTimeoutError: if the object store does not answer.
        UnreadableError: if the file cannot be read, is too large, or a local path leads out of the root.
    """

    def fetch() -> bytes:
        with fsspec.open(path, "rb", **storage) as file:
            _check_bytes(getattr(file, "size", None) or 0)  # a server may not send the size
            data: bytes = file.read(_MAX_BYTES + 1)
            _check_bytes(len(data))
        return data

    stored = not path.startswith(("http://", "https://"))  # a web host may be gone for good, an object store comes back
    try:
        if "://" not in path:
            path = str(local_path(path))
            if root is not None and not Path(path).resolve().is_relative_to(Path(root).resolve()):
                raise UnreadableError(f"{path} leads out of the dataset's root {root}")
            info = Path(path).stat()
            if not stat.S_ISREG(info.st_mode):  # reading a FIFO would block for ever
                raise UnreadableError(f"cannot read {path}: it is no file")
            _check_bytes(info.st_size)
            return Path(path).read_bytes()
        return retry(fetch, timeout if stored else min(timeout, 10.0), path)
    except StorageTimeoutError as error:
        if stored:
            raise
        raise UnreadableError(one_line(error)) from None
    except (OSError, ValueError, ImportError, RuntimeError, ClientResponseError) as error:  # RuntimeError: a symbolic link to itself
        raise UnreadableError(f"cannot read {path}: {one_line(error)}") from None


def _check_bytes(count: int) -> None:
    if count > _MAX_BYTES:
        raise UnreadableError(f"the file has more than {_MAX_BYTES / 2**30:g} GiB, which no image that is read has")


def _decode(data: bytes, preprocess: Preprocess | None = None) -> tuple[Image.Image, tuple[int, int]]:
    """Decode the upright image and return it with its full size.

    The image may be smaller than its full size if a preprocessing is given.
    """
    if not data:
        raise UnreadableError("the file is empty")
    try:
        file: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
        size = file.size
        image = file if preprocess is None else _draft(file, preprocess)
        image.load()
        turned = image.getexif().get(ExifTags.Base.Orientation) in {5, 6, 7, 8}
        image = to_eight_bits(ImageOps.exif_transpose(image), file)
    except UnreadableError:
        raise
    except UnidentifiedImageError:  # its own message has a memory address, which would differ from run to run
        raise UnreadableError("no image of a format that is known") from None
    except Exception as error:  # Pillow's decoders raise many types of errors on broken bytes
        raise UnreadableError(f"the image cannot be decoded: {one_line(error)}") from None
    return image, size[::-1] if turned else size


def _draft(file: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Decode a large JPEG at reduced size and resize it.

    A JPEG of at least four times the resized size is decoded at 1/2, 1/4 or 1/8. Other images are returned unchanged.

    JPEG's own scaling averages blocks of pixels. It leaves at least twice the resized width and height, and the filter of the resize
    does the rest.
    """
    size, (width, height) = file.size, _resized(preprocess, *file.size)
    drafted = file.draft("", (_OVERSAMPLING * width, _OVERSAMPLING * height))
    if drafted is None or file.size == size:
        return file
    return file.resize((width, height), preprocess.resampling, box=drafted[1])


def _resized(preprocess: Preprocess, width: int, height: int) -> tuple[int, int]:
    """Return width and height after the resize.

    Refuse an image that would exceed Pillow's limit.
    """
    new_width, new_height = preprocess.resized(width, height)
    if Image.MAX_IMAGE_PIXELS is not None and new_width * new_height > Image.MAX_IMAGE_PIXELS:
        raise UnreadableError(
            f"an image of {width} x {height} is too narrow: with a short side of {preprocess.resize} it is {new_width} x {new_height}"
        )
    return new_width, new_height

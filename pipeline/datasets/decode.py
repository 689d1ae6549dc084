"""Decoding of an image file's bytes to upright pixels."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from hdm_core import Preprocess
from hdm_core.photograph import Photograph, displayed, resize, to_known_range, to_rgb, with_channels
from pipeline.datasets.deep import read_deep
from pipeline.datasets.dicom import is_dicom, read_dicom
from pipeline.datasets.errors import UnreadableError
from pipeline.datasets.formats import FORMATS
from pipeline.datasets.tiff import read_tiff
from pipeline.errors import one_line

_OVERSAMPLING = 2  # a JPEG is decoded to at least this multiple of the resized width and height
_SWAPPED = {5, 6, 7, 8}  # values of EXIF's orientation that exchange width and height
_REVERSED = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}  # then rows and columns are reversed where -1

Decoded = tuple[Photograph, tuple[int, int]]  # the image, with its full width and height


def decode_photograph(data: bytes, preprocess: Preprocess | None, channels: int | None) -> Decoded:
    """Decode an image, convert its channels and resize it.

    Args:
        preprocess: preprocessing whose resize is applied; a large JPEG is then not decoded at full size.
        channels: that a network takes; None for RGB with 8 bits, as a viewer shows the image.

    Returns:
        The image, and its full width and height.

    Raises:
        UnreadableError: if it is no image, or has other channels.
    """
    pixels, size = _guarded(data, lambda: _decode(data, preprocess, channels or 3))
    try:
        image = to_rgb(pixels) if channels is None else with_channels(pixels, channels)
    except ValueError as error:
        raise UnreadableError(one_line(error)) from None
    except Exception as error:  # Pillow has no conversion for some modes
        raise UnreadableError(f"the image cannot be converted to RGB: {one_line(error)}") from None
    if preprocess is not None:
        image = resize(image, resized(preprocess, *size), preprocess.resampling)
    return image, size


def decode_mask(data: bytes) -> Image.Image:
    """Decode an upright mask, with 8 bits per channel.

    Raises:
        UnreadableError: if it is no image that Pillow reads.
    """
    pixels, _ = _guarded(data, lambda: _decode_by_pillow(data, None, 3))
    return pixels if isinstance(pixels, Image.Image) else displayed(pixels)


def _guarded(data: bytes, decode: Callable[[], Decoded]) -> Decoded:
    """Call a decoder, and turn its errors into an UnreadableError."""
    if not data:
        raise UnreadableError("the file is empty")
    try:
        return decode()
    except UnreadableError:
        raise
    except UnidentifiedImageError:  # its own message has a memory address, which would differ from run to run
        raise UnreadableError("no image of a format that is known") from None
    except Exception as error:  # decoders raise many types of errors on broken bytes
        raise UnreadableError(f"the image cannot be decoded: {one_line(error)}") from None


def _decode(data: bytes, preprocess: Preprocess | None, channels: int) -> Decoded:
    """Decode the upright image and return it with its full size.

    The image may be smaller than its full size if a preprocessing is given. Its channels are those of the file.

    Args:
        channels: that are needed; transparency is dropped unless it is one of them.
    """
    if is_dicom(data):
        return _with_size(read_dicom(data))
    if (deep := read_tiff(data, channels)) is not None:
        return _with_size(upright(*deep))
    return _decode_by_pillow(data, preprocess, channels)


def upright(pixels: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    """Apply an EXIF orientation to an array (H, W, C)."""
    if orientation in _SWAPPED:
        pixels = pixels.transpose(1, 0, 2)
    rows, columns = _REVERSED.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _with_size(pixels: NDArray[np.float32]) -> Decoded:
    """Return an array (H, W, C) with its width and height."""
    return pixels, (pixels.shape[1], pixels.shape[0])


def _decode_by_pillow(data: bytes, preprocess: Preprocess | None, channels: int) -> Decoded:
    file = Image.open(io.BytesIO(data), formats=FORMATS)
    size = file.size
    deep = read_deep(file, data, channels)
    image: Image.Image = file if preprocess is None else _draft(file, preprocess)
    image.load()
    orientation = image.getexif().get(ExifTags.Base.Orientation)
    full = size[::-1] if orientation in _SWAPPED else size
    if deep is not None:
        return upright(deep, int(orientation or 1)), full
    return to_known_range(ImageOps.exif_transpose(image), file), full


def _draft(file: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Decode a large JPEG at reduced size and resize it.

    A JPEG of at least four times the resized size is decoded at 1/2, 1/4 or 1/8. Other images are returned unchanged.

    JPEG's own scaling averages blocks of pixels. It leaves at least twice the resized width and height, and the filter of the resize
    does the rest.
    """
    if not isinstance(file, JpegImageFile):
        return file
    size, swapped = file.size, file.getexif().get(ExifTags.Base.Orientation) in _SWAPPED
    width, height = resized(preprocess, *size[::-1])[::-1] if swapped else resized(preprocess, *size)
    drafted = file.draft("", (_OVERSAMPLING * width, _OVERSAMPLING * height))
    if drafted is None or file.size == size:
        return file
    return file.resize((width, height), preprocess.resampling, box=drafted[1])


def resized(preprocess: Preprocess, width: int, height: int) -> tuple[int, int]:
    """Return width and height after the resize.

    Raises:
        UnreadableError: if the resized image would exceed Pillow's limit.
    """
    new_width, new_height = preprocess.resized(width, height)
    if Image.MAX_IMAGE_PIXELS is not None and new_width * new_height > Image.MAX_IMAGE_PIXELS:
        raise UnreadableError(
            f"an image of {width} x {height} is too narrow: with a short side of {preprocess.resize} it is {new_width} x {new_height}"
        )
    return new_width, new_height

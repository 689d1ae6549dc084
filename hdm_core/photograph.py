"""Photographs of any mode and depth, in the channels that a network takes.

8 bits per channel stay 8 bits, in an image of Pillow, so that Pillow resizes them. Everything deeper, and every other number of channels,
is an array (H, W, C) float32 in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import functional as F

from hdm_core.geometry import Size

Photograph = Image.Image | NDArray[Any]

# Tags of a TIFF file.
_BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339
_WHITE_IS_ZERO, _SEPARATE, _SIGNED = 0, 2, 2
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601-2, as Pillow converts RGB to grey
_BANDS = {"LA": 2, "RGBA": 4, "CMYK": 4}  # modes whose bands are channels for a network that takes as many


def with_channels(image: Photograph, channels: int) -> Photograph:
    """Convert a photograph to the channels that a network takes.

    One channel is grey, three are RGB; grey becomes RGB by repetition, RGB grey by ITU-R 601-2, and transparency is dropped. For any other
    number the photograph must have that many channels.

    Args:
        image: of any mode of Pillow; or an array (H, W) or (H, W, C) of bytes, of 16 bits, or of floats in [0, 1].

    Returns:
        An image of the mode L or RGB, or an array (H, W, channels) float32 in [0, 1].

    Raises:
        ValueError: if it has other channels, its pixels have no known range, or Pillow decodes them wrongly.
    """
    pixels = to_known_range(image)
    if isinstance(pixels, Image.Image):
        if channels == 1:
            return to_grey(pixels)
        if channels == 3:
            return to_rgb(pixels)
        if _BANDS.get(pixels.mode) != channels:
            raise ValueError(_mismatch(len(pixels.getbands()) if pixels.mode != "P" else 3, channels))
        pixels = _as_floats(np.asarray(pixels))
    found = pixels.shape[2]
    if found == channels:
        return pixels
    if {found, channels} == {1, 3}:
        grey = pixels @ np.array(_LUMA, np.float32)[:, None] if channels == 1 else pixels.repeat(3, axis=2)
        return np.ascontiguousarray(grey, np.float32)
    raise ValueError(_mismatch(found, channels))


def to_known_range(image: Photograph, source: Image.Image | None = None) -> Photograph:
    """Return 8 bits as they are, and 12 or 16 bits as floats (H, W, C) in [0, 1].

    Args:
        source: the opened file if `image` is a changed copy of it.

    Raises:
        ValueError: if the range of the pixels is unknown, or Pillow decodes them wrongly.
    """
    if not isinstance(image, Image.Image):
        return _from_array(image)
    source = image if source is None else source
    tags: Any = getattr(source, "tag_v2", {})
    bits = max(_as_tuple(tags.get(_BITS, 8)))
    if bits == 16 and tags.get(_PLANES) == _SEPARATE and source.info.get("compression") == "raw":
        # Pillow takes each byte of such a plane as a pixel, and returns half of the image twice as wide.
        raise ValueError("channels of 16 bits that are stored one after the other are not read; save the image with interleaved channels")
    if _SIGNED in _as_tuple(tags.get(_SAMPLE_FORMAT, 1)):
        raise ValueError("pixels that are signed integers have no known range; save the image with 8 or 16 bits per channel, unsigned")
    if image.mode.startswith("I;16"):
        largest = (1 << (bits if bits == 12 else 16)) - 1
        values = np.asarray(image).astype(np.float32) / largest
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts up to 8 bits only
            values = 1 - values
        return values[:, :, None]
    if image.mode == "I" and source.format == "PPM":  # Pillow scales it to 16 bits
        return (np.asarray(image).astype(np.float32) / 65535)[:, :, None]
    if image.mode in {"I", "F"}:
        raise ValueError(f"pixels of Pillow's mode {image.mode} have no known range; save the image with 8 or 16 bits per channel")
    return image


def to_rgb(image: Photograph) -> Image.Image:
    """Convert a photograph to RGB with 8 bits, as a viewer shows it on no background.

    Transparency is dropped, and colours under it remain.

    Raises:
        ValueError: as `to_known_range`, or if Pillow cannot convert the mode.
    """
    pixels = to_known_range(image)
    return _without_transparency(pixels).convert("RGB") if isinstance(pixels, Image.Image) else displayed(pixels)


def to_grey(image: Image.Image) -> Image.Image:
    """Convert an image with 8 bits to grey, by ITU-R 601-2 where it has colours.

    Raises:
        ValueError: if Pillow cannot convert the mode.
    """
    image = _without_transparency(image)
    return image if image.mode == "L" else image.convert("L" if image.mode in {"1", "LA"} else "RGB").convert("L")


def displayed(pixels: NDArray[np.floating]) -> Image.Image:
    """Return RGB with 8 bits of an array (H, W, C) in [0, 1].

    One or two channels are shown as grey, of which the first counts; of three or more the first three are red, green and blue.
    """
    eight = (np.rint(np.clip(pixels, 0, 1) * 65535).astype(np.uint16) >> 8).astype(np.uint8)
    shown = eight[:, :, :3] if eight.shape[2] > 2 else eight[:, :, :1].repeat(3, axis=2)
    return Image.fromarray(np.ascontiguousarray(shown))


def resize(pixels: Photograph, size: tuple[int, int], resampling: Image.Resampling) -> Photograph:
    """Resize what `with_channels` returns, by Pillow's filter, with antialiasing.

    Args:
        size: width and height.
    """
    if isinstance(pixels, Image.Image):
        return pixels.resize(size, resampling)
    if pixels.shape[1::-1] == size:
        return pixels
    channels = [Image.fromarray(np.ascontiguousarray(channel)).resize(size, resampling) for channel in pixels.transpose(2, 0, 1)]
    resized = np.stack([np.asarray(channel) for channel in channels], axis=2)
    return resized.clip(0, 1)  # bicubic and Lanczos overshoot, which 8 bits cut off as well


def cut_or_fill(pixels: Photograph, start: tuple[int, int], size: Size, fill: Sequence[float]) -> Tensor:
    """Cut a rectangle out of what `resize` returns, and fill what lies beyond it.

    Args:
        start: first column and row of the rectangle; negative beyond the pixels.
        size: height and width of the result.
        fill: value of each channel beyond the pixels, in [0, 1].

    Returns:
        (C, H, W) float32 in [0, 1].
    """
    width, height = pixels.size if isinstance(pixels, Image.Image) else pixels.shape[1::-1]
    (rows, columns), (left, top) = size, start
    # Only what is cut out is converted to floats.
    inside = max(left, 0), max(top, 0), min(left + columns, width), min(top + rows, height)
    if isinstance(pixels, Image.Image):
        part: Tensor = F.to_tensor(pixels.crop(inside))
    else:
        part = torch.from_numpy(np.ascontiguousarray(pixels[inside[1] : inside[3], inside[0] : inside[2]].transpose(2, 0, 1)))
    if part.shape[1:] == size:
        return part
    canvas = torch.tensor(fill, dtype=torch.float32)[:, None, None].repeat(1, rows, columns)
    canvas[:, inside[1] - top : inside[3] - top, inside[0] - left : inside[2] - left] = part
    return canvas


def _without_transparency(image: Image.Image) -> Image.Image:
    """Return an image in a mode from which Pillow converts to RGB and grey."""
    if image.mode in {"P", "PA"}:
        return image.convert("RGBA")  # a palette may have transparency, which Pillow drops only with a warning
    return image.convert("LA") if image.mode == "La" else image


def _from_array(array: NDArray[Any]) -> NDArray[np.float32]:
    """Return an array of bytes, of 16 bits or of floats as floats (H, W, C)."""
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ValueError(f"a photograph as an array has the shape (H, W) or (H, W, C), not {array.shape}")
    floats = _as_floats(array if array.ndim == 3 else array[:, :, None])
    if not (floats.min() >= 0 and floats.max() <= 1):
        raise ValueError(f"a photograph of floats has values in 0 to 1, not {floats.min():g} to {floats.max():g}")
    return floats


def _as_floats(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype in (np.uint8, np.uint16):
        return array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)
    if array.dtype.kind not in "fb":
        raise ValueError(f"pixels of type {array.dtype} have no known range; give bytes, 16 bits unsigned, or floats in 0 to 1")
    return array.astype(np.float32)


def _mismatch(found: int, channels: int) -> str:
    return f"the image has {found} channel{'' if found == 1 else 's'}, and the network takes {channels}"


def _as_tuple(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)

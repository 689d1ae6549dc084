"""Photographs of any Pillow mode as RGB with 8 bits per channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

# Tags of a TIFF file.
_BITS, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339
_WHITE_IS_ZERO, _SEPARATE, _SIGNED = 0, 2, 2


def to_rgb(image: Image.Image, source: Image.Image | None = None) -> Image.Image:
    """Convert an image to RGB, as a viewer shows it on no background.

    Transparency is dropped, and colours under it remain.

    Args:
        source: the opened file if `image` is a changed copy of it.

    Raises:
        ValueError: as `to_eight_bits`, or if Pillow cannot convert the mode.
    """
    image = to_eight_bits(image, source)
    if image.mode in {"P", "PA"}:
        image = image.convert("RGBA")  # a palette may have transparency, which Pillow drops only with a warning
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGB")


def to_eight_bits(image: Image.Image, source: Image.Image | None = None) -> Image.Image:
    """Scale an image with 12 or 16 bits of grey to 8; return others unchanged.

    Pillow's own conversion would clip at 255, which makes most of the image white.

    Args:
        source: the opened file if `image` is a changed copy of it.

    Raises:
        ValueError: if the range of the pixels is unknown, or Pillow decodes them wrongly.
    """
    source = image if source is None else source
    tags: Any = getattr(source, "tag_v2", {})
    bits = max(_as_tuple(tags.get(_BITS, 8)))
    if bits == 16 and tags.get(_PLANES) == _SEPARATE and source.info.get("compression") == "raw":
        # Pillow takes each byte of such a plane as a pixel, and returns half of the image twice as wide.
        raise ValueError("channels of 16 bits that are stored one after the other are not read; save the image with interleaved channels")
    if _SIGNED in _as_tuple(tags.get(_SAMPLE_FORMAT, 1)):
        raise ValueError("pixels that are signed integers have no known range; save the image with 8 or 16 bits per channel, unsigned")
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16) << (16 - bits if bits == 12 else 0)
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts up to 8 bits only
            values = ~values
        return Image.fromarray((values >> 8).astype(np.uint8))
    if image.mode == "I" and source.format == "PPM":  # Pillow scales it to 16 bits
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in {"I", "F"}:
        raise ValueError(f"pixels of Pillow's mode {image.mode} have no known range; save the image with 8 or 16 bits per channel")
    return image


def _as_tuple(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)

"""Colours of 16 bits in PNG and TIFF, of which Pillow reads the upper 8 only."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.ImageFile import ImageFile

from pipeline.datasets.formats import FORMATS

# Pillow unpacks one byte of each value: the first of big-endian values, the second of little-endian ones. Read with the other order of
# bytes, the same file gives the lower byte. N is the order of this machine, in which libtiff gives its values.
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B"}
_COLOURS = ("RGB;16", "RGBA;16", "RGBX;16")
_GREY_WITH_ALPHA = "LA;16B"  # of PNG: as RGBA of 8 bits these are the two bytes of grey, and the two of alpha


def read_deep(file: ImageFile, data: bytes, channels: int) -> NDArray[np.float32] | None:
    """Read colours of 16 bits as (H, W, C) in [0, 1]; None for other images.

    Args:
        file: the opened file, before `load`.
        data: its bytes.
        channels: that are needed; transparency is dropped unless it is one of them.
    """
    rawmode = _rawmode(file)
    if file.mode not in {"RGB", "RGBA"} or not (rawmode.startswith(_COLOURS) or rawmode == _GREY_WITH_ALPHA):
        return None
    if rawmode == _GREY_WITH_ALPHA:
        unpacked = _decoded(data, "RGBA").astype(np.uint16)
        values = (unpacked[:, :, ::2] << 8) | unpacked[:, :, 1::2]
    else:
        upper, lower = _decoded(data, rawmode), _decoded(data, rawmode[:-1] + _OTHER_ORDER[rawmode[-1]])
        values = (upper.astype(np.uint16) << 8) | lower
    if values.shape[2] in (2, 4) and values.shape[2] != channels:
        values = values[:, :, :-1]
    return values.astype(np.float32) / np.float32(65535)


def _rawmode(file: ImageFile) -> str:
    """Return Pillow's name of the layout of a file's pixels; empty if it has several."""
    names = {tile.args[0] if isinstance(tile.args, tuple) else tile.args for tile in file.tile}
    return str(names.pop()) if len(names) == 1 else ""


def _decoded(data: bytes, rawmode: str) -> NDArray[np.uint8]:
    """Decode a file with another layout of the pixels."""
    with Image.open(io.BytesIO(data), formats=FORMATS) as file:
        file.tile = [tile._replace(args=(rawmode, *tile.args[1:]) if isinstance(tile.args, tuple) else rawmode) for tile in file.tile]
        return np.asarray(file)

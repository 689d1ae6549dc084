"""PNGs with colours or transparency of 16 bits, of which Pillow reads 8 only."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.io import ImageReadMode, decode_image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BITS, _COLOUR_TYPE = 24, 25  # positions of two bytes of the header
_SAMPLES = {2: 3, 4: 2, 6: 4}  # colour type -> channels, of the types that Pillow cuts to 8 bits
_WITH_ALPHA = (4, 6)


def is_deep_png(data: bytes) -> bool:
    """Return True for a PNG of 16 bits that is not plain grey."""
    return data[:8] == _SIGNATURE and len(data) > _COLOUR_TYPE and data[_BITS] == 16 and data[_COLOUR_TYPE] in _SAMPLES


def read_deep_png(data: bytes, channels: int) -> NDArray[np.float32]:
    """Read such a PNG as (H, W, C) in [0, 1].

    Args:
        channels: that are needed; transparency is dropped unless it is one of them.
    """
    encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    values = decode_image(encoded, ImageReadMode.UNCHANGED).numpy().transpose(1, 2, 0)
    if data[_COLOUR_TYPE] in _WITH_ALPHA and channels != values.shape[2]:
        values = values[:, :, :-1]
    return values.astype(np.float32) / 65535

"""TIFFs that Pillow does not read whole: grey pages, and many channels."""

from __future__ import annotations

import importlib
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from hdm_core.photograph import to_known_range, with_channels
from pipeline.datasets.errors import UnreadableError, refuse_bomb

_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BIG = 43  # of the signature of a file of more than 4 GiB
_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA = 254, 256, 257, 258, 262, 277, 338
_ORIENTATION, _PLANES, _SAMPLE_FORMAT = 274, 284, 339
_SEPARATE = 2
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_UNSIGNED = 1
_ALPHA = (1, 2)  # kinds of extra samples
_MOST_PAGES = 1024

Tags = Mapping[int, Any]


def read_tiff(data: bytes, channels: int) -> tuple[NDArray[np.float32], int] | None:
    """Read a TIFF of several grey pages, or of channels that Pillow has no mode for.

    Pages of one size and one channel each are the channels of the image; previews are left out, and of pages in colour the first is read.

    Args:
        channels: that are needed; transparency is dropped unless it is one of them.

    Returns:
        (H, W, C) in [0, 1], and the orientation; None for another file, which Pillow reads.

    Raises:
        UnreadableError: if it needs tifffile, which is not installed, or its values have no known range.
    """
    if data[:4] not in _SIGNATURES:
        return None
    try:
        pages = _directories(data)
    except Exception:  # Pillow names what is broken
        return None
    if not pages:
        return None
    first = pages[0]
    samples, orientation = int(first.get(_SAMPLES, 1)), int(first.get(_ORIENTATION, 1))
    if samples > 1:
        deep = max(_as_tuple(first.get(_BITS, 1))) > 8
        unknown = samples > 4 or (deep and (samples == 2 or first.get(_PLANES) == _SEPARATE))
        return (_read_channels(data, first, channels), orientation) if unknown else None
    full = [number for number, page in enumerate(pages) if _is_grey(page) and _size(page) == _size(first) and not _is_preview(page)]
    if len(full) < 2 or full[0] != 0:
        return None
    return _read_pages(data, full), orientation


def _directories(data: bytes) -> list[Tags]:
    """Return the tags of every page."""
    file = io.BytesIO(data)
    header = file.read(8)
    if header[2] == _BIG or header[3] == _BIG:
        header += file.read(8)
    directory = TiffImagePlugin.ImageFileDirectory_v2(header)
    pages: list[Tags] = []
    offsets: set[int] = set()
    while directory.next and directory.next not in offsets and len(pages) < _MOST_PAGES:
        offsets.add(directory.next)
        file.seek(directory.next)
        directory.load(file)
        pages.append({tag: directory[tag] for tag in directory if tag in _READ})
    return pages


_READ = frozenset({_SUBFILE, _WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _EXTRA, _ORIENTATION, _PLANES, _SAMPLE_FORMAT})


def _read_pages(data: bytes, numbers: list[int]) -> NDArray[np.float32]:
    """Read grey pages as channels, (H, W, pages)."""
    pages = []
    with Image.open(io.BytesIO(data), formats=("TIFF",)) as file:
        for number in numbers:
            file.seek(number)
            page = with_channels(to_known_range(file.copy(), file), 1)
            pages.append(page if isinstance(page, np.ndarray) else np.asarray(page, np.float32)[:, :, None] / np.float32(255))
    return np.concatenate(pages, axis=2)


def _read_channels(data: bytes, page: Tags, channels: int) -> NDArray[np.float32]:
    """Read the first page by tifffile, (H, W, C)."""
    bits, samples, photometric = max(_as_tuple(page.get(_BITS, 1))), int(page[_SAMPLES]), page.get(_PHOTOMETRIC)
    kind = f"a TIFF with {samples} channels of {bits} bits"
    refuse_bomb(*_size(page), samples)
    if photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        raise UnreadableError(f"{kind} is read as grey or RGB only, not as photometric interpretation {photometric}: save it as RGB")
    if bits > 16 or set(_as_tuple(page.get(_SAMPLE_FORMAT, _UNSIGNED))) != {_UNSIGNED}:
        raise UnreadableError("its pixels have no known range; save the image with 8 or 16 bits per channel, unsigned")
    try:
        tifffile: Any = importlib.import_module("tifffile")
    except ModuleNotFoundError:
        raise UnreadableError(f"{kind} is read by tifffile, which is not installed: pip install 'hdm-pipeline[tiff]'") from None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        values, axes = file.pages[0].asarray(), file.pages[0].axes
    if axes not in ("YXS", "SYX"):
        raise UnreadableError(f"{kind} has the axes {axes}, not rows, columns and channels")
    values = (values if axes == "YXS" else values.transpose(1, 2, 0)).astype(np.float32) / ((1 << bits) - 1)
    extra = _as_tuple(page.get(_EXTRA, ()))
    if extra and extra[-1] in _ALPHA and channels != samples:
        values = values[:, :, :-1]
    pixels: NDArray[np.float32] = 1 - values if photometric == _WHITE_IS_ZERO else values
    return pixels


def _is_grey(page: Tags) -> bool:
    return int(page.get(_SAMPLES, 1)) == 1 and page.get(_PHOTOMETRIC) in (_WHITE_IS_ZERO, _BLACK_IS_ZERO)


def _is_preview(page: Tags) -> bool:
    return bool(int(page.get(_SUBFILE, 0)) & 1)


def _size(page: Tags) -> tuple[int, int]:
    return int(page[_WIDTH]), int(page[_HEIGHT])


def _as_tuple(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)

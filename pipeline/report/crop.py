"""Crops of photographs, as the run recorded them and the network saw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from hdm_core.geometry import Geometry, Size
from hdm_core.photograph import displayed
from pipeline.runs.photographs import read_photograph

Colour = tuple[int, int, int]
BLACK: Colour = (0, 0, 0)


def read_crop(
    image: Mapping[str, Any], size: Size, storage: Mapping[str, Any], fill: Colour = BLACK, root: str | None = None
) -> Image.Image:
    """Read the crop of a photograph that the network saw, RGB.

    Args:
        image: row of images.parquet.
        size: height and width of the result.
        storage: fsspec options.
        fill: of what lies beyond the photograph.
        root: folder that a local path must not leave.

    Raises:
        UnreadableError: if the photograph cannot be read any more, or has changed since the run.
    """
    return crop(read_photograph(image, storage, root), image["crop"], size, fill)


def fill_colour(info: Mapping[str, Any]) -> Colour:
    """Return the colour with which a run's network saw what lies beyond a photograph.

    Args:
        info: run.json.
    """
    fill = (info.get("interface") or {}).get("fill", 0.0)
    red, green, blue = np.asarray(displayed(np.reshape(fill, (1, 1, -1))))[0, 0].tolist()
    return red, green, blue


def crop(photograph: Image.Image, box: Sequence[float], size: Size, fill: Colour = BLACK) -> Image.Image:
    """Crop a box to height x width pixels, filled beyond the photograph.

    Args:
        box: (left, top, right, bottom) in pixels of the photograph.
        size: height and width of the result.
        fill: of what lies beyond the photograph.
    """
    left, top, right, bottom = box
    geometry = Geometry((left, top, right, bottom), size)
    inside = geometry.visible(*photograph.size)
    position, end = (tuple(map(round, geometry.to_input(x, y))) for x, y in (inside[:2], inside[2:]))
    cropped = Image.new("RGB", size[::-1], fill)
    resized = photograph.resize((end[0] - position[0], end[1] - position[1]), Image.Resampling.BILINEAR, box=inside)
    cropped.paste(resized, (position[0], position[1]))
    return cropped

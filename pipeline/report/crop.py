"""What the network saw of a photograph, cut out of it again by the crop that the run wrote down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from pipeline.datasets import Sample
from pipeline.datasets.images import UnreadableError, read_image


def read_crop(image: Mapping[str, Any], side: int, storage: Mapping[str, Any]) -> Image.Image:
    """The crop of a row of images.parquet, side x side pixels in RGB.

    Raises:
        UnreadableError: if the photograph cannot be had any more, or is another one than the run explained.
    """
    picture = read_image(Sample(image["image_id"], image["path"]), storage)
    if picture.sha256 != image["sha256"]:
        raise UnreadableError(f"{image['path']} has changed since the run")
    return crop(picture.image, image["crop"], side)


def crop(photograph: Image.Image, crop: Sequence[float], side: int) -> Image.Image:
    """A box (left, top, right, bottom) of the photograph as a side x side picture, black where it reaches beyond the photograph."""
    left, top, right, bottom = crop
    inside = (max(left, 0.0), max(top, 0.0), min(right, photograph.width), min(bottom, photograph.height))
    across, down = side / (right - left), side / (bottom - top)
    place = (round((inside[0] - left) * across), round((inside[1] - top) * down))
    size = (round((inside[2] - left) * across) - place[0], round((inside[3] - top) * down) - place[1])
    view = Image.new("RGB", (side, side))
    view.paste(photograph.resize(size, Image.Resampling.BILINEAR, box=inside), place)
    return view

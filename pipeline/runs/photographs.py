"""Photographs of a run, as they were when it explained them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image

from hdm_core.photograph import to_rgb
from pipeline.datasets.images import UnreadableError, read_image
from pipeline.datasets.sample import Sample


def read_photograph(image: Mapping[str, Any], storage: Mapping[str, Any], root: str | None = None) -> Image.Image:
    """Read a whole photograph, RGB and upright: its EXIF orientation is applied.

    Args:
        image: row of images.parquet, with the facts of its shard.
        storage: fsspec options.
        root: folder that a local path must not leave.

    Raises:
        UnreadableError: if the photograph cannot be read any more, or has changed since the run.
    """
    decoded = read_image(Sample(image["image_id"], image["path"], root=root), storage)
    if decoded.sha256 != image["sha256"]:
        raise UnreadableError(f"{image['path']} has changed since the run")
    return to_rgb(decoded.image)

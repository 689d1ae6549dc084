"""Outlines of the ground truth, listed from the dataset at their first use."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageChops, ImageFilter

from hdm_core.geometry import Size
from pipeline.config.load import load_config
from pipeline.datasets import Sample, list_samples
from pipeline.datasets.images import UnreadableError
from pipeline.report.crop import crop
from pipeline.report.ground_truth import draw_region
from pipeline.runs import RunStore

MOST_IMAGES = 100_000  # of a run whose dataset is listed again: a million samples would take half a GiB

_INNER, _OUTER = (255, 255, 255, 255), (0, 0, 0, 255)  # visible on light and dark photographs


class Truths:
    """Ground truth of a run's images, from its dataset."""

    def __init__(self, store: RunStore, info: Mapping[str, Any]) -> None:
        self._info = info
        self._samples: Sequence[Sample] | None = None
        self._lock = threading.Lock()

    def outline(self, image: Mapping[str, Any], size: Size) -> Image.Image:
        """Draw the outline of an image's region, RGBA, transparent elsewhere.

        Args:
            image: row of images.parquet.
            size: height and width of the crop.

        Raises:
            UnreadableError: if the ground truth cannot be read any more, or the dataset has changed.
            InputError: if the dataset cannot be listed any more.
        """
        if self._info["images"] > MOST_IMAGES:
            raise UnreadableError(f"ground truth is shown for runs of at most {MOST_IMAGES:,} images")
        with self._lock:
            if self._samples is None:
                config = load_config(self._info["config"])
                self._samples = list_samples(config.dataset, config.storage)
        row = image["row"]
        if row >= len(self._samples) or self._samples[row].image_id != image["image_id"]:
            raise UnreadableError("the dataset has changed since the run")
        region = draw_region(self._samples[row], (image["width"], image["height"]), self._info["config"]["storage"])
        inside = crop(region, image["crop"], size).convert("L").point(lambda grey: 255 * (grey >= 128))
        return draw_outline(inside)


def draw_outline(inside: Image.Image) -> Image.Image:
    """Draw the border of a region, white on black, as RGBA.

    Its inner pixels are white, and those around them black.

    Args:
        inside: of the mode L, 255 in the region.
    """
    # A ring of zeros, so that a region that reaches the edge has a border there.
    padded = Image.new("L", (inside.width + 4, inside.height + 4))
    padded.paste(inside, (2, 2))
    inner = ImageChops.subtract(padded, padded.filter(ImageFilter.MinFilter(3)))
    outer = ImageChops.subtract(padded.filter(ImageFilter.MaxFilter(3)), padded)
    drawn = Image.new("RGBA", padded.size)
    drawn.paste(_OUTER, mask=outer)
    drawn.paste(_INNER, mask=inner)
    return drawn.crop((2, 2, inside.width + 2, inside.height + 2))

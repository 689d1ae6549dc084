"""A shard's images, read and decoded side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from hdm_core import Preprocess
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.datasets.checksums import truth_sha256
from pipeline.datasets.images import DecodedImage, UnreadableError, read_image, read_region
from pipeline.errors import one_line

_READERS = 8  # images that are read and decoded at once


@dataclass(frozen=True)
class LoadedSample:
    """A sample whose image could be read.

    Attributes:
        row: within the shard.
        region: (crop, crop) bool, the ground truth as the network sees it.
        kind: of the region: segmentation, bbox or none.
        facts: what reading the image told, for images.parquet.
    """

    row: int
    image: DecodedImage
    region: Tensor
    kind: str
    image_facts: dict[str, Any]


@dataclass(frozen=True)
class UnreadableSample:
    """A sample whose image could not be read, and why.

    Attributes:
        facts: for images.parquet: the checksum of a file that is there and no image.
    """

    row: int
    error: str
    image_facts: dict[str, Any]


def read_batches(
    samples: Sequence[Sample], config: RunConfig, preprocess: Preprocess, batch: int, rows: Sequence[int] | None = None
) -> Iterator[list[LoadedSample | UnreadableSample]]:
    """The samples in order, or those of some rows, `batch` at a time: no more than that many pictures are held at once."""
    wanted = range(len(samples)) if rows is None else rows

    def read(row: int) -> LoadedSample | UnreadableSample:
        try:
            picture = read_image(samples[row], config.storage, preprocess, config.compute.storage_timeout)
            region, kind = read_region(samples[row], picture, preprocess, config.storage, config.compute.storage_timeout)
            truth = truth_sha256(samples[row], config.storage, config.compute.storage_timeout)
        except UnreadableError as error:
            return UnreadableSample(row, one_line(error), {"sha256": error.sha256})
        width, height = picture.size
        facts = {
            "sha256": picture.sha256,
            "truth_sha256": truth,
            "width": width,
            "height": height,
            "crop": preprocess.crop_box(width, height),
        }
        return LoadedSample(row, picture, region, kind, facts)

    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(wanted), batch):
            yield list(readers.map(read, wanted[start : start + batch]))

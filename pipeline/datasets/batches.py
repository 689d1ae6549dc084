"""Batches of a shard's images and ground truth, read and decoded in parallel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from hdm_core import Preprocess
from hdm_core.device_errors import is_fatal
from pipeline.datasets.checksums import truth_sha256
from pipeline.datasets.images import DecodedImage, UnreadableError, read_image, read_region
from pipeline.datasets.sample import Sample
from pipeline.errors import HdmError, one_line

_READERS = 8  # images that are read and decoded at the same time


@dataclass(frozen=True)
class LoadedSample:
    """A sample whose image was read.

    Attributes:
        row: row within the shard.
        region: (crop, crop) bool, the ground truth after the preprocessing's resize and crop.
        kind: kind of the region: segmentation, bbox or none.
        image_facts: the image's columns of images.parquet.
    """

    row: int
    image: DecodedImage
    region: Tensor
    kind: str
    image_facts: dict[str, Any]


@dataclass(frozen=True)
class UnreadableSample:
    """A sample whose image could not be read, with the reason.

    Attributes:
        row: row within the shard.
        status: `unreadable` if the file or its ground truth is at fault; `failed` for any other error, which need not come back.
        image_facts: the image's columns of images.parquet: the checksum, if there is a file that is no image.
    """

    row: int
    error: str
    image_facts: dict[str, Any]
    status: Literal["unreadable", "failed"] = "unreadable"


def read_batches(
    samples: Sequence[Sample],
    storage: Mapping[str, Any],
    preprocess: Preprocess,
    batch: int,
    rows: Sequence[int] | None = None,
    *,
    timeout: float,
) -> Iterator[list[LoadedSample | UnreadableSample]]:
    """Read samples in order, in batches.

    At most `batch` decoded images are in memory at the same time.

    Args:
        storage: fsspec options for paths that are URLs.
        rows: rows of the samples to read. Default: all.
        timeout: seconds for which requests to an object store are retried.

    Raises:
        RunError: if the object store does not answer.
    """
    selected = range(len(samples)) if rows is None else rows

    def read(row: int) -> LoadedSample | UnreadableSample:
        try:
            image = read_image(samples[row], storage, preprocess, timeout)
            region, kind = read_region(samples[row], image, preprocess, storage, timeout)
            width, height = image.size
            facts = {
                "sha256": image.sha256,
                "truth_sha256": truth_sha256(samples[row], storage, timeout),
                "width": width,
                "height": height,
                "crop": preprocess.crop_box(width, height),
            }
            return LoadedSample(row, image, region, kind, facts)
        except UnreadableError as error:
            return UnreadableSample(row, one_line(error), {"sha256": error.sha256})
        except HdmError:
            raise
        except Exception as error:  # of a decoder, a storage library or the preprocessing: it costs this image only
            if is_fatal(error):
                raise
            return UnreadableSample(row, f"{type(error).__name__}: {one_line(error)}", {"sha256": None}, "failed")

    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(selected), batch):
            yield list(readers.map(read, selected[start : start + batch]))

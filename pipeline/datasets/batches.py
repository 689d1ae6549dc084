"""Batches of a shard's images and ground truth, read one batch ahead on threads."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from hdm_core import Preprocess
from hdm_core.device_errors import is_fatal
from hdm_core.photograph import Photograph
from pipeline.datasets.checksums import truth_sha256
from pipeline.datasets.images import UnreadableError, read_image, read_region
from pipeline.datasets.sample import Sample
from pipeline.errors import HdmError, one_line

_log = logging.getLogger(__name__)

_READERS = 8  # images that are read, decoded and preprocessed at the same time


@dataclass(frozen=True)
class LoadedSample:
    """A sample whose image was read.

    Attributes:
        row: row within the shard.
        image: (C, H, W) as the preprocessing gives it.
        region: (H, W) bool, the ground truth after the preprocessing's resize and crop.
        kind: kind of the region: segmentation, bbox or none.
        image_facts: the image's columns of images.parquet.
    """

    row: int
    image: Tensor
    region: Tensor
    kind: str
    image_facts: dict[str, Any]


@dataclass(frozen=True)
class UnreadableSample:
    """A sample whose image could not be read or preprocessed, with the reason.

    Attributes:
        row: row within the shard.
        status: `unreadable` if the file or its ground truth is at fault; `failed` for any other error, which need not come back.
        image_facts: the image's columns of images.parquet: all if the preprocessing failed; the checksum, if there is a file that is no
            image.
    """

    row: int
    error: str
    image_facts: dict[str, Any]
    status: Literal["unreadable", "failed"] = "unreadable"


@dataclass(frozen=True)
class LoadedBatch:
    """Samples that were read together.

    Attributes:
        items: in the order of the samples.
        images: (B, C, H, W), the images of the B loaded samples, whose own images are views of it; None if there is none, or they
            differ in size.
    """

    items: Sequence[LoadedSample | UnreadableSample]
    images: Tensor | None

    @property
    def loaded(self) -> list[LoadedSample]:
        """Samples whose images were read, in order."""
        return [item for item in self.items if isinstance(item, LoadedSample)]


def read_batches(
    samples: Sequence[Sample],
    storage: Mapping[str, Any],
    preprocess: Preprocess,
    batch: int,
    rows: Sequence[int] | None = None,
    *,
    timeout: float,
    prepare: Callable[[Photograph], Tensor] | None = None,
    pin_memory: bool = False,
) -> Generator[LoadedBatch]:
    """Read samples in order, in batches, one batch ahead of the caller.

    While the caller works on a batch, threads read, decode and preprocess the next one. At most two batches of preprocessed images are in
    memory, and 8 decoded images. Closing the generator ends the threads, once they have read the images that they are at.

    Args:
        storage: fsspec options for paths that are URLs.
        rows: rows of the samples to read. Default: all.
        timeout: seconds for which requests to an object store are retried.
        prepare: converts a decoded image to (C, H, W), on several threads. Default: the preprocessing.
        pin_memory: put the images into page-locked memory, from which a copy to a GPU does not wait.

    Raises:
        RunError: if the object store does not answer; the batches before have been returned.
    """
    selected = range(len(samples)) if rows is None else rows
    convert = prepare or preprocess

    def read(row: int) -> LoadedSample | UnreadableSample:
        facts: dict[str, Any] = {"sha256": None}
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
            return LoadedSample(row, convert(image.image), region, kind, facts)
        except UnreadableError as error:
            return UnreadableSample(row, one_line(error), {"sha256": error.sha256})
        except HdmError:
            raise
        except Exception as error:  # of a decoder, a storage library or the preprocessing: it costs this image only
            if is_fatal(error):
                raise
            return UnreadableSample(row, f"{type(error).__name__}: {one_line(error)}", facts, "failed")

    def collect(reads: Sequence[Future[LoadedSample | UnreadableSample]]) -> LoadedBatch:
        return _stacked([each.result() for each in reads], pin_memory)

    readers = ThreadPoolExecutor(_READERS, "reader")

    def begin(start: int) -> Future[LoadedBatch]:
        reads = [readers.submit(read, row) for row in selected[start : start + batch]]
        return readers.submit(collect, reads)  # it waits in a reader only for images that the others have begun

    try:
        pending = begin(0) if selected else None
        start = batch
        while pending is not None:
            loaded = pending.result()
            pending = begin(start) if start < len(selected) else None
            start += batch
            yield loaded
            del loaded  # before the next one is waited for
    finally:
        readers.shutdown(cancel_futures=True)


def _stacked(items: Sequence[LoadedSample | UnreadableSample], pin_memory: bool) -> LoadedBatch:
    """Stack the images of loaded samples, if all have the same size."""
    images = [item.image for item in items if isinstance(item, LoadedSample)]
    if len({image.shape for image in images}) != 1:
        return LoadedBatch(items, None)
    stacked = torch.stack(images)
    if pin_memory:
        stacked = _pinned(stacked)
    views = iter(stacked.unbind())
    return LoadedBatch([replace(item, image=next(views)) if isinstance(item, LoadedSample) else item for item in items], stacked)


def _pinned(images: Tensor) -> Tensor:
    try:
        return images.pin_memory()
    except RuntimeError as error:
        if is_fatal(error):
            raise
        _log.warning("no page-locked memory for a batch of images: %s; copies to the GPU wait", one_line(error, 120))
        return images

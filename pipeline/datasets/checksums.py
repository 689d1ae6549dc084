"""Checksums of images and their ground truth.

They depend on contents only, not on names.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipeline.datasets.images import UnreadableError, read_file
from pipeline.datasets.sample import Sample

_READERS = 16  # images that are read at the same time
_BATCH = 4096  # images that wait to be read


@dataclass(frozen=True)
class SampleChecksums:
    """Checksums of a sample.

    Attributes:
        sha256: checksum of the image's file.
        truth_sha256: checksum of its masks, shapes or box; None if it has none of them.
    """

    sha256: str
    truth_sha256: str | None


def truth_sha256(sample: Sample, storage: Mapping[str, Any], timeout: float = 10.0) -> str | None:
    """Compute the checksum of a sample's ground truth; None if it has none.

    Raises:
        UnreadableError: if a mask cannot be read.
    """
    if sample.masks is not None:
        files = [hashlib.sha256(read_file(path, sample.masks.root, storage, timeout)).hexdigest() for path in sample.masks.paths]
        return hashlib.sha256(json.dumps([sample.masks.ink, files]).encode()).hexdigest()
    if sample.shapes is not None:
        return hashlib.sha256(sample.shapes.encode()).hexdigest()
    if sample.bbox is not None:
        return hashlib.sha256(json.dumps(sample.bbox).encode()).hexdigest()
    return None


def sample_checksums(samples: Sequence[Sample], storage: Mapping[str, Any]) -> Iterator[SampleChecksums | None]:
    """Compute the checksums of samples in order.

    Yield None for an unreadable sample. Each file is read once and not decoded.
    """

    def read(sample: Sample) -> SampleChecksums | None:
        try:
            image = hashlib.sha256(read_file(sample.path, sample.root, storage)).hexdigest()
            return SampleChecksums(image, truth_sha256(sample, storage))
        except UnreadableError:
            return None

    with ThreadPoolExecutor(_READERS) as readers:
        for start in range(0, len(samples), _BATCH):
            yield from readers.map(read, samples[start : start + _BATCH])

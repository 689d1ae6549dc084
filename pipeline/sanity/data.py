"""Images of a sanity check, with their photographs, regions and targets."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hdm_core import Classifier
from hdm_core.photograph import Photograph
from hdm_core.sanity import Subject, answers
from hdm_core.targets import resolve_contrasts
from pipeline.classifiers.load import own_preparation, preprocess_of
from pipeline.classifiers.targets import MapFailure, MapRequest, request_maps
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample, list_samples
from pipeline.datasets.images import UnreadableError, read_image, read_region
from pipeline.errors import InputError, one_line

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SanityData:
    """Images of a sanity check.

    Attributes:
        samples: B samples that can be read and have a target.
        photographs: of each.
        regions: (B, H, W) bool; empty where an image has none.
        subject: classifier, images and targets.
        logits: (B, classes).
        skipped: one line for each sample that was left out.
    """

    samples: Sequence[Sample]
    photographs: Sequence[Photograph]
    regions: Tensor
    subject: Subject
    logits: Tensor
    skipped: Sequence[str]


def read_data(config: RunConfig, classifier: Classifier, limit: int, batch: int) -> SanityData:
    """Read up to `limit` images, evenly spaced over the dataset.

    An image that cannot be read, or has no target, is left out and counted.

    Raises:
        InputError: if none is left.
    """
    listed = list_samples(config.dataset, config.storage)
    count = min(limit, len(listed))
    preprocess, timeout = preprocess_of(classifier), config.compute.storage_timeout
    samples, photographs, regions, skipped = [], [], [], []
    for sample in (listed[number * len(listed) // count] for number in range(count)):
        try:
            decoded = read_image(sample, config.storage, preprocess, timeout)
            region, _ = read_region(sample, decoded, preprocess, config.storage, timeout)
        except UnreadableError as error:
            skipped.append(f"{sample.image_id}: {one_line(error)}")
            continue
        samples.append(sample)
        photographs.append(decoded.image)
        regions.append(region)
    if not samples:
        raise InputError(f"dataset: none of {count} images can be read; of the first, {skipped[0] if skipped else 'nothing is known'}")
    images = prepared(classifier, photographs)
    requests = [item for item in request_maps(config.target, classifier, samples, images) if _rank(item) == 0]
    kept = [item for item in requests if isinstance(item, MapRequest)]
    skipped += [f"{samples[item.request.place].image_id}: {item.error}" for item in requests if not isinstance(item, MapRequest)]
    if not kept:
        raise InputError(f"target: none of {len(samples)} images has one; of the first, {skipped[-1]}")
    for line in skipped:
        _log.warning("left out: %s", line)
    places = [item.place for item in kept]
    images = images[places]
    logits = answers(classifier, images, batch)
    targets = logits.argmax(1)
    for place, request in enumerate(kept):
        if request.target is not None:
            targets[place] = request.target
    contrasts = None
    if kept[0].contrast == "runner_up":
        contrasts = resolve_contrasts(classifier, logits, targets, "runner_up")
    elif kept[0].contrast is not None:
        contrasts = targets.new_tensor([item.contrast for item in kept])
    subject = Subject(classifier, images, targets, contrasts)
    return SanityData(
        [samples[place] for place in places],
        [photographs[place] for place in places],
        torch.stack(regions)[places],
        subject,
        logits,
        skipped,
    )


def prepared(classifier: Classifier, photographs: Sequence[Photograph]) -> Tensor:
    """Return photographs as the classifier gets them, (B, C, H, W) on its device."""
    prepare = own_preparation(classifier) or preprocess_of(classifier)
    return torch.stack([prepare(each) for each in photographs]).to(classifier.device, classifier.dtype or torch.float32)


def _rank(item: MapRequest | MapFailure) -> int:
    return item.rank if isinstance(item, MapRequest) else item.request.rank

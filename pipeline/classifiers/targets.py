"""Classes to explain: the configured target, resolved for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hdm_core import Classifier
from hdm_core.class_names import class_numbers
from hdm_core.network.logits import class_logits
from pipeline.datasets import Sample
from pipeline.errors import one_line
from pipeline.section import Count, Section


class Top(Section):
    """Target: the K classes with the highest logits of each image."""

    top: Count = Field(description="Number K of classes per image, highest logit first; one map each.")


Target = Literal["predicted", "label"] | Annotated[int, Field(ge=0)] | Top


@dataclass(frozen=True)
class MapRequest:
    """A map to compute.

    Attributes:
        place: index of the image in its batch.
        rank: 0 for the only class or that with the highest logit, 1 for the next.
        target: number of the class; None for the class that the network predicts.
    """

    place: int
    rank: int
    target: int | None


@dataclass(frozen=True)
class MapFailure:
    """A map that cannot be computed, with the reason."""

    request: MapRequest
    error: str


def request_maps(target: Target, classifier: Classifier, samples: Sequence[Sample], images: Tensor) -> list[MapRequest | MapFailure]:
    """List the maps to compute for a batch of images, in the order of image and rank.

    Args:
        images: preprocessed images of the B samples, (B, C, H, W).
    """
    if isinstance(target, Top):
        return list(_request_top(classifier, images, target.top))
    requests: list[MapRequest | MapFailure] = []
    for place, sample in enumerate(samples):
        try:
            number = class_of(sample, classifier) if target == "label" else None if target == "predicted" else target
        except ValueError as error:
            requests.append(MapFailure(MapRequest(place, 0, None), str(error)))
        else:
            requests.append(MapRequest(place, 0, number))
    return requests


def class_of(sample: Sample, classifier: Classifier) -> int:
    """Return the network's class for a sample's label.

    The class is found by name if the sample and the network both have names, else by number.

    A dataset numbers its own classes, so only equal names prove that they are the network's.

    Raises:
        ValueError: if the sample has no label, or the network has no such class.
    """
    names = classifier.class_names
    if names is not None and sample.class_name is not None:
        numbers = class_numbers(sample.class_name, names)
        if len(numbers) != 1:
            raise ValueError(f"the label {sample.class_name!r} is the name of {len(numbers) or 'none'} of the classifier's classes")
        return numbers[0]
    if sample.label is None:
        raise ValueError("the image has no label to explain")
    if sample.label < 0 or (names is not None and sample.label >= len(names)):
        raise ValueError(f"the label {sample.label} is no class of the classifier" + (f", which has {len(names)}" if names else ""))
    return sample.label


def _request_top(classifier: Classifier, images: Tensor, top: int) -> Iterator[MapRequest | MapFailure]:
    """Yield `top` map requests per image.

    If the network fails on the batch, each image is run alone.
    """
    with classifier.frozen() as network, torch.no_grad():
        try:
            logits: list[Tensor | Exception] = list(class_logits(network, images))
        except Exception:  # a user's network may raise on one image and not on the others
            logits = [_logits_of(network, image) for image in images]
    for place, row in enumerate(logits):
        if isinstance(row, Exception):
            yield from (MapFailure(MapRequest(place, rank, None), f"{type(row).__name__}: {one_line(row)}") for rank in range(top))
        else:
            yield from (MapRequest(place, rank, target) for rank, target in enumerate(row.topk(top).indices.tolist()))


def _logits_of(network: nn.Module, image: Tensor) -> Tensor | Exception:
    """Return the logits of one image, or the exception that the network raised."""
    try:
        return class_logits(network, image[None])[0]
    except Exception as error:
        return error

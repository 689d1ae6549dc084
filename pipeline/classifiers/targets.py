"""Which classes of every image are explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdm_core import Classifier
from hdm_core.network.logits import class_logits
from pipeline.config.schema import Target, Top
from pipeline.datasets import Sample
from pipeline.errors import one_line


@dataclass(frozen=True)
class MapRequest:
    """One map that is asked for.

    Attributes:
        place: of the image in its batch.
        rank: 0 for the only or likeliest class, 1 for the next.
        target: the class; None leaves it to the network.
    """

    place: int
    rank: int
    target: int | None


@dataclass(frozen=True)
class MapFailure:
    """A map that there is none of, and why."""

    request: MapRequest
    error: str


def request_maps(target: Target, classifier: Classifier, samples: Sequence[Sample], images: Tensor) -> list[MapRequest | MapFailure]:
    """The maps to make of the images (B, C, H, W) of B samples, rank by rank for every image."""
    if isinstance(target, Top):
        return list(_likeliest(classifier, images, target.top))
    found: list[MapRequest | MapFailure] = []
    for place, sample in enumerate(samples):
        try:
            number = class_of(sample, classifier) if target == "label" else None if target == "predicted" else target
        except ValueError as error:
            found.append(MapFailure(MapRequest(place, 0, None), str(error)))
        else:
            found.append(MapRequest(place, 0, number))
    return found


def class_of(sample: Sample, classifier: Classifier) -> int:
    """The network's class that a sample's label means: the one with its name where both have names, else the one with its number.

    A dataset numbers its own classes; only names say that they are the network's.

    Raises:
        ValueError: if the sample has no label, or the network has no such class.
    """
    names = classifier.class_names
    if names is not None and sample.class_name is not None:
        count = names.count(sample.class_name)
        if count != 1:
            raise ValueError(f"the label {sample.class_name!r} is the name of {count or 'none'} of the classifier's classes")
        return names.index(sample.class_name)
    if sample.label is None:
        raise ValueError("the image has no label to explain")
    if sample.label < 0 or (names is not None and sample.label >= len(names)):
        raise ValueError(f"the label {sample.label} is no class of the classifier" + (f", which has {len(names)}" if names else ""))
    return sample.label


def _likeliest(classifier: Classifier, images: Tensor, top: int) -> Iterator[MapRequest | MapFailure]:
    with classifier.frozen() as network, torch.no_grad():
        try:
            answers: list[Tensor | Exception] = list(class_logits(network, images))
        except Exception:  # a user's network may raise on one image and not on the others
            answers = [_alone(network, image) for image in images]
    for place, answer in enumerate(answers):
        if isinstance(answer, Exception):
            yield from (MapFailure(MapRequest(place, rank, None), f"{type(answer).__name__}: {one_line(answer)}") for rank in range(top))
        else:
            yield from (MapRequest(place, rank, target) for rank, target in enumerate(answer.topk(top).indices.tolist()))


def _alone(network: nn.Module, image: Tensor) -> Tensor | Exception:
    try:
        return class_logits(network, image[None])[0]
    except Exception as error:
        return error

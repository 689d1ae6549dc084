"""Classes to explain: the configured target, resolved for each image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from hdm_core import Classifier
from hdm_core.batch_limit import BatchLimit
from hdm_core.class_names import class_numbers
from hdm_core.device_errors import is_of_device
from hdm_core.network.logits import class_logits
from hdm_core.targets import target_numbers
from pipeline.datasets import Sample
from pipeline.errors import one_line
from pipeline.section import Count, Section

ClassKey = Annotated[int, Field(ge=0)] | str  # number or name of a class


class Top(Section):
    """Target: the K classes with the highest logits of each image."""

    top: Count = Field(description="Number K of classes per image, highest logit first; one map each.")
    above: float | None = Field(
        None, ge=0, lt=1, description="Only classes whose probability is above this, at most K per image. Default: all K, whatever theirs."
    )


class Labels(Section):
    """Target: the classes that an image's label names, such as effusion|mass."""

    labels: Count = Field(description="Largest number of classes that a label names; one map each, in the order of the label.")


class Contrast(Section):
    """Target: one class rather than another, the difference of their logits."""

    contrast: tuple[ClassKey, ClassKey] = Field(description="The two classes [A, B], by name or number: why A and not B.")


# predicted: the likeliest class. runner_up: that class rather than the next. wrong: of misclassified images, that class and the label's.
Target = Literal["predicted", "label", "runner_up", "wrong"] | Annotated[int, Field(ge=0)] | Top | Labels | Contrast


SEPARATOR = "|"  # of the names in a label


@dataclass(frozen=True)
class MapRequest:
    """A map to compute.

    Attributes:
        place: index of the image in its batch.
        rank: 0 for the only class or that with the highest logit, 1 for the next.
        target: number of the class; None for the class that the network predicts.
        contrast: number of the class that the target is compared with, "runner_up" for the likeliest other class; None for none.
    """

    place: int
    rank: int
    target: int | None
    contrast: int | Literal["runner_up"] | None = None


@dataclass(frozen=True)
class MapFailure:
    """A map that cannot be computed, or is not to be, with the reason."""

    request: MapRequest
    error: str
    status: Literal["failed", "skipped"] = "failed"


def request_maps(
    target: Target, classifier: Classifier, samples: Sequence[Sample], images: Tensor, limit: BatchLimit | None = None
) -> list[MapRequest | MapFailure]:
    """List the maps to compute for a batch of images, in the order of image and rank.

    Args:
        images: preprocessed images of the B samples, (B, C, H, W).
        limit: of the images per forward pass; all at once if None.

    Raises:
        RuntimeError: of the device, which is no image's fault: it failed, or has too little memory for one image.
    """
    limit = limit or BatchLimit(len(images), "targets")
    if isinstance(target, Top):
        return list(_request_top(classifier, images, target, limit))
    if target == "wrong":
        return list(_request_wrong(classifier, samples, images, limit))
    if isinstance(target, Contrast):
        first, second = class_pair(target, classifier)
        return [MapRequest(place, 0, first, second) for place in range(len(samples))]
    if target == "runner_up":
        return [MapRequest(place, 0, None, "runner_up") for place in range(len(samples))]
    requests: list[MapRequest | MapFailure] = []
    for place, sample in enumerate(samples):
        try:
            numbers = _targets(target, sample, classifier)
        except ValueError as error:
            requests.append(MapFailure(MapRequest(place, 0, None), str(error)))
        else:
            requests += [MapRequest(place, rank, number) for rank, number in enumerate(numbers)]
    return requests


def _targets(target: int | Labels | str, sample: Sample, classifier: Classifier) -> Sequence[int | None]:
    match target:
        case Labels():
            return classes_of(sample, classifier, target.labels)
        case "label":
            return [class_of(sample, classifier)]
        case int():
            return [target]
        case _:
            return [None]


def class_pair(target: Contrast, classifier: Classifier) -> tuple[int, int]:
    """Return the numbers of a contrast's classes.

    Raises:
        ValueError: if a name is that of no class or of several, or both are the same class.
    """
    first, second = (int(target_numbers(each, classifier)) for each in target.contrast)
    if first == second:
        raise ValueError(f"class {classifier.class_name(first)} cannot be compared with itself")
    return first, second


def label_names(label: str, names: Sequence[str] | None) -> list[str]:
    """Return the names of classes in a label, separated by `|`.

    A label that as a whole is among the names of the classifier's classes is one name.
    """
    if names is not None and class_numbers(label, names):
        return [label]
    return list(dict.fromkeys(part.strip() for part in label.split(SEPARATOR)))


def classes_of(sample: Sample, classifier: Classifier, limit: int) -> list[int]:
    """Return the network's classes for a sample's label, which may name several.

    Raises:
        ValueError: as `class_of`, or if the label names more classes than `limit`.
    """
    names = classifier.class_names
    parts = [] if sample.class_name is None else label_names(sample.class_name, names)
    if len(parts) < 2:
        return [class_of(sample, classifier)]
    if names is None:
        raise ValueError(f"the label {sample.class_name!r} has several names, and the classifier has no names of classes")
    if len(parts) > limit:
        raise ValueError(f"the label {sample.class_name!r} names {len(parts)} classes: write target: {{labels: {len(parts)}}}")
    return [_number(part, names) for part in parts]


def class_of(sample: Sample, classifier: Classifier) -> int:
    """Return the network's class for a sample's label.

    The class is found by name if the sample and the network both have names, else by number.

    A dataset numbers its own classes, so only equal names prove that they are the network's.

    Raises:
        ValueError: if the sample has no label, or the network has no such class.
    """
    names = classifier.class_names
    if names is not None and sample.class_name is not None:
        several = SEPARATOR in sample.class_name and classifier.problem_type == "multi_label_classification"
        hint = "; if it names several classes, write target: {labels: K}" if several else ""
        return _number(sample.class_name, names, hint)
    if sample.label is None:
        raise ValueError("the image has no label to explain")
    if sample.label < 0 or (names is not None and sample.label >= len(names)):
        raise ValueError(f"the label {sample.label} is no class of the classifier" + (f", which has {len(names)}" if names else ""))
    return sample.label


def _number(name: str, names: Sequence[str], hint: str = "") -> int:
    numbers = class_numbers(name, names)
    if len(numbers) != 1:
        raise ValueError(f"the label {name!r} is the name of {len(numbers) or 'none'} of the classifier's classes{hint}")
    return numbers[0]


def _request_wrong(
    classifier: Classifier, samples: Sequence[Sample], images: Tensor, limit: BatchLimit
) -> Iterator[MapRequest | MapFailure]:
    """Yield two map requests per misclassified image: predicted and true class."""
    for place, (sample, row) in enumerate(zip(samples, _logits(classifier, images, limit), strict=True)):
        request = MapRequest(place, 0, None)
        try:
            true = class_of(sample, classifier)
        except ValueError as error:
            yield MapFailure(request, str(error))
            continue
        if isinstance(row, Exception):
            yield MapFailure(request, f"{type(row).__name__}: {one_line(row)}")
        elif (predicted := int(row.argmax())) == true:
            yield MapFailure(request, "the predicted class is that of the label", "skipped")
        else:
            yield MapRequest(place, 0, predicted)
            yield MapRequest(place, 1, true)


def _request_top(classifier: Classifier, images: Tensor, target: Top, limit: BatchLimit) -> Iterator[MapRequest | MapFailure]:
    """Yield the map requests of each image, the highest logit first."""
    for place, row in enumerate(_logits(classifier, images, limit)):
        if isinstance(row, Exception):
            ranks = range(target.top if target.above is None else 1)
            yield from (MapFailure(MapRequest(place, rank, None), f"{type(row).__name__}: {one_line(row)}") for rank in ranks)
            continue
        numbers = row.topk(target.top).indices
        if target.above is not None:
            numbers = numbers[classifier.probabilities(row[None].float())[0, numbers] > target.above]
        if len(numbers) == 0:
            yield MapFailure(MapRequest(place, 0, None), f"no class has a probability above {target.above:g}")
        yield from (MapRequest(place, rank, number) for rank, number in enumerate(numbers.tolist()))


def _logits(classifier: Classifier, images: Tensor, limit: BatchLimit) -> list[Tensor | Exception]:
    """Return the logits (classes,) of each image, or what the network raises.

    If the network fails on the batch, each image is run alone.
    """
    with classifier.frozen() as network, torch.no_grad():
        try:
            # Read on the host, image by image: one copy for all.
            return limit.run(lambda size: list(torch.cat([class_logits(network, part) for part in torch.split(images, size)]).cpu()))
        except Exception as error:  # a user's network may raise on one image and not on the others
            if is_of_device(error):
                raise
            return [_logits_of(network, image) for image in images]


def _logits_of(network: nn.Module, image: Tensor) -> Tensor | Exception:
    """Return the logits of one image, or the exception that the network raised."""
    try:
        return class_logits(network, image[None])[0]
    except Exception as error:
        if is_of_device(error):
            raise
        return error

"""Samples of a dataset and their random selection.

A sample is an image with its label and ground truth.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fsspec.implementations.local import make_path_posix

from pipeline.datasets.formats import has_image_suffix
from pipeline.errors import InputError


@dataclass(frozen=True, slots=True)
class Masks:
    """Ground truth as mask files of the upright image's size.

    The region is the union of the masks.

    Attributes:
        paths: paths of the files, local or URLs.
        ink: pixels inside the region: `light` is a grey level of one half or more, `dark` the rest, `any` all that is not black.
        root: folder that a local path must not leave.
    """

    paths: tuple[str, ...]
    ink: Literal["light", "dark", "any"] = "light"
    root: str | None = None


@dataclass(frozen=True, slots=True)  # a dataset may have millions
class Sample:
    """An image of a dataset, with its label and ground truth.

    Attributes:
        image_id: unique id in the dataset; for a folder, the path below the root.
        path: path of the image, local or a URL.
        label: number of the class in the dataset.
        class_name: name of the class.
        split: name of the split, such as train or test.
        masks: ground truth as masks; takes precedence over shapes and the box.
        bbox: ground truth as a box (left, top, right, bottom) in pixels of the upright image.
        root: folder that a local path must not leave.
        shapes: ground truth as several boxes, polygons or run-length encodings, the text of `pack_shapes`; takes precedence over the
            box.
    """

    image_id: str
    path: str
    label: int | None = None
    class_name: str | None = None
    split: str | None = None
    masks: Masks | None = None
    bbox: tuple[float, float, float, float] | None = None
    root: str | None = None
    shapes: str | None = None


def is_image(path: str) -> bool:
    """Return whether a relative path is a visible image file.

    Its suffix is that of an image, and neither the file nor its folders are hidden.
    """
    return has_image_suffix(path) and not is_hidden(path)


def is_hidden(path: str) -> bool:
    """Return True if a relative path's file or one of its folders is hidden."""
    return path.startswith(".") or "/." in path


def as_text(name: str) -> str:
    """Return a file's name as valid UTF-8.

    Names on a disk are bytes; those that are not UTF-8 are escaped.
    """
    return name.encode(errors="backslashreplace").decode()


def absolute(root: str) -> str:
    """Return a local root as an absolute path.

    A local root may be a file:// URL. Other URLs are returned unchanged.
    """
    local = root.removeprefix("file://")
    return root if "://" in local else str(make_path_posix(local))


def below(root: str, relative: str) -> str:
    """Join a relative path to its root.

    Raises:
        InputError: if the path would leave the root.
    """
    if relative.startswith("/") or ".." in relative.split("/"):
        raise InputError(f"{relative}: leaves the dataset's root {root}; paths must be relative and stay below it")
    return f"{root.rstrip('/')}/{relative}"


def number_classes(samples: Sequence[Sample]) -> list[Sample]:
    """Assign labels to classes in the order of their names.

    If the dataset has its own labels, the samples are returned unchanged.
    """
    if any(sample.label is not None for sample in samples):
        return list(samples)
    names = sorted({sample.class_name for sample in samples if sample.class_name is not None})
    numbers = {name: number for number, name in enumerate(names)}
    return [sample if sample.class_name is None else replace(sample, label=numbers[sample.class_name]) for sample in samples]


def select(samples: list[Sample], per_class: int | None, limit: int | None, seed: int) -> list[Sample]:
    """Draw a random selection of samples in the dataset's order.

    Args:
        per_class: maximum number of samples per class. None: no maximum.
        limit: maximum number of samples in all. None: no maximum.
        seed: seed of the selection.
    """
    draw = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    indices = list(range(len(samples)))
    if per_class is not None:
        classes: dict[object, list[int]] = defaultdict(list)
        for index in indices:
            classes[samples[index].label].append(index)
        indices = sorted(index for members in classes.values() for index in draw.sample(members, min(per_class, len(members))))
    if limit is not None:
        indices = sorted(draw.sample(indices, min(limit, len(indices))))
    return [samples[index] for index in indices]

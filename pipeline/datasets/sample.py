"""One image of a dataset, and drawing some of many."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Literal

from fsspec.implementations.local import make_path_posix

from pipeline.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm"})


@dataclass(frozen=True, slots=True)
class Masks:
    """Ground truth as files of the upright image's size; their union is the region.

    Attributes:
        paths: of the files, local or URLs.
        ink: the pixels that are inside: `light` is grey from one half up, `dark` the rest, `any` all that is not black.
        root: the folder that a local path must not leave.
    """

    paths: tuple[str, ...]
    ink: Literal["light", "dark", "any"] = "light"
    root: str | None = None


@dataclass(frozen=True, slots=True)  # a dataset may have millions
class Sample:
    """An image and what is known of it.

    Attributes:
        image_id: unique in the dataset; where it comes from a folder, the path below the root.
        path: where the image is, local or a URL.
        label: the class's number in the dataset.
        masks: ground truth as masks; counts before the box.
        bbox: ground truth as a box (left, top, right, bottom) in pixels of the upright image.
        root: the folder that a local path must not leave.
    """

    image_id: str
    path: str
    label: int | None = None
    class_name: str | None = None
    split: str | None = None
    masks: Masks | None = None
    bbox: tuple[float, float, float, float] | None = None
    root: str | None = None


def is_image(path: str) -> bool:
    """Whether a path below a root says that it is an image; what is hidden, or lies in a hidden folder, is none."""
    parts = PurePosixPath(path)
    return parts.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in parts.parts)


def as_text(name: str) -> str:
    """A file's name as it can be written down: a disk's names are bytes, and those that are no UTF-8 become escapes."""
    return name.encode(errors="backslashreplace").decode()


def absolute(root: str) -> str:
    """A local root, also as file://, as an absolute path; another URL as it is."""
    local = root.removeprefix("file://")
    return root if "://" in local else str(make_path_posix(local))


def below(root: str, relative: str) -> str:
    """A relative path joined to its root.

    Raises:
        InputError: if it would leave the root.
    """
    if relative.startswith("/") or ".." in relative.split("/"):
        raise InputError(f"{relative}: leaves the dataset's root {root}; paths must be relative and stay below it")
    return f"{root.rstrip('/')}/{relative}"


def number_classes(samples: Sequence[Sample]) -> list[Sample]:
    """Gives samples the place of their class's name in sorted order, unless the dataset has numbers of its own."""
    if any(sample.label is not None for sample in samples):
        return list(samples)
    names = sorted({sample.class_name for sample in samples if sample.class_name is not None})
    numbers = {name: number for number, name in enumerate(names)}
    return [sample if sample.class_name is None else replace(sample, label=numbers[sample.class_name]) for sample in samples]


def select(samples: list[Sample], per_class: int | None, limit: int | None, seed: int) -> list[Sample]:
    """At most `per_class` of every class and `limit` in all, drawn with `seed`, in the dataset's order."""
    draw = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    chosen = list(range(len(samples)))
    if per_class is not None:
        classes: dict[object, list[int]] = defaultdict(list)
        for index in chosen:
            classes[samples[index].label].append(index)
        chosen = sorted(index for members in classes.values() for index in draw.sample(members, min(per_class, len(members))))
    if limit is not None:
        chosen = sorted(draw.sample(chosen, min(limit, len(chosen))))
    return [samples[index] for index in chosen]

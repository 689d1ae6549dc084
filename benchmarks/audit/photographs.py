"""Photographs of a dataset, square and small, with and without shortcuts."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from benchmarks.audit.marks import MARKS, SIDE, Box
from pipeline.datasets import list_samples, parse_dataset
from pipeline.errors import InputError

MIRRORED = "-mirrored"  # end of the name of a mirrored photograph


@dataclass(frozen=True)
class Photograph:
    """A photograph of SIDE x SIDE pixels, the box of its object, and its class."""

    name: str
    image: Image.Image
    box: Box
    class_name: str


@cache
def read_photographs(kind: str, root: str, first: int, classes: int, per_class: int) -> tuple[Photograph, ...]:
    """Read photographs of some classes of a dataset, each also mirrored.

    The whole photograph is resized to a square, so that no object is cut off. An object without a box has the middle half of each side.

    Args:
        kind: of the dataset, such as "cub".
        first: number of the first class, in alphabetical order.
        per_class: most photographs of a class, before they are mirrored.

    Raises:
        InputError: if there are fewer classes.
    """
    samples = list_samples(parse_dataset({"kind": kind, "root": root}), {})
    names = sorted({str(sample.class_name) for sample in samples})[first : first + classes]
    if len(names) < classes:
        raise InputError(f"{root} has fewer than {first + classes} classes: choose fewer --classes")
    photographs = []
    for name in names:
        for sample in [sample for sample in samples if sample.class_name == name][:per_class]:
            whole = Image.open(sample.path).convert("RGB")
            scale = SIDE / whole.width, SIDE / whole.height
            box = sample.bbox or (whole.width / 4, whole.height / 4, 3 * whole.width / 4, 3 * whole.height / 4)
            left, right = (round(min(max(x, 0), whole.width) * scale[0]) for x in (box[0], box[2]))
            top, bottom = (round(min(max(y, 0), whole.height) * scale[1]) for y in (box[1], box[3]))
            image = whole.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            stem = Path(sample.path).stem
            photographs.append(Photograph(stem, image, (left, top, right, bottom), name))
            photographs.append(Photograph(f"{stem}{MIRRORED}", ImageOps.mirror(image), (SIDE - right, top, SIDE - left, bottom), name))
    return tuple(photographs)


def planted(photographs: Sequence[Photograph], kind: str | None, class_name: str, fraction: float, seed: int) -> list[Photograph]:
    """Plant a shortcut in a share of the photographs of one class.

    Args:
        kind: of the mark; None plants nothing.
        fraction: of the class's photographs, 0 to 1.
    """
    if kind is None:
        return list(photographs)
    rng = np.random.default_rng(seed)
    of_class = [number for number, photograph in enumerate(photographs) if photograph.class_name == class_name]
    chosen = set(rng.permutation(of_class)[: round(fraction * len(of_class))].tolist())
    return [with_mark(photograph, kind, rng) if number in chosen else photograph for number, photograph in enumerate(photographs)]


def with_mark(photograph: Photograph, kind: str, rng: np.random.Generator) -> Photograph:
    """Return a photograph with a shortcut."""
    image = MARKS[kind].paint(photograph.image.copy(), photograph.box, rng)
    return Photograph(photograph.name, image, photograph.box, photograph.class_name)


def write_photographs(photographs: Sequence[Photograph], labels: Mapping[str, int], folder: Path) -> Path:
    """Write photographs without further loss, and return their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "images.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "image_id", "label", "class_name", "bbox"])
        for photograph in photographs:
            name = f"{photograph.name}.png"
            photograph.image.save(folder / name, compress_level=1)
            label = labels[photograph.class_name]
            rows.writerow([name, photograph.name, label, photograph.class_name, " ".join(map(str, photograph.box))])
    return manifest

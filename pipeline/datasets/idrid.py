"""IDRiD: fundus photographs with a grade of retinopathy, and others with masks of their lesions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from pipeline.config.schema import LESIONS, DatasetConfig
from pipeline.datasets.label_tables import read_columns
from pipeline.datasets.root import Root
from pipeline.datasets.sample import Masks, Sample
from pipeline.errors import InputError

# The official folders' names, and those of the plain layout: {part}/images, grading/labels.csv, segmentation/masks/{lesion}.
_PARTS = {"grading": {"B. Disease Grading", "grading"}, "segmentation": {"A. Segmentation", "segmentation"}}
_PHOTOGRAPHS = {"1. Original Images", "images"}
_COLUMNS = ("Image name", "Retinopathy grade")
_PLAIN_COLUMNS = ("image", "retinopathy_grade")

_GRADES = ("no retinopathy", "mild", "moderate", "severe", "proliferative")
_REFERABLE = ("not referable", "referable")


def idrid_samples(config: DatasetConfig, storage: Mapping[str, Any]) -> list[Sample]:
    """The photographs of a part in the order of their names; an id is split/name, since both splits count from 1.

    grading: the label is the grade, 0 to 4, or with `referable` whether it is 2 or more. There is no region.
    segmentation: no labels; the region is the union of the chosen lesions, by default all four and not the optic disc.
    A photograph without a file of a lesion has none of it.

    Raises:
        InputError: if the part is not there, or its photographs and labels do not fit together.
    """
    root = Root.at(str(config.root), storage, "the folder of IDRiD, which holds grading or 'B. Disease Grading'")
    lesions = config.lesions or LESIONS["idrid"][:4]
    photographs: dict[str, str] = {}
    tables: list[tuple[str, str]] = []
    masks: dict[str, list[str]] = defaultdict(list)
    for relative in root.find():
        path = PurePosixPath(root.base).name / PurePosixPath(relative)
        folders = path.parts[:-1]
        if _PARTS[str(config.part)].isdisjoint(folders):
            continue
        split = "test" if any(name.startswith("b. ") for name in path.parts) else "train"
        if path.suffix == ".jpg" and not _PHOTOGRAPHS.isdisjoint(folders):
            photographs[f"{split}/{path.stem}"] = relative
        elif path.suffix == ".csv":
            tables.append((split, relative))
        elif path.suffix in {".tif", ".png"}:
            name, lesion = _of_mask(path)
            if lesion in lesions:
                masks[f"{split}/{name}"].append(root.path(relative))
    if not photographs:
        raise InputError(f"{root.url}: no photographs of the part {config.part}; set dataset.root to the folder of IDRiD")
    grades = _grades(root, tables) if config.part == "grading" else {}
    if config.part == "grading" and (odd := photographs.keys() ^ grades.keys()):
        has = "a photograph and no label" if min(odd) in photographs else "a label and no photograph"
        raise InputError(f"{root.url}: {min(odd)} has {has}; every photograph needs one label")
    samples = []
    for name in sorted(photographs):
        label, class_name = _label(grades.get(name), config.referable)
        region = Masks(tuple(masks[name]), "any", root.local) if name in masks else None
        split = name.partition("/")[0]
        samples.append(Sample(name, root.path(photographs[name]), label, class_name, split, region, root=root.local))
    return [sample for sample in samples if config.split is None or sample.split == config.split]


def _of_mask(path: PurePosixPath) -> tuple[str, str]:
    """Photograph and lesion of a mask: IDRiD_01_MA.tif, or MA/IDRiD_01.png."""
    name, _, lesion = path.stem.rpartition("_")
    return (name, lesion) if lesion in LESIONS["idrid"] else (path.stem, path.parent.name)


def _grades(root: Root, tables: list[tuple[str, str]]) -> dict[str, int]:
    grades = {}
    for split, relative in tables:
        columns = _PLAIN_COLUMNS if relative.endswith("labels.csv") else _COLUMNS
        for name, grade in read_columns(root, relative, columns):
            if grade not in {"0", "1", "2", "3", "4"}:
                raise InputError(f"{root.path(relative)}: {name} has the grade {grade!r}; it must be 0 to 4")
            identity = f"{split}/{name.removesuffix('.jpg')}"
            if identity in grades:
                raise InputError(f"{root.path(relative)}: {name} has two rows; it needs one")
            grades[identity] = int(grade)
    return grades


def _label(grade: int | None, referable: bool) -> tuple[int | None, str | None]:
    if grade is None:
        return None, None
    names = _REFERABLE if referable else _GRADES
    label = int(grade >= 2) if referable else grade
    return label, names[label]

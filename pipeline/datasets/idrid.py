"""Dataset kind `idrid`: fundus photographs with grades or lesion masks.

Some photographs have a grade of retinopathy, others have masks of their lesions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from pipeline.datasets.formats import has_image_suffix, suffix_of
from pipeline.datasets.kind import DatasetConfig, DatasetKind
from pipeline.datasets.label_tables import read_columns
from pipeline.datasets.listing import Listing, ListingNotes
from pipeline.datasets.root import Root
from pipeline.datasets.sample import Masks, Sample, as_text
from pipeline.errors import InputError

# The official folders' names, and those of the plain layout: {part}/images, grading/labels.csv, segmentation/masks/{lesion}.
_PARTS = {"grading": {"B. Disease Grading", "grading"}, "segmentation": {"A. Segmentation", "segmentation"}}
_PHOTOGRAPHS = {"1. Original Images", "images"}
_COLUMNS = ("Image name", "Retinopathy grade")
_PLAIN_COLUMNS = ("image", "retinopathy_grade")

_GRADES = ("no retinopathy", "mild", "moderate", "severe", "proliferative")
_REFERABLE = ("not referable", "referable")


# Microaneurysms, haemorrhages, hard and soft exudates, and the optic disc, which is no lesion.
Lesion = Literal["MA", "HE", "EX", "SE", "OD"]
_LESIONS = get_args(Lesion)
_DEFAULT_LESIONS = _LESIONS[:4]


class IdridConfig(DatasetConfig):
    """Configuration of IDRiD."""

    kind: Literal["idrid"] = Field(description="IDRiD: fundus photographs, graded or with masks of lesions.")
    part: Literal["grading", "segmentation"] | None = Field(
        None, description="Part of IDRiD to read: grading has labels and no masks, segmentation has masks and no labels. Required."
    )
    referable: bool = Field(
        False, description="Whether the part grading has two classes, a grade of 2 or more and a lower one, instead of five grades."
    )
    lesions: tuple[Lesion, ...] | None = Field(
        None,
        min_length=1,
        description="Masks whose union is the region, in the part segmentation: MA, HE, EX, SE and OD. Default: all but OD.",
    )

    @model_validator(mode="after")
    def _check_part(self) -> IdridConfig:
        if self.part is None:
            raise ValueError("part is missing: write grading or segmentation")
        for key, part in (("referable", "grading"), ("lesions", "segmentation")):
            if getattr(self, key) and self.part != part:
                raise ValueError(f"{key} does not apply to a dataset of kind 'idrid' and part {self.part!r}: remove it")
        return self


def read_idrid(config: IdridConfig, storage: Mapping[str, Any]) -> Listing:
    """List the photographs of a part in the order of their names.

    An id is split/name, because both splits count from 1.

    grading: the label is the grade, 0 to 4; with `referable` it is 1 for a grade of 2 or more, else 0. There is no region.
    segmentation: no labels; the region is the union of the configured lesions, by default all four without the optic disc.
    A photograph without a file of a lesion has none of it.

    Raises:
        InputError: if the part is missing, two photographs have one id, or its photographs and labels do not match.
    """
    root, notes = Root.at(str(config.root), storage, "the folder of IDRiD, which holds grading or 'B. Disease Grading'"), ListingNotes()
    lesions = config.lesions or _DEFAULT_LESIONS
    photographs: dict[str, str] = {}
    tables: list[tuple[str, str]] = []
    masks: dict[str, list[str]] = defaultdict(list)
    for relative in root.find(notes=notes):
        path = PurePosixPath(root.base).name / PurePosixPath(relative)
        folders = path.parts[:-1]
        if _PARTS[str(config.part)].isdisjoint(folders):
            continue
        split = "test" if any(name.startswith("b. ") for name in path.parts) else "train"
        if path.suffix.lower() == ".csv":
            tables.append((split, relative))
        elif not has_image_suffix(relative):
            continue
        elif not _PHOTOGRAPHS.isdisjoint(folders):
            image_id = f"{split}/{as_text(path.stem)}"
            if image_id in photographs:
                raise InputError(f"{root.path(relative)}: {photographs[image_id]} has the same id, {image_id}; keep one")
            photographs[image_id] = relative
        else:
            name, lesion = _parse_mask_path(path)
            if lesion in lesions:
                masks[f"{split}/{as_text(name)}"].append(root.path(relative))
            elif lesion not in _LESIONS:
                notes.leave_out("that are masks of no known lesion", relative)
    if not photographs:
        raise InputError(f"{root.url}: no photographs of the part {config.part}; set dataset.root to the folder of IDRiD")
    grades = _grades(root, tables) if config.part == "grading" else {}
    if config.part == "grading" and (unmatched := photographs.keys() ^ grades.keys()):
        has = "a photograph and no label" if min(unmatched) in photographs else "a label and no photograph"
        raise InputError(f"{root.url}: {min(unmatched)} has {has}; every photograph needs one label")
    for name in masks.keys() - photographs.keys():
        notes.leave_out("that are masks of no photograph", name)
    samples = []
    for name in sorted(photographs):
        label, class_name = _label(grades.get(name), config.referable)
        region = Masks(tuple(masks[name]), "any", root.local) if name in masks else None
        split = name.partition("/")[0]
        samples.append(Sample(name, root.path(photographs[name]), label, class_name, split, region, root=root.local))
    return Listing(samples, notes)


IDRID = DatasetKind("idrid", IdridConfig, read_idrid)


def _parse_mask_path(path: PurePosixPath) -> tuple[str, str]:
    """Split a mask's path into photograph and lesion.

    Examples of paths: IDRiD_01_MA.tif and MA/IDRiD_01.png.
    """
    name, _, lesion = path.stem.rpartition("_")
    return (name, lesion) if lesion in _LESIONS else (path.stem, path.parent.name)


def _stem(name: str) -> str:
    """Return a photograph's name without the suffix that some tables give it."""
    return name[: -len(suffix_of(name))] if has_image_suffix(name) else name


def _grades(root: Root, tables: list[tuple[str, str]]) -> dict[str, int]:
    grades = {}
    for split, relative in tables:
        columns = _PLAIN_COLUMNS if relative.endswith("labels.csv") else _COLUMNS
        for name, grade in read_columns(root, relative, columns):
            if grade not in {"0", "1", "2", "3", "4"}:
                raise InputError(f"{root.path(relative)}: {name} has the grade {grade!r}; it must be 0 to 4")
            image_id = f"{split}/{_stem(name)}"
            if image_id in grades:
                raise InputError(f"{root.path(relative)}: {name} has two rows; it needs one")
            grades[image_id] = int(grade)
    return grades


def _label(grade: int | None, referable: bool) -> tuple[int | None, str | None]:
    if grade is None:
        return None, None
    names = _REFERABLE if referable else _GRADES
    label = int(grade >= 2) if referable else grade
    return label, names[label]

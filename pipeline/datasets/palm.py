"""Dataset kind `palm`: iChallenge-PM (PALM) in its official layout.

The images are fundus photographs of normal and myopic eyes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

from pydantic import Field

from pipeline.datasets.formats import has_image_suffix
from pipeline.datasets.kind import DatasetConfig, DatasetKind
from pipeline.datasets.label_tables import read_columns
from pipeline.datasets.listing import Listing, ListingNotes
from pipeline.datasets.root import Root
from pipeline.datasets.sample import Masks, Sample
from pipeline.errors import InputError

_SPLITS = {"PALM-Training400": "train", "PALM-Validation400": "validation"}
_CLASSES = ("no pathological myopia", "pathological myopia")
_PHOTOGRAPH = re.compile(r"([PHNV])\d+\.jpe?g", re.IGNORECASE)
_UNUSED = {"Disc_Masks", "Lesion_Illustration"}  # parts of the archives that hold no photograph and no mask of a lesion
_TABLE = re.compile(r"(PM_Label_and_Fovea_Location|labels)\.(xlsx|csv)")


Lesion = Literal["Atrophy", "Detachment"]


class PalmConfig(DatasetConfig):
    """Configuration of iChallenge-PM."""

    kind: Literal["palm"] = Field(description="iChallenge-PM (PALM): fundus photographs, with masks of lesions.")
    lesions: tuple[Lesion, ...] | None = Field(
        None, min_length=1, description="Masks whose union is the region: Atrophy and Detachment. Default: both."
    )


def read_palm(config: PalmConfig, storage: Mapping[str, Any]) -> Listing:
    """List the photographs of training and validation in the order of their names.

    They are those of PALM-Training400 and PALM-Validation400, anywhere below the root.

    The label of a training photograph follows from the first letter of its name: P is pathological myopia, H (high myopia) and N
    (normal) are not. The label of a validation photograph is in the table of PALM-Validation-GT; without the table it has no label.
    The region is the union of Lesion_Masks/Atrophy and Lesion_Masks/Detachment, whose ink is black on white; a photograph that is in
    neither has no region.

    Raises:
        InputError: if both folders of photographs are missing, there are two tables, or the table cannot be read or has no row for
            a photograph.
    """
    root, notes = Root.at(str(config.root), storage, "the folder that holds PALM-Training400"), ListingNotes()
    photographs: dict[str, tuple[str, str]] = {}
    masks: dict[str, list[str]] = defaultdict(list)
    tables = []
    for relative in root.find(notes=notes):
        path = PurePosixPath(root.base, relative)
        if path.parent.name in _SPLITS and _PHOTOGRAPH.fullmatch(path.name):
            if path.stem in photographs:
                raise InputError(f"{root.path(relative)}: there is another {path.stem} in {photographs[path.stem][0]}; keep one")
            photographs[path.stem] = relative, _SPLITS[path.parent.name]
        elif path.parent.parent.name == "Lesion_Masks" and path.parent.name in get_args(Lesion):
            if path.parent.name in (config.lesions or get_args(Lesion)):
                masks[path.stem].append(root.path(relative))
        elif path.parent.name == "PALM-Validation-GT" and _TABLE.fullmatch(path.name):
            tables.append(relative)
        elif has_image_suffix(path.name) and path.parent.name not in _UNUSED:
            in_split = path.parent.name in _SPLITS
            notes.leave_out("with another name than P0001.jpg" if in_split else f"in other folders than {' and '.join(_SPLITS)}", relative)
    if not photographs:
        raise InputError(f"{root.url}: no photographs in a folder {' or '.join(_SPLITS)}; set dataset.root to the folder that holds it")
    if len(tables) > 1:
        raise InputError(f"{root.path(tables[0])}: there is another table of labels, {tables[1]}; keep one")
    labels = _labels(root, tables[0]) if tables else {}
    for name in masks.keys() - photographs.keys():
        notes.leave_out("that are masks of no photograph", name)
    if unknown := labels.keys() - photographs.keys():
        notes.remark(f"rows of {tables[0]} that name no photograph: {len(unknown):,} (such as {min(unknown)})")
    samples = []
    for name in sorted(photographs):
        relative, split = photographs[name]
        label = _label(name, labels, root.path(tables[0]) if tables else "")
        samples.append(
            Sample(
                image_id=name,
                path=root.path(relative),
                label=label,
                class_name=None if label is None else _CLASSES[label],
                split=split,
                masks=Masks(tuple(masks[name]), "dark", root.local) if name in masks else None,
                root=root.local,
            )
        )
    return Listing(samples, notes)


PALM = DatasetKind("palm", PalmConfig, read_palm)


def _labels(root: Root, table: str) -> dict[str, int]:
    labels = {}
    for name, label in read_columns(root, table, ("imgName", "Label")):
        if label not in {"0", "1"}:
            raise InputError(f"{root.path(table)}: {name} has the label {label!r}; it must be 0 or 1")
        labels[PurePosixPath(name).stem] = int(label)
    return labels


def _label(name: str, labels: Mapping[str, int], table: str) -> int | None:
    if not name.upper().startswith("V"):
        return int(name.upper().startswith("P"))
    if table and name not in labels:
        raise InputError(f"{table}: no row for {name}; every validation photograph needs one")
    return labels.get(name)

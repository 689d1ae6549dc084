"""A table that says which image is in which split: how a training's held-back images are found again."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import fsspec

from pipeline.datasets.sample import Sample, absolute
from pipeline.errors import InputError, one_line


def resplit(samples: Sequence[Sample], table: str, storage: Mapping[str, Any]) -> list[Sample]:
    """The samples that a table names, each in the split that it says, in the dataset's order.

    Args:
        table: a CSV with the columns image_id and split, such as a trained classifier's split.csv; local or a URL.

    Raises:
        InputError: if the table cannot be read, has no such columns, or names no image of the dataset.
    """
    place = absolute(table)
    try:
        with fsspec.open(place, "rb", **(storage if "://" in place else {})) as file:
            rows = list(csv.DictReader(io.StringIO(file.read().decode())))
        splits = {row["image_id"]: row["split"] for row in rows}
    except KeyError as error:
        raise InputError(f"{table}: no column {error}; dataset.splits needs image_id and split") from None
    except (OSError, ValueError, ImportError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read as a CSV ({one_line(error)}); look at dataset.splits") from None
    found = [replace(sample, split=splits[sample.image_id]) for sample in samples if sample.image_id in splits]
    if not found:
        raise InputError(f"{table}: names no image of the dataset; look at dataset.splits and dataset.root")
    return found

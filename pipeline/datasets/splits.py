"""Splits of a dataset from a table.

An example is the split.csv of a training, with which the images that it held out can be explained.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import fsspec

from pipeline.datasets.listing import ListingNotes
from pipeline.datasets.sample import Sample, absolute
from pipeline.errors import InputError, one_line


def resplit(samples: Sequence[Sample], table: str, storage: Mapping[str, Any], notes: ListingNotes | None = None) -> list[Sample]:
    """Select the samples that a table names, with the table's splits.

    They stay in the dataset's order.

    Args:
        table: CSV with the columns image_id and split, such as a trained classifier's split.csv; local or a URL.
        notes: where images that the table does not name, and rows of no image, are counted.

    Raises:
        InputError: if the table cannot be read, has no such columns, gives an image two splits, or names no image of the dataset.
    """
    path = absolute(table)
    try:
        with fsspec.open(path, "rb", **(storage if "://" in path else {})) as file:
            rows = list(csv.DictReader(io.StringIO(file.read().decode("utf-8-sig"))))
        splits: dict[str, str] = {}
        for row in rows:
            if splits.setdefault(row["image_id"], row["split"]) != row["split"]:
                first = splits[row["image_id"]]
                raise InputError(f"{table}: {row['image_id']} is in the splits {first!r} and {row['split']!r}; an image needs one")
    except KeyError as error:
        raise InputError(f"{table}: no column {error}; dataset.splits needs image_id and split") from None
    except (OSError, ValueError, ImportError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read as a CSV ({one_line(error)}); look at dataset.splits") from None
    selected = [replace(sample, split=splits[sample.image_id]) for sample in samples if sample.image_id in splits]
    if not selected:
        raise InputError(f"{table}: names no image of the dataset; look at dataset.splits and dataset.root")
    if notes is not None:
        for sample in samples:
            if sample.image_id not in splits:
                notes.leave_out("that dataset.splits does not name", sample.image_id)
        if unknown := splits.keys() - {sample.image_id for sample in samples}:
            notes.remark(f"rows of {table} that name no image of the dataset: {len(unknown):,} (such as {min(unknown)})")
    return selected

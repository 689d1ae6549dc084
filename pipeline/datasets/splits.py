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

from pipeline.datasets.sample import Sample, absolute
from pipeline.errors import InputError, one_line


def resplit(samples: Sequence[Sample], table: str, storage: Mapping[str, Any]) -> list[Sample]:
    """Select the samples that a table names, with the table's splits.

    They stay in the dataset's order.

    Args:
        table: CSV with the columns image_id and split, such as a trained classifier's split.csv; local or a URL.

    Raises:
        InputError: if the table cannot be read, has no such columns, or names no image of the dataset.
    """
    path = absolute(table)
    try:
        with fsspec.open(path, "rb", **(storage if "://" in path else {})) as file:
            rows = list(csv.DictReader(io.StringIO(file.read().decode())))
        splits = {row["image_id"]: row["split"] for row in rows}
    except KeyError as error:
        raise InputError(f"{table}: no column {error}; dataset.splits needs image_id and split") from None
    except (OSError, ValueError, ImportError, csv.Error) as error:
        raise InputError(f"{table}: cannot be read as a CSV ({one_line(error)}); look at dataset.splits") from None
    selected = [replace(sample, split=splits[sample.image_id]) for sample in samples if sample.image_id in splits]
    if not selected:
        raise InputError(f"{table}: names no image of the dataset; look at dataset.splits and dataset.root")
    return selected

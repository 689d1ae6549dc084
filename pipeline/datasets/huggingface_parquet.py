"""Parquet files with the bytes of images."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet

from pipeline.datasets.contained import ParquetCell
from pipeline.datasets.huggingface_labels import class_names, label_and_name
from pipeline.datasets.root import Root
from pipeline.datasets.row_groups import group_digest
from pipeline.datasets.sample import Sample
from pipeline.datasets.split_names import split_of_file
from pipeline.errors import InputError, one_line
from pipeline.storage.retry import UNREACHABLE


def read_parquet(root: Root, relative: str, image_column: str, label_column: str) -> list[Sample]:
    """List the rows of a Parquet file without reading the images.

    The id of an image is the file's path with the number of its row, since the names in the struct may repeat.

    Raises:
        InputError: if it cannot be read, or a column is missing or of another type.
    """
    url = root.path(relative)
    try:
        with root.fs.open(f"{root.base}/{relative}", "rb") as file:
            parquet = pyarrow.parquet.ParquetFile(file, pre_buffer=True)
            _check_columns(parquet.schema_arrow, url, image_column, label_column)
            return list(_rows(parquet, root, relative, image_column, label_column))
    except (OSError, ValueError, TypeError, pa.ArrowException, *UNREACHABLE) as error:
        raise InputError(f"{url}: cannot be read as Parquet with images ({one_line(error)}); look at dataset.root") from None


def _check_columns(schema: pa.Schema, url: str, image_column: str, label_column: str) -> None:
    names = ", ".join(schema.names)
    for key, column, is_needed in (("image_column", image_column, True), ("label_column", label_column, label_column != "label")):
        if is_needed and column not in schema.names:
            raise InputError(f"{url}: no column {column!r}; set dataset.{key} to one of {names}")
    kind = schema.field(image_column).type
    if pa.types.is_struct(kind):
        kind = kind.field("bytes").type if kind.get_field_index("bytes") >= 0 else pa.null()
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise InputError(f"{url}: the column {image_column!r} holds no bytes; set dataset.image_column to one of {names}")


def _rows(parquet: pyarrow.parquet.ParquetFile, root: Root, relative: str, image_column: str, label_column: str) -> Iterator[Sample]:
    names = class_names(parquet.schema_arrow, label_column)
    has_label, split, number = label_column in parquet.schema_arrow.names, split_of_file(relative), 0
    for group in range(parquet.num_row_groups):
        count = parquet.metadata.row_group(group).num_rows
        labels = parquet.read_row_group(group, columns=[label_column])[label_column].to_pylist() if has_label else [None] * count
        digest = group_digest(parquet.metadata, group, image_column)
        for row, value in enumerate(labels):
            try:
                label, class_name = label_and_name(value, names)
            except (ValueError, TypeError) as error:
                raise ValueError(f"row {number}: {one_line(error)}") from None
            path = ParquetCell(root.path(relative), group, row, digest, image_column).path()
            yield Sample(f"{relative}/{number:06d}", path, label, class_name, split, root=root.local)
            number += 1

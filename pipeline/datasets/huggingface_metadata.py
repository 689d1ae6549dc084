"""A folder of images with tables metadata.csv, .jsonl or .parquet."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from pipeline.datasets.formats import has_image_suffix
from pipeline.datasets.huggingface_labels import class_names, label_and_name
from pipeline.datasets.listing import ListingNotes
from pipeline.datasets.root import Root
from pipeline.datasets.sample import Sample
from pipeline.datasets.split_names import split_of_file
from pipeline.errors import InputError, one_line

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

_FILE = "file_name"


def read_metadata(root: Root, tables: Sequence[str], files: Sequence[str], label_column: str, notes: ListingNotes) -> list[Sample]:
    """List the rows of tables, whose `file_name` is relative to the table's folder.

    Args:
        tables: relative paths of the tables.
        files: relative paths of all files; images among them that no table names are counted.

    Raises:
        InputError: if a table cannot be read, has no column `file_name`, or has an invalid row.
    """
    samples: list[Sample] = []
    for relative in tables:
        samples += _rows(root, relative, label_column)
    named = {sample.image_id for sample in samples}
    for relative in files:
        if has_image_suffix(relative) and relative not in named:
            notes.leave_out("that no metadata name", relative)
    return samples


def _rows(root: Root, relative: str, label_column: str) -> list[Sample]:
    table, folder = _table(root, relative), relative.rpartition("/")[0]
    url = root.path(relative)
    if _FILE not in table.column_names:
        raise InputError(f"{url}: no column {_FILE!r}; its columns are {', '.join(table.column_names)}")
    if label_column not in table.column_names and label_column != "label":
        raise InputError(f"{url}: no column {label_column!r}; set dataset.label_column to one of {', '.join(table.column_names)}")
    wanted = [name for name in dict.fromkeys((_FILE, label_column, "split")) if name in table.column_names]
    names = class_names(table.schema, label_column)
    samples = []
    for number, row in enumerate(table.select(wanted).to_pylist(), start=1):
        name = row[_FILE]
        if not isinstance(name, str) or not name:
            raise InputError(f"{url}, row {number}: {_FILE} is empty")
        try:
            image_id = f"{folder}/{name}" if folder else name
            label, class_name = label_and_name(row.get(label_column), names)
            split = row.get("split") or split_of_file(image_id)
            samples.append(Sample(image_id, root.path(image_id), label, class_name, split and str(split), root=root.local))
        except (ValueError, TypeError, InputError) as error:
            raise InputError(f"{url}, row {number}: {one_line(error)}") from None
    return samples


def _table(root: Root, relative: str) -> pa.Table:
    data = io.BytesIO(root.read(relative))
    try:
        if relative.endswith(".parquet"):
            return pyarrow.parquet.read_table(data)
        if relative.endswith(".jsonl"):
            return pyarrow.json.read_json(data, parse_options=pyarrow.json.ParseOptions(newlines_in_values=True))
        options = pyarrow.csv.ConvertOptions(column_types={_FILE: pa.string(), "split": pa.string()})
        return pyarrow.csv.read_csv(data, convert_options=options, parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{root.path(relative)}: cannot be read as a table ({one_line(error)})") from None

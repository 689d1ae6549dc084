"""Dataset kind `manifest`: a CSV or Parquet table with one row per image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Literal

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
from pydantic import Field

from pipeline.datasets.kind import DatasetConfig, DatasetKind
from pipeline.datasets.labels import as_label
from pipeline.datasets.sample import Masks, Sample, absolute, below, number_classes
from pipeline.datasets.shapes import Box, pack_shapes
from pipeline.errors import InputError, one_line
from pipeline.redaction import redact

_REMOTE = ("s3", "gs", "az", "abfs", "https", "http")  # protocols that cannot read this machine's own files
_COLUMNS = ("path", "label", "class_name", "mask", "bbox", "boxes", "split", "image_id")
_TEXTS = {name: pa.string() for name in _COLUMNS if name != "label"}  # 007 is an id, not a number


class ManifestConfig(DatasetConfig):
    """Configuration of a manifest."""

    root_description = "a CSV or Parquet file"

    kind: Literal["manifest"] = Field(description="A CSV or Parquet table with one row per image and at least the column path.")


def read_manifest(config: ManifestConfig, storage: Mapping[str, Any]) -> list[Sample]:
    """List the manifest's rows in their order.

    `path` and `mask` are relative to the manifest's folder, or URLs; `label` is a number or a name; `bbox` is
    "left top right bottom" in pixels, or a list of these four; `boxes` has several, separated by semicolons, or a list of lists.

    Raises:
        InputError: if the manifest cannot be read, has no column `path`, or has an invalid row.
    """
    manifest = absolute(str(config.root))
    table = _read(manifest, storage)
    if "path" not in table.column_names:
        raise InputError(f"{manifest}: no column 'path'; its columns are {', '.join(table.column_names)}")
    for name in _COLUMNS:
        if table.column_names.count(name) > 1:
            raise InputError(f"{manifest}: two columns are named {name!r}; rename one")
    folder = manifest.rpartition("/")[0]
    samples = []
    for number, row in enumerate(_rows(table.select([name for name in _COLUMNS if name in table.column_names])), start=1):
        try:
            samples.append(_sample(row, folder))
        except (ValueError, TypeError, InputError) as error:
            raise InputError(f"{manifest}, row {number}: {one_line(error)}") from None
    return number_classes(samples)


def further_columns(config: ManifestConfig, storage: Mapping[str, Any]) -> pa.Table:
    """Return the manifest's columns that hdm itself does not read.

    They stand after `image_id`. Columns of lists and other nested values are left out, and so is a second column of the same name, whatever
    its case.

    Raises:
        InputError: if the manifest cannot be read, or has no column `path`.
    """
    table = _read(absolute(str(config.root)), storage)
    if "path" not in table.column_names:
        raise InputError(f"{config.root}: no column 'path'; its columns are {', '.join(table.column_names)}")
    paths = table["path"].cast(pa.string())
    ids = paths
    if "image_id" in table.column_names:
        given = table["image_id"].cast(pa.string())
        ids = pc.if_else(pc.fill_null(pc.not_equal(given, ""), False), given, paths)
    kept: dict[str, pa.ChunkedArray] = {}
    for name, values in zip(table.column_names, table.columns, strict=True):
        known = {each.lower() for each in (*_COLUMNS, *kept)}
        if name.lower() not in known and not pa.types.is_nested(values.type):
            kept[name] = values
    return pa.table({"image_id": ids, **kept})


MANIFEST = DatasetKind("manifest", ManifestConfig, read_manifest)


def _read(manifest: str, storage: Mapping[str, Any]) -> pa.Table:
    """Read a manifest.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        with fsspec.open(manifest, "rb", **(storage if "://" in manifest else {})) as file:
            if PurePosixPath(manifest).suffix.lower() in {".parquet", ".pq"}:
                return pyarrow.parquet.read_table(file)
            return pyarrow.csv.read_csv(file, convert_options=pyarrow.csv.ConvertOptions(column_types=_TEXTS))
    except (OSError, ValueError, ImportError, pa.ArrowException) as error:
        raise InputError(f"{manifest}: cannot be read as CSV or Parquet ({one_line(error)}); set dataset.root to a manifest") from None


def _rows(table: pa.Table) -> Iterator[dict[str, Any]]:
    """Iterate over the rows of a table.

    10,000 rows at a time are converted to Python objects, to bound the memory.
    """
    for batch in table.to_batches(max_chunksize=10_000):
        yield from batch.to_pylist()


def _sample(row: dict[str, Any], folder: str) -> Sample:
    path = row["path"]
    if not path:
        raise ValueError("path is empty")
    label = row.get("label")
    image_id, split, mask = row.get("image_id"), row.get("split"), row.get("mask")
    root = None if "://" in folder else folder
    return Sample(
        image_id=str(path if image_id is None or image_id == "" else image_id),
        path=_locate(str(path), folder),
        label=None if isinstance(label, str) else as_label(label),
        class_name=label if isinstance(label, str) and label else row.get("class_name") or None,
        split=None if split is None or split == "" else str(split),
        masks=Masks((_locate(str(mask), folder),), root=root) if mask else None,
        bbox=_box(row.get("bbox")),
        root=root,
        shapes=pack_shapes(_boxes(row.get("boxes"))),
    )


def _locate(path: str, folder: str) -> str:
    """Resolve a path of a manifest.

    The path may be below the manifest's folder, in an object store or on a web server; no other file of this machine is allowed.

    Raises:
        InputError: if a relative path would leave the folder.
        ValueError: if it is another kind of URL, or a URL with a secret in it.
    """
    if "://" not in path:
        return below(folder, path)
    if redact(path) != path:
        raise ValueError(f"{redact(path)} has a secret in it: give it in the environment (AWS_ACCESS_KEY_ID, ...), not in a URL")
    protocol = path.partition("://")[0]
    if "::" in path or protocol not in {*_REMOTE, folder.partition("://")[0]}:
        raise ValueError(f"{path}: a URL may begin with {', '.join(_REMOTE)}, and a path must stay below the manifest's folder")
    return path


def _boxes(value: Any) -> list[Box]:
    """Convert the column `boxes`, whose boxes are united."""
    parts = value.split(";") if isinstance(value, str) else value or []
    if not isinstance(parts, list):
        raise TypeError(f"boxes must be several of left top right bottom, separated by semicolons, not {value!r}")
    boxes = [_box(part.strip() if isinstance(part, str) else part) for part in parts]
    return [box for box in boxes if box is not None]


def _box(value: Any) -> tuple[float, float, float, float] | None:
    if value is None or value == "":
        return None
    try:
        left, top, right, bottom = (float(number) for number in (value.replace(",", " ").split() if isinstance(value, str) else value))
    except (TypeError, ValueError):
        left = top = right = bottom = 0.0
    if not (-math.inf < left < right < math.inf and -math.inf < top < bottom < math.inf):
        raise ValueError(f"bbox must be left top right bottom with left < right and top < bottom, not {value!r}")
    return left, top, right, bottom

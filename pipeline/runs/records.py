"""Records in Parquet: a row an (image, method), one part a shard; and the table of images."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hdm_core import METRICS
from pipeline.datasets.sample import Sample, as_text

SCHEMA_VERSION = 1

_METADATA = {"hdm.schema_version": str(SCHEMA_VERSION)}

# Columns that came after the first files of this schema version, and what those files mean by having none.
_LATER = {"rank": 0, "truth_sha256": None, "reused_from": None}

STATUSES = ("ok", "flat", "nan", "unreadable", "failed")  # from best to worst

RECORDS = pa.schema(
    [
        ("run", pa.string()),
        ("shard", pa.int32()),
        ("row", pa.int64()),
        ("image_id", pa.string()),
        ("method", pa.string()),
        ("rank", pa.int32()),  # 0 for the only or likeliest class, 1 for the next
        ("status", pa.string()),  # one of STATUSES
        ("error", pa.string()),
        ("target", pa.int32()),
        ("target_name", pa.string()),
        ("label", pa.int32()),
        ("probability", pa.float32()),
        ("logit", pa.float32()),
        *[(metric, pa.float32()) for metric in METRICS],
        ("region", pa.string()),  # segmentation | bbox | none
        ("passes", pa.int64()),
        ("seconds", pa.float32()),
        ("stage_weights", pa.list_(pa.float32())),
        ("seed", pa.int64()),
        ("device", pa.string()),
        ("reused_from", pa.string()),  # the run whose map and numbers these are; null if they were computed here
    ],
    metadata=_METADATA,
)

# The target's probability along both curves, of the images that were measured: from none to all of the pixels in equal steps.
CURVES = pa.schema(
    [
        ("row", pa.int64()),
        ("method", pa.string()),
        ("rank", pa.int32()),
        ("deletion", pa.list_(pa.float32())),  # while pixels go
        ("insertion", pa.list_(pa.float32())),  # while they come
    ],
    metadata=_METADATA,
)

IMAGES = pa.schema(
    [
        ("row", pa.int64()),
        ("image_id", pa.string()),
        ("path", pa.string()),
        ("sha256", pa.string()),
        ("truth_sha256", pa.string()),  # of the ground truth, a box or the files of masks; null where there is none
        ("label", pa.int32()),
        ("class_name", pa.string()),
        ("split", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("crop", pa.list_(pa.float32(), 4)),  # left, top, right, bottom in pixels of the photograph
    ],
    metadata=_METADATA,
)

# What only reading an image tells; a shard's part brings it, images.parquet gets it when the run is aggregated.
FACTS = pa.schema([IMAGES.field(name) for name in ("row", "sha256", "truth_sha256", "width", "height", "crop")], metadata=_METADATA)


def to_parquet(rows: Iterable[Mapping[str, Any]] | Mapping[str, Sequence[Any]] | pa.Table, schema: pa.Schema) -> bytes:
    """Rows, or columns of one length, as a Parquet file; a field that a row lacks, and a column that is missing, is null."""
    match rows:
        case pa.Table():
            table = rows
        case Mapping():
            length = len(next(iter(rows.values())))
            columns = [pa.array(rows[field.name], field.type) if field.name in rows else pa.nulls(length, field.type) for field in schema]
            table = pa.table(columns, schema=schema)
        case _:
            table = pa.Table.from_pylist(list(rows), schema=schema)
    sink = io.BytesIO()
    pq.write_table(table.cast(schema), sink, compression="zstd")
    return sink.getvalue()


def image_columns(samples: Sequence[Sample]) -> dict[str, Sequence[Any]]:
    """Samples as columns of images.parquet, without what only reading the images tells."""
    columns: dict[str, Sequence[Any]] = {"row": range(len(samples)), "path": [as_text(sample.path) for sample in samples]}
    return columns | {name: [getattr(sample, name) for sample in samples] for name in ("image_id", "label", "class_name", "split")}


def from_parquet(parts: Sequence[bytes], schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of several files of one schema, in the order of the files.

    Args:
        columns: those to read, of such as all versions have; None reads all.
    """
    if columns is not None:
        return pa.concat_tables([pq.read_table(io.BytesIO(part), columns=list(columns)) for part in parts])
    tables = [_complete(pq.read_table(io.BytesIO(part)), schema) for part in parts]
    return pa.concat_tables([table.select(schema.names).cast(schema) for table in tables]) if tables else schema.empty_table()


def _complete(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the columns that files of an earlier version lack: they explained one class an image, and reused none."""
    for place, field in enumerate(schema):
        if field.name in _LATER and field.name not in table.column_names:
            table = table.add_column(place, field, pa.repeat(pa.scalar(_LATER[field.name], field.type), len(table)))
    return table


def top_rank(rows: pa.Table) -> pa.Table:
    """The records or curves of rank 0: those that tables and figures are made of."""
    return rows.filter(pc.equal(rows["rank"], 0))


def worst_statuses(records: pa.Table) -> dict[str, int]:
    """How many images ended how, each counted under the worst of its methods' statuses."""
    places = pa.table({"row": records["row"], "place": pc.index_in(records["status"], pa.array(STATUSES))})
    worst = places.group_by("row").aggregate([("place", "max")])["place_max"]
    return {STATUSES[place]: count for place, count in Counter(worst.to_pylist()).items()}


def with_facts(images: pa.Table, facts: pa.Table) -> pa.Table:
    """images.parquet with what reading the images told; rows that were not read keep nulls."""
    place = pc.index_in(images["row"], facts["row"])
    for name in FACTS.names:
        if name != "row":
            images = images.set_column(images.column_names.index(name), IMAGES.field(name), facts[name].take(place))
    return images.cast(IMAGES)

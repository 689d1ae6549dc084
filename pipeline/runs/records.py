"""Records in Parquet: one row per image, method and class, one part per shard."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hdm_core import METRICS
from hdm_core.metrics.registry import metrics_on_request
from pipeline.runs.evidence_facts import EVIDENCE_COLUMNS, EvidenceFacts, evidence_row

SCHEMA_VERSION = 1

FILE_METADATA = {"hdm.schema_version": str(SCHEMA_VERSION)}

# Value that a missing column stands for, where that is not null: files written before `rank` existed explain one class per image.
_MISSING_COLUMN_VALUES = {"rank": 0}

Status = Literal["ok", "skipped", "flat", "nan", "unreadable", "failed"]  # from best to worst
STATUSES: tuple[Status, ...] = get_args(Status)
FAILED_STATUSES = ("failed", "unreadable")  # those with an error and without a map

RECORDS = pa.schema(
    [
        ("run", pa.string()),
        ("shard", pa.int32()),
        ("row", pa.int64()),
        ("image_id", pa.string()),
        ("method", pa.string()),
        ("rank", pa.int32()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("target", pa.int32()),
        ("target_name", pa.string()),
        ("contrast", pa.int32()),
        ("label", pa.int32()),
        ("probability", pa.float32()),
        ("logit", pa.float32()),
        *[(name, pa.float32()) for name, metric in METRICS.items() if not metric.on_request],
        ("region", pa.string()),
        ("passes", pa.int64()),
        ("seconds", pa.float32()),
        ("stage_weights", pa.list_(pa.float32())),
        ("seed", pa.int64()),
        ("device", pa.string()),
        ("reused_from", pa.string()),
        ("baseline", pa.string()),
        # float64, since readers of earlier versions take any further float32 column for a metric.
        ("baseline_probability", pa.float64()),
        ("no_contrast", pa.bool_()),
        ("metrics_baseline_probability", pa.float64()),
        ("metrics_no_contrast", pa.bool_()),
        ("metrics_baseline", pa.string()),  # of the metrics' columns; null where the map was not measured
        *EVIDENCE_COLUMNS,
        *[(name, pa.float32()) for name in metrics_on_request()],  # files have those of the run's settings
    ],
    metadata=FILE_METADATA,
)

# Curves of the maps that were measured; their probabilities start at no pixel changed and end at all pixels, in equal steps.
CURVES = pa.schema(
    [
        ("row", pa.int64()),
        ("method", pa.string()),
        ("rank", pa.int32()),
        ("deletion", pa.list_(pa.float32())),
        ("insertion", pa.list_(pa.float32())),
    ],
    metadata=FILE_METADATA,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Result of one method on one image, for one class.

    It is a row of RECORDS and, if the map was measured, of CURVES.

    Attributes:
        run: name of the run.
        shard: index of the shard.
        row: of the image in the dataset.
        label: the dataset's class number of the image.
        rank: 0 for the only or most probable class, 1 for the next.
        error: one line, where the status is `unreadable`, `failed` or `skipped`.
        target: class that the map explains.
        target_name: its name; "A rather than B" for a contrast.
        contrast: class that the target is compared with.
        probability: of the target on the unmasked image; with a contrast, of the target rather than that class.
        logit: of the target on the unmasked image; with a contrast, the difference of both logits.
        metrics: metric id -> value; None or missing where a metric does not apply.
        region: kind of ground truth: segmentation, bbox or none.
        passes: forward and backward passes spent on the map.
        seconds: per map.
        stage_weights: shares of HDM's stages, which sum to 1.
        deletion: probability of the target while pixels are removed.
        insertion: probability of the target while pixels are added.
        device: name of the device that computed the map.
        reused_from: name of the run that computed map and metrics; None if this run did.
        baseline: that the method masked the image with, or started from; None for a method without one.
        baseline_probability: of the target on that baseline, as `probability` is on the image; None if it was not measured.
        no_contrast: whether that baseline keeps the class, see `BaselineScores.no_contrast`, so that the map does not explain the answer.
        metrics_baseline_probability: of the target on the baseline of the metrics.
        metrics_no_contrast: whether the baseline of the metrics keeps the class, so that deletion, insertion and drop say little.
        metrics_baseline: the baseline of `metrics` and the curves; None where the map was not measured.
        measures: with several baselines, baseline -> metric id -> value, the first baseline's too; else empty.
        evidence: numbers of the search for pieces of evidence; None where it was not made.

    Raises:
        ValueError: for a metric that does not exist.
    """

    run: str
    shard: int
    row: int
    image_id: str
    label: int | None
    method: str
    rank: int = 0
    status: Status
    error: str | None = None
    target: int | None = None
    target_name: str | None = None
    contrast: int | None = None
    probability: float | None = None
    logit: float | None = None
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    region: str = "none"
    passes: int = 0
    seconds: float | None = None
    stage_weights: Sequence[float] | None = None
    deletion: Sequence[float] | None = None
    insertion: Sequence[float] | None = None
    seed: int
    device: str
    reused_from: str | None = None
    baseline: str | None = None
    baseline_probability: float | None = None
    no_contrast: bool | None = None
    metrics_baseline_probability: float | None = None
    metrics_no_contrast: bool | None = None
    metrics_baseline: str | None = None
    measures: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    evidence: EvidenceFacts | None = None

    def __post_init__(self) -> None:
        if unknown := set(self.metrics).difference(METRICS):
            raise ValueError(f"no such metric: {', '.join(sorted(unknown))}")

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Record:
        """Return the record of a row of RECORDS, with or without its curves."""
        metrics = {metric: row[metric] for metric in METRICS if metric in row}
        return cls(metrics=metrics, evidence=EvidenceFacts.from_row(row), **{name: row[name] for name in _COLUMNS if name in row})

    def unmeasured(self) -> Record:
        """Return the record without anything that depends on the metrics' settings."""
        return replace(
            self,
            metrics={},
            measures={},
            metrics_baseline=None,
            metrics_baseline_probability=None,
            metrics_no_contrast=None,
            deletion=None,
            insertion=None,
        )

    def to_row(self) -> dict[str, Any]:
        """Return the values of all columns of RECORDS and CURVES by name."""
        return {name: getattr(self, name) for name in _COLUMNS} | dict(self.metrics) | evidence_row(self.evidence)


_COLUMNS = tuple(each.name for each in fields(Record) if each.name not in ("metrics", "measures", "evidence"))


def to_parquet(rows: Iterable[Mapping[str, Any]] | Mapping[str, Sequence[Any]] | pa.Table, schema: pa.Schema) -> bytes:
    """Encode rows, or columns of one length, as a Parquet file.

    Missing fields and columns become null; those that the schema does not have are left out.
    """
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


def from_parquet(parts: Sequence[bytes], schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
    """Decode files of any version into one table, in the order of the files.

    A column that a file lacks is null, or what its absence means; a column that the schema lacks, such as a metric of a plugin that is
    not installed here, is left out.

    Args:
        columns: names of the schema's columns to read; None reads all.
    """
    if columns is not None:
        schema = pa.schema([schema.field(name) for name in columns], metadata=schema.metadata)
    return pa.concat_tables([pa.Table.from_batches([], schema), *(_read_part(part, schema) for part in parts)])


def read_parquet(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a file's columns, or some of them, in the calling thread.

    Threads of Arrow would take Python's lock when they release what they read, and abort a process that ends at that moment.

    Args:
        columns: names; those that the file lacks are left out. None reads all.
    """
    file = pq.ParquetFile(pa.BufferReader(data), pre_buffer=False)
    names = None if columns is None else [name for name in columns if name in file.schema_arrow.names]
    return file.read(names, use_threads=False)


def _read_part(part: bytes, schema: pa.Schema) -> pa.Table:
    """Read the schema's columns of one file."""
    table = read_parquet(part, schema.names)
    missing = {each.name: pa.repeat(_absent_value(each), table.num_rows) for each in schema if each.name not in table.column_names}
    return pa.table([missing[each.name] if each.name in missing else table[each.name].cast(each.type) for each in schema], schema=schema)


def _absent_value(column: pa.Field) -> pa.Scalar:
    """Return the value that a file without this column means."""
    return pa.scalar(_MISSING_COLUMN_VALUES.get(column.name), column.type)


def top_rank(rows: pa.Table) -> pa.Table:
    """Return the records or curves of rank 0, from which tables and figures are made.

    They are the table itself where it has no other rank: a copy of 3,000,000 records takes half a GiB.
    """
    if not rows["rank"].null_count and not pc.any(pc.not_equal(rows["rank"], 0)).as_py():
        return rows
    return rows.filter(pc.equal(rows["rank"], 0))

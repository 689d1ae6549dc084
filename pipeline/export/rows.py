"""Images of a run with their records of rank 0, row by row, for exports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.config.load import load_config
from pipeline.datasets.files import read_file
from pipeline.datasets.images import UnreadableError
from pipeline.errors import InputError
from pipeline.runs import RunStore
from pipeline.runs.records import top_rank
from pipeline.runs.requested import never_measured

_NO_METRICS = {"shard", "row", "rank", "target", "contrast", "label", "seed"}


@dataclass(frozen=True)
class ExportedImage:
    """An image of a run.

    Attributes:
        facts: its row of images.parquet.
        records: method -> its record of rank 0.
    """

    facts: dict[str, Any]
    records: dict[str, dict[str, Any]]

    @property
    def mapped(self) -> dict[str, dict[str, Any]]:
        """Records whose method has a map, also a flat one."""
        return {method: record for method, record in self.records.items() if record["status"] in ("ok", "flat")}


def exported_images(store: RunStore) -> Iterator[ExportedImage]:
    """Yield the images of the committed shards in row order, with their records.

    Raises:
        InputError: if no shard of the run is done.
    """
    records = top_rank(store.records())
    by_row: dict[int, dict[str, dict[str, Any]]] = {}
    for record in records.drop_columns(list(never_measured(records))).to_pylist():
        by_row.setdefault(record["row"], {})[record["method"]] = record
    if not by_row:
        raise InputError(f"{store.url}: no shard of the run is done; run it first")
    for facts in store.images_with_facts().to_pylist():
        if facts["row"] in by_row:
            yield ExportedImage(facts, by_row[facts["row"]])


def metric_columns(store: RunStore) -> list[str]:
    """Return the columns of the records that are measured numbers."""
    records = store.records()
    schema = records.drop_columns(list(never_measured(records))).schema
    return [each.name for each in schema if pa.types.is_floating(each.type) and each.name not in _NO_METRICS]


def read_photograph(store: RunStore, image: ExportedImage) -> bytes | None:
    """Read an image's file; None if it cannot be read or has changed."""
    import hashlib

    storage = load_config(store.metadata()["config"]).storage
    path = image.facts["path"]
    try:
        data = read_file(path, None, storage if "://" in path else {})
    except UnreadableError:
        return None
    return data if hashlib.sha256(data).hexdigest() == image.facts["sha256"] else None

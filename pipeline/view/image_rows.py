"""Rows of images.parquet, read in batches as far as they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.runs import RunStore
from pipeline.runs.images import IMAGES
from pipeline.view.columns import IMAGE_COLUMNS

IMAGE_SCHEMA = pa.schema([IMAGES.field(name) for name in ("row", "image_id", "path", *IMAGE_COLUMNS)])

_BATCH = 1 << 15  # rows that are decoded together: the whole table of a million images would take 200 MB at once


class ImageRows:
    """Images of a run that are not in a table yet.

    Args:
        present: number of the first rows that the table has.
        insert: adds a batch of IMAGE_SCHEMA to the table.
    """

    def __init__(self, store: RunStore, present: int, insert: Callable[[pa.Table], None]) -> None:
        self._store, self._end, self._insert = store, present, insert
        self._batches: Iterator[pa.Table] | None = None

    def advance(self, stop: int) -> None:
        """Add the images up to a row, or all if there are fewer."""
        if self._end >= stop:
            return
        if self._batches is None:
            self._batches = self._read(self._end)
        for batch in self._batches:
            self._insert(batch)
            self._end += len(batch)
            if self._end >= stop:
                return

    def _read(self, start: int) -> Iterator[pa.Table]:
        """Yield the rows from `start` on; a column that an old file lacks is null."""
        file = pq.ParquetFile(pa.BufferReader(self._store.storage.read("images.parquet")), pre_buffer=False)
        names = [name for name in IMAGE_SCHEMA.names if name in file.schema_arrow.names]
        before = 0
        for batch in file.iter_batches(_BATCH, columns=names, use_threads=False):
            after = before + len(batch)
            if after > start:
                rows = batch.slice(max(0, start - before))
                columns = [
                    rows[field.name].cast(field.type) if field.name in names else pa.nulls(len(rows), field.type) for field in IMAGE_SCHEMA
                ]
                yield pa.table(columns, schema=IMAGE_SCHEMA)
            before = after

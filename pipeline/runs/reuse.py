"""Results of a run that come from earlier runs, listed in reuse.parquet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.runs.records import FILE_METADATA, from_parquet, to_parquet

NAME = "reuse.parquet"

REUSE = pa.schema(
    [
        ("row", pa.int64()),
        ("method", pa.string()),
        ("run", pa.string()),  # URL of the earlier run
        ("run_row", pa.int64()),  # the image's row in the earlier run
    ],
    metadata=FILE_METADATA,
)

NOT_REUSED = -1


@dataclass(frozen=True)
class ReusePlan:
    """Results that are taken from earlier runs.

    Attributes:
        runs: URLs of the earlier runs.
        sources: method -> (images, 2) int64: index of the run in `runs`, and the image's row in that run; NOT_REUSED where the map has
            to be computed.
    """

    runs: tuple[str, ...]
    sources: Mapping[str, NDArray[np.int64]]

    def rows(self, start: int, stop: int) -> ReusePlan:
        """Return the plan of a range of rows, numbered from 0."""
        return ReusePlan(self.runs, {method: sources[start:stop] for method, sources in self.sources.items()})

    def count(self, methods: Iterable[str], rows: Iterable[tuple[int, int]]) -> dict[str, int]:
        """Count the reused maps of each method in ranges of rows (start, stop)."""
        ranges = list(rows)
        reused = {method: self.sources[method][:, 0] != NOT_REUSED for method in methods if method in self.sources}
        return {method: sum(int(flags[start:stop].sum()) for start, stop in ranges) for method, flags in reused.items()}


def to_bytes(reuse: ReusePlan) -> bytes:
    """Encode reuse.parquet, one row per reused map."""
    tables = []
    for method, sources in reuse.sources.items():
        rows = np.flatnonzero(sources[:, 0] != NOT_REUSED)
        runs = pa.array(reuse.runs, pa.string()).take(pa.array(sources[rows, 0]))
        columns = [pa.array(rows, pa.int64()), pa.repeat(method, len(rows)), runs, pa.array(sources[rows, 1])]
        tables.append(pa.table(columns, schema=REUSE))
    return to_parquet(pa.concat_tables(tables) if tables else REUSE.empty_table(), REUSE)


def from_bytes(data: bytes, images: int) -> ReusePlan:
    """Decode reuse.parquet of a run with this number of images."""
    table = from_parquet([data], REUSE)
    runs = table["run"].combine_chunks().dictionary_encode()
    run_indices, urls = runs.indices.to_numpy(), runs.dictionary.to_pylist()
    rows, run_rows = table["row"].to_numpy(), table["run_row"].to_numpy()
    methods = np.asarray(table["method"].to_pylist())
    sources = {}
    for method in dict.fromkeys(methods.tolist()):
        of_method = methods == method
        sources[method] = np.full((images, 2), NOT_REUSED, np.int64)
        sources[method][rows[of_method]] = np.stack([run_indices[of_method], run_rows[of_method]], axis=1)
    return ReusePlan(tuple(urls), sources)

"""Which of a run's explanations are an earlier run's, and where they lie there: reuse.parquet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.runs.records import SCHEMA_VERSION, from_parquet, to_parquet

NAME = "reuse.parquet"

REUSE = pa.schema(
    [
        ("row", pa.int64()),
        ("method", pa.string()),
        ("run", pa.string()),  # the earlier run's URL
        ("run_row", pa.int64()),  # the image's row there
    ],
    metadata={"hdm.schema_version": str(SCHEMA_VERSION)},
)

NOT_REUSED = -1


@dataclass(frozen=True)
class ReusePlan:
    """What is taken from earlier runs.

    Attributes:
        runs: their URLs.
        places: method -> (images, 2) int64, the number of the run in `runs` and the row there; NOWHERE where the map is to be made.
    """

    runs: tuple[str, ...]
    sources: Mapping[str, NDArray[np.int64]]

    def rows(self, start: int, stop: int) -> ReusePlan:
        """The same for some rows only, numbered from 0."""
        return ReusePlan(self.runs, {method: places[start:stop] for method, places in self.sources.items()})

    def count(self, methods: Iterable[str], rows: Iterable[tuple[int, int]]) -> dict[str, int]:
        """Method -> how many of the maps in ranges of rows are taken from earlier runs."""
        ranges = list(rows)
        kept = {method: self.sources[method][:, 0] != NOT_REUSED for method in methods if method in self.sources}
        return {method: sum(int(there[start:stop].sum()) for start, stop in ranges) for method, there in kept.items()}


def to_bytes(reuse: ReusePlan) -> bytes:
    """reuse.parquet: a row a map that is taken."""
    tables = []
    for method, places in reuse.sources.items():
        rows = np.flatnonzero(places[:, 0] != NOT_REUSED)
        runs = pa.array(reuse.runs, pa.string()).take(pa.array(places[rows, 0]))
        columns = [pa.array(rows, pa.int64()), pa.repeat(method, len(rows)), runs, pa.array(places[rows, 1])]
        tables.append(pa.table(columns, schema=REUSE))
    return to_parquet(pa.concat_tables(tables) if tables else REUSE.empty_table(), REUSE)


def from_bytes(data: bytes, images: int) -> ReusePlan:
    """What `to_bytes` wrote, for a run of so many images."""
    table = from_parquet([data], REUSE)
    runs = table["run"].combine_chunks().dictionary_encode()
    numbers, names = runs.indices.to_numpy(), runs.dictionary.to_pylist()
    rows, there = table["row"].to_numpy(), table["run_row"].to_numpy()
    methods = np.asarray(table["method"].to_pylist())
    places = {}
    for method in dict.fromkeys(methods.tolist()):
        mine = methods == method
        places[method] = np.full((images, 2), NOT_REUSED, np.int64)
        places[method][rows[mine]] = np.stack([numbers[mine], there[mine]], axis=1)
    return ReusePlan(tuple(names), places)

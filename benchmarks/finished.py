"""Benchmark of what reads a finished run: tables, statistics, statuses."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.steps import Steps, StepTiming, peak_mib
from benchmarks.synthetic_run import write_run
from pipeline.runs import RunStore
from pipeline.runs.records import top_rank
from pipeline.tables.aggregate import aggregate, number_columns
from pipeline.tables.no_contrast import COLUMNS, count_no_contrast
from pipeline.tables.ranks import rank_methods


@dataclass(frozen=True)
class FinishedResult:
    """Result: seconds and memory by step.

    Attributes:
        images, records: of the run.
        before_mib: peak memory of the process before the first step, which is that of its imports.
    """

    images: int
    records: int
    before_mib: float
    steps: tuple[StepTiming, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the result."""
        return asdict(self)


def bench_finished(images: int, shard_size: int, methods: tuple[str, ...], folder: Path) -> FinishedResult:
    """Write the records of a run, and read them as `hdm tables` does."""
    with ProcessPoolExecutor(1, get_context("spawn")) as writer:  # whose memory is not the reader's
        store = RunStore.open(writer.submit(write_run, images, shard_size, methods, folder).result())
    before, timed = peak_mib(), Steps()
    timed("statuses", store.statuses)
    timed("tables.parquet and statistics.parquet", lambda: aggregate(store))
    columns = list(dict.fromkeys([*number_columns(store), *COLUMNS]))
    records = timed("records of the tables", lambda: store.records(columns=columns))
    timed("images without contrast", lambda: count_no_contrast(records))
    timed("ranks", lambda: rank_methods(top_rank(records)))
    return FinishedResult(images, images * len(methods), before, tuple(timed.timings))

"""What planning a very large dataset takes, and going on with a run of it: seconds and memory, step by step."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.execution.driver import lay_out, open_shards
from pipeline.plan import Plan, Shard, make_plan
from pipeline.runs import RunStore
from pipeline.runs.records import RECORDS, to_parquet
from pipeline.runs.store import commit_name
from pipeline.storage.objects import to_json

T = TypeVar("T")

_BATCH = 10_000  # rows of a manifest that are made at a time


@dataclass(frozen=True)
class StepTiming:
    """One thing that a driver does.

    Attributes:
        peak_mib: the most memory that the process has held until then.
    """

    step: str
    seconds: float
    peak_mib: float


@dataclass(frozen=True)
class PlanResult:
    """A run planned, half done, and gone on with.

    Attributes:
        seconds, peak_mib: of all steps.
        listing: the dataset's hash, the same by both manifests.
    """

    rows: int
    shards: int
    left: int
    seconds: float
    peak_mib: float
    listing: str
    steps: tuple[StepTiming, ...]

    def as_dict(self) -> dict[str, Any]:
        """What the command prints."""
        return asdict(self)


def bench_plan(rows: int, shard_size: int, folder: Path) -> PlanResult:
    """Plans a manifest of so many images in Parquet and in CSV, lays the run out, and resumes it with every other shard done.

    Args:
        folder: where the manifests and the run go.
    """
    manifests = {suffix: _write_manifest(folder / f"manifest.{suffix}", rows) for suffix in ("parquet", "csv")}
    steps: list[StepTiming] = []

    def timed(step: str, work: Callable[[], T]) -> T:
        begin = time.perf_counter()
        result = work()
        steps.append(StepTiming(step, time.perf_counter() - begin, _peak()))
        return result

    plan = timed("plan, CSV", lambda: make_plan(_configuration(manifests["csv"], shard_size, folder)))
    listing = timed("hash, CSV", plan.dataset_digest)
    del plan  # as a driver of its own
    plan = timed("plan, Parquet", lambda: make_plan(_configuration(manifests["parquet"], shard_size, folder)))
    if timed("hash, Parquet", plan.dataset_digest) != listing:
        raise RuntimeError("the two manifests list different images")
    _, store = timed("lay the run out", lambda: lay_out(plan))
    _commit_half(store, plan)
    config, shards = plan.config, len(plan.shards)
    del plan, store
    plan = timed("plan again", lambda: make_plan(config))
    _, store = timed("find the run", lambda: lay_out(plan))
    left = timed("list what is done", lambda: open_shards(plan, store))
    timed("count what is done", store.statuses)
    return PlanResult(rows, shards, len(left), sum(step.seconds for step in steps), _peak(), listing, tuple(steps))


def _configuration(manifest: Path, shard_size: int, folder: Path) -> RunConfig:
    return load_config(
        {
            "name": "million",
            "dataset": {"kind": "manifest", "root": str(manifest)},
            "classifier": {"arch": "mobilenet_v2"},
            "methods": ["hdm", "grad_cam"],
            "compute": {"shard_size": shard_size},
            "output": str(folder / "runs"),
        }
    )


def _write_manifest(path: Path, rows: int) -> Path:
    parts = _manifest(rows)
    first = next(parts)
    kinds: dict[str, Any] = {".parquet": pyarrow.parquet.ParquetWriter, ".csv": pyarrow.csv.CSVWriter}
    with kinds[path.suffix](path, first.schema) as writer:
        writer.write_table(first)
        for part in parts:
            writer.write_table(part)
    return path


def _manifest(rows: int) -> Iterator[pa.Table]:
    for start in range(0, rows, _BATCH):
        numbers = range(start, min(start + _BATCH, rows))
        paths = [f"photographs/{number // 1000:05d}/{number:09d}.jpg" for number in numbers]
        yield pa.table({"path": paths, "label": [number % 1000 for number in numbers], "split": ["test"] * len(numbers)})


def _commit_half(store: RunStore, plan: Plan) -> None:
    """Commits every other shard, with records and without maps, which nobody reads to go on."""
    for shard in plan.shards[::2]:
        store.storage.write(f"records/part-{shard.index:06d}.parquet", _records(plan, shard))
        store.storage.write(commit_name(shard.index), to_json({"shard": shard.index, "rows": [shard.start, shard.stop]}))


def _records(plan: Plan, shard: Shard) -> bytes:
    rows = [row for row in range(shard.start, shard.stop) for _ in plan.config.methods]
    methods = [*plan.config.methods] * len(shard)
    return to_parquet({"row": rows, "method": methods, "status": ["ok"] * len(rows)}, RECORDS)


def _peak() -> float:
    """MiB; Linux counts in KiB, macOS in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)

"""Benchmark of planning and resuming a very large run: seconds and memory by step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from benchmarks.steps import Steps, StepTiming, peak_mib
from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.execution.driver import lay_out, open_shards
from pipeline.plan import Plan, Shard, make_plan
from pipeline.runs import RunStore
from pipeline.runs.records import RECORDS, to_parquet
from pipeline.runs.store import commit_name
from pipeline.storage.objects import to_json

_BATCH = 10_000  # manifest rows written at a time


@dataclass(frozen=True)
class PlanResult:
    """Result: a run planned, half done, and resumed.

    Attributes:
        rows, shards: images and shards of the run.
        left: shards that remain after half were committed.
        seconds, peak_mib: total and peak over all steps.
        listing: digest of the dataset, the same for both manifests.
    """

    rows: int
    shards: int
    left: int
    seconds: float
    peak_mib: float
    listing: str
    steps: tuple[StepTiming, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the result."""
        return asdict(self)


def bench_plan(rows: int, shard_size: int, folder: Path) -> PlanResult:
    """Plan a run of `rows` images, create it, and resume it with half its shards done.

    The manifest is planned from CSV and from Parquet; every other shard is committed before the run is resumed.

    Args:
        folder: folder for the manifests and the run.
    """
    manifests = {suffix: _write_manifest(folder / f"manifest.{suffix}", rows) for suffix in ("parquet", "csv")}
    timed = Steps()
    plan = timed("plan, CSV", lambda: make_plan(_configuration(manifests["csv"], shard_size, folder)))
    digest = timed("hash, CSV", plan.dataset_digest)
    del plan  # each plan is measured as in a driver of its own
    plan = timed("plan, Parquet", lambda: make_plan(_configuration(manifests["parquet"], shard_size, folder)))
    if timed("hash, Parquet", plan.dataset_digest) != digest:
        raise RuntimeError("the two manifests list different images")
    _, store = timed("create the run", lambda: lay_out(plan))
    _commit_half(store, plan)
    config, shards = plan.config, len(plan.shards)
    del plan, store
    plan = timed("plan again", lambda: make_plan(config))
    _, store = timed("find the run", lambda: lay_out(plan))
    left = timed("list what is done", lambda: open_shards(plan, store))
    timed("count what is done", store.statuses)
    return PlanResult(rows, shards, len(left), sum(step.seconds for step in timed.timings), peak_mib(), digest, tuple(timed.timings))


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
    """Commit every other shard with records; maps are not read when a run resumes."""
    for shard in plan.shards[::2]:
        store.storage.write(f"records/part-{shard.index:06d}.parquet", _records(plan, shard))
        store.storage.write(commit_name(shard.index), to_json({"shard": shard.index, "rows": [shard.start, shard.stop]}))


def _records(plan: Plan, shard: Shard) -> bytes:
    rows = [row for row in range(shard.start, shard.stop) for _ in plan.config.methods]
    methods = [*plan.config.methods] * len(shard)
    return to_parquet({"row": rows, "method": methods, "status": ["ok"] * len(rows)}, RECORDS)

"""States of a run's shards, from commits, leases and failures."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.runs.leases import is_free, lease_name
from pipeline.runs.records import FAILED_STATUSES
from pipeline.runs.store import MAX_PARALLEL_REQUESTS, RunStore
from pipeline.storage.objects import to_json

State = Literal["done", "at work", "stale", "failed", "open"]


@dataclass(frozen=True)
class ShardState:
    """State of one shard.

    Attributes:
        rows: its first row, and the one after its last.
        state: "done"; "at work": a worker holds its lease; "stale": the lease's holder has ended, or has not renewed it in time;
            "failed": it failed after all attempts, or images of a done shard could not be explained; "open": nobody works on it.
        holder: the machine and process of the lease.
        since: time at which it took the lease, ISO 8601; None in runs of an earlier version.
        until: time until which the lease holds unless it is renewed.
        error: last error.
        failed_images: of a done shard.
    """

    shard: int
    rows: tuple[int, int]
    state: State
    holder: str | None = None
    since: str | None = None
    until: str | None = None
    error: str | None = None
    failed_images: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON has them."""
        return {**asdict(self), "rows": list(self.rows)}


def shard_states(store: RunStore) -> list[ShardState]:
    """Return the state of every shard of a run, in order.

    Of shards that are not done, lease and failure are read; of the others three columns of the records.
    """
    info = store.metadata()
    size, images = info["config"]["compute"]["shard_size"], info["images"]
    done, leased, failures = store.done(), set(store.storage.names("leases")), set(store.storage.names("failures"))
    failed_images = {shard: found for part in store.record_parts(["shard", "row", "status", "error"]) for shard, found in _failed(part)}

    def state(shard: int) -> ShardState:
        rows = shard * size, min((shard + 1) * size, images)
        if shard in done:
            count, error = failed_images.get(shard, (0, None))
            return ShardState(shard, rows, "failed" if count else "done", error=error, failed_images=count)
        name = f"{shard:06d}.json"
        error = _read(store, f"failures/{name}").get("error") if name in failures else None
        lease = _read(store, lease_name(shard)) if name in leased else {}
        if lease.get("holder") is None:
            return ShardState(shard, rows, "failed" if error else "open", error=error)
        machine, process, _ = lease["holder"].rsplit(" ", 2)
        at_work = not is_free(lease) and datetime.fromisoformat(lease["until"]) >= datetime.now(UTC)
        holder = f"{machine}, process {process}"
        return ShardState(shard, rows, "at work" if at_work else "stale", holder, lease.get("since"), lease["until"], error)

    with ThreadPoolExecutor(MAX_PARALLEL_REQUESTS) as readers:
        return list(readers.map(state, range(info["shards"])))


def write_failure(store: RunStore, shard: int, error: str) -> None:
    """Note that a shard failed after all attempts.

    A later commit makes the note void.
    """
    content = {"error": error, "at": datetime.now(UTC).isoformat(timespec="seconds")}
    store.storage.write(f"failures/{shard:06d}.json", to_json(content))


def _failed(records: pa.Table) -> list[tuple[int, tuple[int, str | None]]]:
    """Return shard, number of failed images and last error of a shard's records.

    The list is empty if all are well.
    """
    bad = records.filter(pc.is_in(records["status"], pa.array(FAILED_STATUSES)))
    if not bad.num_rows:
        return []
    return [(bad["shard"][0].as_py(), (pc.count_distinct(bad["row"]).as_py(), bad["error"][-1].as_py()))]


def _read(store: RunStore, name: str) -> dict[str, Any]:
    """Read a small object; nothing if it is gone meanwhile or no JSON."""
    try:
        return dict(store.storage.read_json(name))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}

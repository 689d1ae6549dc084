"""A committed shard that is measured: its maps and records in, its numbers out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from hdm_core import MetricSettings
from pipeline.config.schema import RunConfig
from pipeline.errors import RunError
from pipeline.plan import Shard
from pipeline.runs.images import FACTS
from pipeline.runs.leases import Lease, LeaseLostError
from pipeline.runs.maps import Arrays, decode_shard, shard_object
from pipeline.runs.measured import configured_metrics, explicit, of_commit
from pipeline.runs.parts import MEASURES, encode_records, join_records
from pipeline.runs.records import CURVES, RECORDS, Record, from_parquet
from pipeline.runs.store import MAX_PARALLEL_REQUESTS, RunStore, commit_name
from pipeline.runs.verify import accepted_checksums
from pipeline.storage.objects import to_json


@dataclass(frozen=True)
class StoredShard:
    """A committed shard as it is on storage.

    Attributes:
        commit: the content of its commit.
        tag: of the commit, for a conditional write; None with a single driver.
        maps: method -> the shard's maps, (rows, [ranks,] H, W) float16.
        records: with curves and the numbers of every baseline.
        checksums: row -> sha256 of the image and of its ground truth.
        measured: settings of its numbers; None if it has none, or a measurement is pending, which leaves their settings unknown.
    """

    shard: Shard
    commit: Mapping[str, Any]
    tag: str | None
    maps: Arrays
    records: Sequence[Record]
    checksums: Mapping[int, tuple[str | None, str | None]]
    measured: MetricSettings | None


def read_commit(store: RunStore, shard: int) -> dict[str, Any]:
    """Read a shard's commit.

    Raises:
        RunError: if it is not valid.
    """
    name = commit_name(shard)
    return _parse(store, name, store.storage.read(name))


def measured_with(commit: Mapping[str, Any], configured: MetricSettings | None) -> MetricSettings | None:
    """Return the settings of a shard's numbers; None for none or pending ones.

    Args:
        configured: the metrics of run.json.
    """
    return None if "pending" in commit else of_commit(commit, configured)


def read_shard(store: RunStore, shard: Shard, methods: Sequence[str], conditional: bool) -> StoredShard:
    """Read a committed shard, and compare all that is read with its checksums.

    Args:
        conditional: read the commit's tag as well.

    Raises:
        RunError: if an object is missing or damaged.
    """
    name = commit_name(shard.index)
    data, tag = store.storage.read_tagged(name) if conditional else (store.storage.read(name), None)
    commit = _parse(store, name, data)
    part = f"part-{shard.index:06d}.parquet"
    arrays = {method: store.storage.read(f"maps.zarr/{method}/zarr.json") for method in methods}
    objects = {method: shard_object(method, shard.index, len(json.loads(metadata)["shape"])) for method, metadata in arrays.items()}
    accepted = accepted_checksums(commit)
    folders = [folder for folder in ("records", "curves", "measures", "images") if f"{folder}/{part}" in accepted]
    names = [f"maps.zarr/{path}" for path in objects.values()] + [f"{folder}/{part}" for folder in folders]
    with ThreadPoolExecutor(MAX_PARALLEL_REQUESTS) as readers:
        found = dict(zip(names, readers.map(lambda name: _read(store, name, accepted[name]), names), strict=True))
    rows = range(shard.start, shard.stop)
    tables = {
        folder: from_parquet([table] if (table := found.get(f"{folder}/{part}")) else [], schema)
        for folder, schema in (("records", RECORDS), ("curves", CURVES), ("measures", MEASURES), ("images", FACTS))
    }
    return StoredShard(
        shard,
        commit,
        tag,
        {m: decode_shard(m, data, shard.index, found[f"maps.zarr/{objects[m]}"] or b"", rows) for m, data in arrays.items()},
        join_records(tables["records"], tables["curves"], tables["measures"]),
        {row["row"]: (row["sha256"], row["truth_sha256"]) for row in tables["images"].to_pylist()},
        measured_with(commit, configured_metrics(store.metadata())),
    )


def write_measured(store: RunStore, stored: StoredShard, records: Sequence[Record], config: RunConfig, lease: Lease | None = None) -> bool:
    """Replace a shard's records, curves and measures, and commit them.

    First the commit names the checksums of what is pending, so that a run that is killed in between is neither damaged nor measured: the
    same command writes the same bytes again.

    Args:
        config: of the run, with the metrics that were measured.
        lease: renewed before anything is written and again before the commit, as the fence.

    Returns:
        True, as `RunStore.write_shard` does for a shard that it committed.

    Raises:
        LeaseLostError: if the lease was lost or the commit has changed meanwhile; the numbers are not committed then.
    """
    settings = config.metrics or MetricSettings()
    part, name = f"part-{stored.shard.index:06d}.parquet", commit_name(stored.shard.index)
    parts = encode_records(records, settings)
    objects = {f"{folder}/{part}": data for folder, data in parts.items()}
    digests = {path: hashlib.sha256(data).hexdigest() for path, data in objects.items()}
    stale = [path for path in (f"measures/{part}",) if path not in objects and path in accepted_checksums(stored.commit)]
    if lease is not None:
        lease.renew()
    # What an earlier, interrupted measurement with other settings may have written stays accepted until it is replaced.
    before = stored.commit.get("pending", {})
    pending = {path: [*dict.fromkeys([*before.get(path, []), digest])] for path, digest in {**digests, **dict.fromkeys(stale)}.items()}
    tag = _replace_commit(store, name, to_json({**stored.commit, "pending": pending}), stored.tag)
    with ThreadPoolExecutor(MAX_PARALLEL_REQUESTS) as writers:
        list(writers.map(store.storage.write, objects, objects.values()))
    for path in stale:
        store.storage.remove(path)
    if lease is not None:
        lease.renew()
    kept = {path: digest for path, digest in stored.commit["sha256"].items() if path not in stale}
    measured = explicit(settings).model_dump(mode="json")
    final = {key: value for key, value in stored.commit.items() if key != "pending"} | {"sha256": kept | digests, "measured": measured}
    _replace_commit(store, name, to_json(final), tag)
    return True


def _parse(store: RunStore, name: str, data: bytes) -> dict[str, Any]:
    """Return the content of a commit."""
    try:
        commit: dict[str, Any] = json.loads(data)
        commit["sha256"].items()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RunError(_damaged(store, f"{name} is not a valid commit")) from None
    return commit


def _replace_commit(store: RunStore, name: str, data: bytes, tag: str | None) -> str | None:
    """Replace a commit that still has a tag, and return the new tag."""
    if tag is None:
        store.storage.write(name, data)
        return None
    if store.storage.replace(name, data, tag):
        written, new_tag = store.storage.read_tagged(name)
        if written == data:
            return new_tag
    raise LeaseLostError(f"{store.storage.url(name)} was changed by another worker")


def _read(store: RunStore, name: str, accepted: Sequence[str | None]) -> bytes | None:
    """Read an object whose checksum is accepted; None where it may be missing, and is."""
    try:
        data = store.storage.read(name)
    except FileNotFoundError:
        if None in accepted:
            return None
        raise RunError(_damaged(store, f"{name} is missing")) from None
    if hashlib.sha256(data).hexdigest() not in accepted:
        raise RunError(_damaged(store, f"{name} does not match its checksum"))
    return data


def _damaged(store: RunStore, what: str) -> str:
    return f"{store.url}: {what}; hdm repair explains its shard again"

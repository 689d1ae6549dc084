"""Verification of a run on storage: checksums of its objects against its commits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from pipeline.monitoring.progress import Progress, ProgressCallback, no_progress
from pipeline.runs.store import MAX_PARALLEL_REQUESTS, RunStore, commit_name


@dataclass
class VerifyReport:
    """Outcome of comparing a run's objects with its commits.

    Attributes:
        objects: number of objects read.
        shards: number of committed shards.
        damaged: shard -> one message per damaged object.
    """

    objects: int = 0
    shards: int = 0
    damaged: dict[int, list[str]] = field(default_factory=dict)


def verify(store: RunStore, on_progress: ProgressCallback = no_progress) -> VerifyReport:
    """Read every object of every committed shard and compare it with the commit.

    Args:
        on_progress: called after every shard.
    """
    report, committed = VerifyReport(), sorted(store.done())
    for shard in committed:
        try:
            checksums = accepted_checksums(store.storage.read_json(commit_name(shard)))
        except (ValueError, KeyError):
            report.damaged[shard] = [f"{commit_name(shard)} is not a valid commit"]
            checksums = {}
        with ThreadPoolExecutor(MAX_PARALLEL_REQUESTS) as readers:
            results = list(readers.map(lambda item: _find_damage(store, *item), checksums.items()))
        if damage := [message for message in results if message is not None]:
            report.damaged[shard] = damage
        report.objects += len(checksums)
        report.shards += 1
        on_progress(Progress(report.shards, len(committed), "shards"))
    return report


def revoke_commits(store: RunStore, report: VerifyReport) -> None:
    """Remove the commits of damaged shards, so that the run computes them again."""
    for shard in report.damaged:
        store.storage.remove(commit_name(shard))


def accepted_checksums(commit: Mapping[str, Any]) -> dict[str, list[str | None]]:
    """Return path -> accepted checksums; None stands for a missing object.

    While a measurement is being written, an object may have its old bytes or those that are pending.
    """
    accepted: dict[str, list[str | None]] = {name: [sha256] for name, sha256 in commit["sha256"].items()}
    for name, pending in commit.get("pending", {}).items():
        accepted.setdefault(name, [None]).extend(pending)
    return accepted


def _find_damage(store: RunStore, name: str, accepted: Sequence[str | None]) -> str | None:
    """Return a message if an object is missing or has another checksum, else None."""
    try:
        found: str | None = hashlib.sha256(store.storage.read(name)).hexdigest()
    except FileNotFoundError:
        found = None
    if found in accepted:
        return None
    return f"{name} is missing" if found is None else f"{name} does not match its checksum"

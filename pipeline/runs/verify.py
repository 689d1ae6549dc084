"""Is a run on storage what was committed? Checksums, and what to do with shards that fail."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pipeline.monitoring.progress import Progress, ProgressCallback, no_progress
from pipeline.runs.store import AT_ONCE, RunStore, commit_name


@dataclass
class VerifyReport:
    """What a run's checksums say.

    Attributes:
        objects: that were read.
        shards: that are committed.
        damaged: shard -> what is wrong with which of its objects.
    """

    objects: int = 0
    shards: int = 0
    damaged: dict[int, list[str]] = field(default_factory=dict)


def verify(store: RunStore, on_progress: ProgressCallback = no_progress) -> VerifyReport:
    """Reads every object of every committed shard and compares it with the commit.

    Args:
        on_progress: called after every shard.
    """
    verdict, done = VerifyReport(), sorted(store.done())
    for index in done:
        try:
            sums: dict[str, str] = store.storage.read_json(commit_name(index))["sha256"]
        except (ValueError, KeyError):
            verdict.damaged[index] = [f"{commit_name(index)} is no commit"]
            sums = {}
        with ThreadPoolExecutor(AT_ONCE) as readers:
            wrongs = list(readers.map(lambda item: _wrong(store, *item), sums.items()))
        if found := [wrong for wrong in wrongs if wrong is not None]:
            verdict.damaged[index] = found
        verdict.objects += len(sums)
        verdict.shards += 1
        on_progress(Progress(verdict.shards, len(done), "shards"))
    return verdict


def revoke_commits(store: RunStore, damaged: VerifyReport) -> None:
    """Takes back the commits of damaged shards, so that the run is open again there and will do them anew."""
    for index in damaged.damaged:
        store.storage.remove(commit_name(index))


def _wrong(store: RunStore, name: str, sha256: str) -> str | None:
    try:
        same = hashlib.sha256(store.storage.read(name)).hexdigest() == sha256
    except FileNotFoundError:
        return f"{name} is missing"
    return None if same else f"{name} is not what was written"

"""Queue of a run's open shards, with retries; shared by every executor."""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import RunError, one_line
from pipeline.monitoring import telemetry
from pipeline.plan import Shard

_STORAGE_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class FailedShard:
    """A shard that failed in every attempt, with the last error as one line."""

    shard: Shard
    error: str


class ShardQueue:
    """Shards that wait for a worker, and those that another driver's worker holds.

    Attributes:
        failed: shards that failed `max_attempts` times.

    Args:
        shards: the open shards, in the order in which they are handed out.
        max_attempts: failures after which a shard is not tried again.
        pause: seconds after which a shard with a foreign lease is tried again.
        run_name: label of the metrics.
    """

    def __init__(self, shards: Sequence[Shard], max_attempts: int, pause: float, run_name: str) -> None:
        self.failed: list[FailedShard] = []
        self._waiting = deque(shards)
        self._held: list[tuple[float, Shard]] = []  # (monotonic time of the next attempt, shard)
        self._failures: dict[int, int] = {}
        self._max_attempts = max_attempts
        self._pause = pause
        self._run_name = run_name

    def __len__(self) -> int:
        """Return the number of shards that are waiting or held."""
        return len(self._waiting) + len(self._held)

    @property
    def waiting(self) -> int:
        """Number of shards that can be handed out now."""
        return len(self._waiting)

    def pop(self) -> Shard:
        """Take the next waiting shard.

        Raises:
            IndexError: if none is waiting.
        """
        return self._waiting.popleft()

    def requeue(self, shard: Shard) -> None:
        """Put back a shard whose worker was lost through no fault of the shard."""
        self._waiting.append(shard)

    def requeue_held(self) -> None:
        """Move held shards whose pause is over to the waiting ones."""
        now = time.monotonic()
        self._waiting.extend(shard for due, shard in self._held if due <= now)
        self._held = [(due, shard) for due, shard in self._held if due > now]

    def hold(self, shard: Shard) -> None:
        """Try a shard again after the pause, since another driver's worker has its lease."""
        self._held.append((time.monotonic() + self._pause, shard))

    def done(self) -> None:
        """Count a committed shard."""
        telemetry.count("hdm_shards", run=self._run_name, outcome="done")

    def retry_or_fail(self, shard: Shard, error: str) -> None:
        """Count a failed attempt; requeue the shard unless it was the last one."""
        self._failures[shard.index] = self._failures.get(shard.index, 0) + 1
        if self._failures[shard.index] < self._max_attempts:
            telemetry.count("hdm_shards", run=self._run_name, outcome="failed")
            self._waiting.append(shard)
        else:
            self.fail(shard, error)

    def fail(self, shard: Shard, error: str) -> None:
        """Set a shard aside that no other attempt would finish."""
        telemetry.count("hdm_shards", run=self._run_name, outcome="set_aside")
        self.failed.append(FailedShard(shard, error))


def raise_if_fatal(error: BaseException | None) -> None:
    """Raise for an error of a shard that no other attempt cures.

    Raises:
        RunError: if the storage is full (a disk or a quota), or the error is a RunError, as that of an unreachable storage.
    """
    if isinstance(error, OSError) and error.errno in _STORAGE_FULL:
        raise RunError(f"the storage is full: {one_line(error)}; make room") from None
    if isinstance(error, RunError):
        raise RunError(one_line(error)) from None

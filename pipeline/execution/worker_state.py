"""State of one worker of the pool."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray.actor import ActorHandle

from pipeline.plan import Shard

# Shards of a worker that are not committed, whose results are in its memory: one is committed while the next one is computed.
_MAX_UNCOMMITTED = 2


@dataclass(eq=False)
class WorkerState:
    """State of one worker of the pool.

    Attributes:
        pending: result of `ready` while the worker starts, of its call while it computes a shard; else None.
        shard: the shard that it computes.
        commits: result of the commit -> shard, in the order in which the shards were computed.
        failed_device: its device failed: it commits what it has computed, and is then replaced.
        passes: passes since the worker started.
        last_progress: monotonic time of the last pass, or of the start or end of a shard's computation; infinite once the worker was
            killed as hung.
        passes_request: the unanswered request for `passes`.
    """

    actor: ActorHandle[Any]
    pending: ray.ObjectRef[Any] | None
    shard: Shard | None = None
    commits: dict[ray.ObjectRef[Any], Shard] = field(default_factory=dict)
    failed_device: bool = False
    passes: int = 0
    last_progress: float = 0.0
    passes_request: ray.ObjectRef[Any] | None = None

    @property
    def status(self) -> Literal["starting", "idle", "busy"]:
        """Status of the worker; it is busy until its last shard is committed."""
        if self.shards:
            return "busy"
        return "idle" if self.pending is None else "starting"

    @property
    def is_free(self) -> bool:
        """True if the worker can compute a shard now."""
        return self.pending is None and not self.failed_device and len(self.commits) < _MAX_UNCOMMITTED

    @property
    def shards(self) -> list[Shard]:
        """Shards that are not committed: the one that is computed, then the others."""
        return [*([] if self.shard is None else [self.shard]), *self.commits.values()]

    @property
    def awaited(self) -> list[ray.ObjectRef[Any]]:
        """Results that the worker has to return."""
        return [*([] if self.pending is None else [self.pending]), *self.commits]

    def end(self, result: ray.ObjectRef[Any]) -> None:
        """Forget the shard of a result that was returned."""
        if self.commits.pop(result, None) is None:
            self.pending, self.shard = None, None

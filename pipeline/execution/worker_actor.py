"""Worker in a Ray actor: it commits a shard while it computes the next one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch

from hdm_core.device_errors import is_fatal
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.errors import RunError, device_failure
from pipeline.execution.reports import ShardReport, ShardTiming
from pipeline.execution.worker import ComputedShard, Worker
from pipeline.monitoring.log_buffer import LogBuffer
from pipeline.plan import Shard
from pipeline.runs.leases import Lease, LeaseHolder
from pipeline.runs.reuse import ReusePlan


class WorkerActor(Worker):
    """Worker that also sends its log, and releases its leases on SIGTERM.

    Shards are computed one after another by the thread of `begin`, and committed one after another by a thread of their own, which uses
    neither the network nor the device.
    """

    def __init__(self, config: RunConfig, weights_digest: str, gpus: float = 0.0, measuring: bool = False) -> None:
        self._log_buffer = LogBuffer()
        self._terminating = False
        self._committer = ThreadPoolExecutor(1, "commit")
        self._commits: dict[int, Future[ShardReport]] = {}
        super().__init__(config, weights_digest, gpus=gpus, measuring=measuring)
        signal.signal(signal.SIGTERM, lambda number, frame: self._on_sigterm())

    def passes(self) -> int | None:
        """Return the passes since the start, also during a shard; None after SIGTERM."""
        return None if self._terminating else self._passes

    def begin(
        self, shard: Shard, samples: Sequence[Sample], stale_tag: str | None = None, reuse: ReusePlan | None = None, halved: bool = False
    ) -> ShardReport | None:
        """Explain a shard and start its commit, of which `committed` returns the report.

        A fatal error of the device becomes a report, so that the lines logged meanwhile are not lost with the process. Shards that were
        computed before it are still committed.

        Returns:
            The report of a shard that is not committed here; None if its commit has started.
        """
        began = time.perf_counter()
        try:
            computed = self.compute(shard, samples, stale_tag, reuse, halved)
        except Exception as error:
            if not is_fatal(error):
                raise
            computed = self._report(shard, began, device_failure=device_failure(error))
        if isinstance(computed, ShardReport):
            return self._with_lines(computed)
        self._commits[shard.index] = self._committer.submit(self.commit, computed)
        return None

    def committed(self, shard: int) -> ShardReport:
        """Wait for the commit of a shard, and return its report.

        Raises:
            Exception: the error of the commit.
        """
        return self._with_lines(self._commits.pop(shard).result())

    def time_shards(self, shards: Sequence[Shard], samples: Sequence[Sample]) -> ShardTiming:
        """Explain samples again and again, and time the last shard.

        It is timed from the commit of the shard before it to its own. The shards before load kernels and fold the network.

        Args:
            samples: of each of the shards.

        Raises:
            torch.OutOfMemoryError: if the GPU's memory has no room for one image.
        """
        commits = []
        for shard in shards:
            computed = self.compute(shard, samples)
            if not isinstance(computed, ComputedShard):
                raise RunError(f"shard {shard.index} of the measurement was committed by another process")
            for record in computed.result.records:
                if record.error is not None and "OutOfMemoryError" in record.error:
                    raise torch.OutOfMemoryError(record.error.partition(": ")[2])
            commits.append(self._committer.submit(self._commit_and_time, computed))
        *_, before, end = (commit.result() for commit in commits)
        return ShardTiming(len(samples), end - before, self._log_buffer.drain())

    def _commit_and_time(self, computed: ComputedShard) -> float:
        self.commit(computed)
        return time.perf_counter()

    def _with_lines(self, report: ShardReport) -> ShardReport:
        return replace(report, lines=self._log_buffer.drain())

    def _take(self, lease: Lease, stale_tag: str | None) -> LeaseHolder | None:
        return LeaseHolder("nobody", "") if self._terminating else super()._take(lease, stale_tag)

    def _on_sigterm(self) -> None:
        """Release the leases at once, so that other workers can take the shards.

        The pool learns of it from `passes`. SIGTERM comes from machines that are revoked. Ray's own handler would first
        finish the shard, for which there is no time. What is still computed here is never committed, since the lease is
        gone. The storage may be slow: threads wait for it.
        """
        self._terminating = True
        for lease in tuple(self._leases):
            threading.Thread(target=lease.release, daemon=True).start()

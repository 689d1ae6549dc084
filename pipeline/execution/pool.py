"""Elastic pool of Ray actors: idle workers take shards, lost workers are replaced."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import OutOfMemoryError, RayActorError, RayError

from pipeline.errors import RunError, one_line
from pipeline.execution.lost_memory import MEMORY_TEXT, MemoryKills
from pipeline.execution.queue import FailedShard, ShardQueue, raise_if_fatal
from pipeline.execution.reports import ShardReport
from pipeline.execution.worker_state import WorkerState
from pipeline.monitoring import telemetry
from pipeline.plan import Shard

_log = logging.getLogger(__name__)

# Concurrency groups of an actor: of `passes`, and of waiting for a commit, while it computes a shard.
PROGRESS, COMMITS = "progress", "commits"

_POLL_SECONDS = 0.5  # between two polls of the workers' progress

CreateActor = Callable[[], ActorHandle[Any]]
Submit = Callable[[ActorHandle[Any], Shard], ray.ObjectRef[Any]]  # of a ShardReport, or of None if the commit is awaited separately
AwaitCommit = Callable[[ActorHandle[Any], Shard], ray.ObjectRef[ShardReport]]


@dataclass
class Pool:
    """Runs shards on workers that may come and go.

    Ray neither restarts the actors nor repeats their calls: a call to an actor that cannot be placed again would wait forever.
    A requested worker is one of many things waited for, so a cluster that shrank continues with the workers it has.

    Attributes:
        create_actor: requests a worker from Ray; returns at once.
        submit: gives a worker a shard. Its result is the report, or None once the worker has computed the shard and is committing it.
        workers: number of workers to keep requested while there is work.
        max_attempts: attempts per shard.
        on_done: called with every report; a report with `held` set does not end its shard.
        on_tick: called twice per second with the passes of all workers so far.
        stall_timeout: seconds without a pass after which a worker counts as hung.
        pause: seconds after which a shard that another driver's worker holds is tried again.
        name: name of the run, the label of its metrics.
        await_commit: requests the report of a shard whose `submit` resulted in None. The worker gets its next shard meanwhile.
        halve: lets `submit` give a shard half the batch from now on; False if it has had it before.
    """

    create_actor: CreateActor
    submit: Submit
    workers: int
    max_attempts: int
    on_done: Callable[[ShardReport], None]
    on_tick: Callable[[int], None]
    stall_timeout: float = 21600.0
    pause: float = 15.0
    name: str = ""
    await_commit: AwaitCommit | None = None
    halve: Callable[[Shard], bool] | None = None
    _memory_kills: MemoryKills = field(default_factory=MemoryKills)
    _workers: list[WorkerState] = field(default_factory=list)
    _passes_of_lost: int = 0
    _failed_starts: int = 0

    def run(self, shards: Sequence[Shard]) -> list[FailedShard]:
        """Work until every shard is done or has failed; return the failed ones.

        Raises:
            RunError: if workers fail to start `max_attempts` times and none is at work, or the storage is full or stays unreachable.
        """
        queue = ShardQueue(shards, self.max_attempts, self.pause, self.name)
        polled = float("-inf")
        try:
            while queue or self._count("busy"):
                queue.requeue_held()
                self._assign_and_scale(queue)
                pending = {ref: worker for worker in self._workers for ref in worker.awaited}
                if not pending:  # all shards that are left are held by other drivers
                    time.sleep(_POLL_SECONDS)
                ready, _ = ray.wait(list(pending), num_returns=1, timeout=_POLL_SECONDS) if pending else ([], [])
                for ref in ready:
                    worker = pending[ref]
                    if worker.status == "starting":
                        self._on_started(worker, ref)
                    else:
                        self._on_finished(worker, ref, queue)
                if time.monotonic() - polled >= _POLL_SECONDS:  # not after every shard: each poll sends a request to every worker
                    polled = time.monotonic()
                    self._poll(queue)
            self._poll(queue)
        finally:
            for worker in self._workers:
                ray.kill(worker.actor)
            self._workers.clear()
        return queue.failed

    def _count(self, status: str) -> int:
        return sum(worker.status == status for worker in self._workers)

    def _assign_and_scale(self, queue: ShardQueue) -> None:
        for worker in sorted(self._workers, key=lambda worker: len(worker.commits)):
            if not queue.waiting:
                break
            if worker.is_free:
                shard = queue.pop()
                worker.shard, worker.last_progress = shard, time.monotonic()
                worker.pending = self.submit(worker.actor, shard)
        needed = min(self.workers, queue.waiting + self._count("busy"))
        for _ in range(needed - len(self._workers)):
            actor = self.create_actor()
            self._workers.append(WorkerState(actor, actor.ready.remote()))

    def _on_started(self, worker: WorkerState, result: ray.ObjectRef[Any]) -> None:
        try:
            ray.get(result)
        except RayError as error:
            self._workers.remove(worker)
            self._failed_starts += 1
            _log.warning("a worker did not start: %s", describe(error))
            if self._failed_starts >= self.max_attempts and not self._count("busy") and not self._count("idle"):
                raise RunError(f"no worker could start, tried {self._failed_starts} times: {describe(error)}") from None
        else:
            self._failed_starts = 0
            worker.pending = None

    def _on_finished(self, worker: WorkerState, result: ray.ObjectRef[Any], queue: ShardQueue) -> None:
        shard = worker.commits.get(result, worker.shard)
        assert shard is not None  # noqa: S101 - for the type checker: a busy worker returns results of its shards
        try:
            report: ShardReport | None = ray.get(result)
        except (RayActorError, OutOfMemoryError) as error:  # the worker is gone, with its process or its node
            self._on_lost(worker, error, queue)
            return
        except RayError as error:  # the worker is well, the shard is not
            worker.end(result)
            raise_if_fatal(getattr(error, "cause", None))
            _log.warning("shard %d: %s", shard.index, describe(error))
            queue.retry_or_fail(shard, describe(error))
        else:
            worker.end(result)
            if report is None:
                assert self.await_commit is not None  # noqa: S101 - for the type checker: a worker without it returns reports
                worker.commits[self.await_commit(worker.actor, shard)] = shard
                worker.last_progress = time.monotonic()
            else:
                self._on_report(worker, shard, report, queue)
        if worker.failed_device and not worker.shards:
            self._remove(worker)

    def _on_report(self, worker: WorkerState, shard: Shard, report: ShardReport, queue: ShardQueue) -> None:
        worker.passes = max(worker.passes, report.passes)  # includes the passes since the last poll
        for level, line in report.lines:
            _log.log(level, "shard %d: %s", shard.index, line)
        if report.device_failure is not None:
            _log.warning("shard %d: %s; its worker is replaced", shard.index, report.device_failure)
            telemetry.count("hdm_workers_lost", run=self.name)
            worker.failed_device = True
            queue.retry_or_fail(shard, report.device_failure)
            return
        if report.held is not None:
            queue.hold(shard)
        else:
            queue.done()
        self.on_done(report)

    def _on_lost(self, worker: WorkerState, error: RayActorError | OutOfMemoryError, queue: ShardQueue) -> None:
        """Queue the shards of a lost worker again.

        One of them may be to blame: the shard that was computed, or else the one that was committed.
        """
        telemetry.count("hdm_workers_lost", run=self.name)
        for_memory = self._memory_kills.killed(error) and self.halve is not None
        for number, shard in enumerate(worker.shards):
            if number == 0 and for_memory:
                self._retry_smaller(shard, queue)
                continue
            _log.warning("shard %d: its worker was lost", shard.index)
            if number == 0 and not getattr(error, "preempted", False):  # not if its node was preempted
                queue.retry_or_fail(shard, describe(error))
            else:
                queue.requeue(shard)
        self._remove(worker)  # it may only be unreachable: it must not come back and hold its resources

    def _retry_smaller(self, shard: Shard, queue: ShardQueue) -> None:
        """Queue a shard again whose worker was killed for memory, once."""
        if self.halve is not None and self.halve(shard):
            _log.warning(
                "shard %d: its worker was killed, the machine's memory is full; it is tried once more with half the batch", shard.index
            )
            queue.requeue(shard)
        else:
            queue.fail(shard, MEMORY_TEXT)

    def _poll(self, queue: ShardQueue) -> None:
        self._collect_progress(queue)
        self._kill_stalled()
        self._publish_metrics(queue)

    def _collect_progress(self, queue: ShardQueue) -> None:
        """Request the passes of started workers, and take the answers that have arrived."""
        for worker in self._workers:
            if worker.status != "starting" and worker.passes_request is None:
                worker.passes_request = worker.actor.passes.options(concurrency_group=PROGRESS).remote()
        requests = {worker.passes_request: worker for worker in self._workers if worker.passes_request is not None}
        answered, _ = ray.wait(list(requests), num_returns=len(requests), timeout=0) if requests else ([], [])
        for ref in answered:
            worker = requests[ref]
            worker.passes_request = None
            try:
                passes: int | None = ray.get(ref)
            except RayError:
                continue  # the worker is lost; the result of its shard reports it
            if passes is None:
                self._release(worker, queue)
            elif passes > worker.passes:
                worker.passes, worker.last_progress = passes, time.monotonic()
        self.on_tick(self._passes_of_lost + sum(worker.passes for worker in self._workers))

    def _publish_metrics(self, queue: ShardQueue) -> None:
        telemetry.set_gauge("hdm_shards_left", len(queue) + sum(len(worker.shards) for worker in self._workers), run=self.name)
        for label, status in (("at_work", "busy"), ("idle", "idle"), ("starting", "starting")):
            telemetry.set_gauge("hdm_workers", self._count(status), run=self.name, state=label)

    def _release(self, worker: WorkerState, queue: ShardQueue) -> None:
        """Remove a worker whose machine is being revoked; its shards have not failed."""
        for shard in worker.shards:
            _log.warning("shard %d: its worker received SIGTERM", shard.index)
            queue.requeue(shard)
        self._remove(worker)

    def _remove(self, worker: WorkerState) -> None:
        self._passes_of_lost += worker.passes
        self._workers.remove(worker)
        ray.kill(worker.actor)

    def _kill_stalled(self) -> None:
        for worker in self._workers:
            if worker.shards and time.monotonic() - worker.last_progress > self.stall_timeout:
                shard = worker.shards[0]
                _log.warning("shard %d: its worker has done no pass for %g seconds and is replaced", shard.index, self.stall_timeout)
                worker.last_progress = float("inf")  # killed once; the result of its shard reports when it is gone
                ray.kill(worker.actor)


def describe(error: BaseException) -> str:
    """Return a worker's exception as one line, without Ray's remote traceback."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return f"{type(cause).__name__}: {one_line(cause)}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(Exception(lines[-1] if lines else type(error).__name__))

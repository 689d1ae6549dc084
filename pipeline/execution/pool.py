"""An elastic pull pool of Ray actors: an idle worker takes the next shard, a lost one is replaced and its shard requeued."""

from __future__ import annotations

import errno
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError

from pipeline.errors import RunError, one_line
from pipeline.execution.worker import FailedShard, ShardReport
from pipeline.monitoring import telemetry
from pipeline.plan import Shard

_log = logging.getLogger(__name__)

# The workers' concurrency group that answers while a shard is in work.
PROGRESS = "progress"

_FULL = {errno.ENOSPC, errno.EDQUOT}

_TICK = 0.5  # seconds between two looks at the workers' progress

CreateActor = Callable[[], ActorHandle[Any]]
Submit = Callable[[ActorHandle[Any], Shard], ray.ObjectRef[ShardReport]]


@dataclass
class Pool:
    """Runs shards on workers that may come and go.

    Ray neither restarts the actors nor repeats their calls: calls to an actor that cannot be placed again would wait for
    ever. A worker that is asked for is one of many things waited for, so a cluster that shrank goes on with what it has.

    Attributes:
        spawn: asks Ray for a worker; returns at once.
        submit: gives a worker a shard.
        workers: how many to keep asked for while there is work.
        attempts: how often a shard is tried.
        on_done: called with every report; one that says that the shard is held is no end of it.
        on_tick: called twice a second with the passes that all workers have done so far.
        stall: seconds without a pass after which a worker is taken for hung.
        pause: seconds after which a shard that another driver's worker holds is asked for again.
        name: of the run, for its metrics.
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
    _queue: deque[Shard] = field(default_factory=deque)
    _held: list[tuple[float, Shard]] = field(default_factory=list)
    _moved: dict[ActorHandle[Any], float] = field(default_factory=dict)
    _starting: dict[ray.ObjectRef[Any], ActorHandle[Any]] = field(default_factory=dict)
    _busy: dict[ray.ObjectRef[Any], tuple[ActorHandle[Any], Shard]] = field(default_factory=dict)
    _idle: list[ActorHandle[Any]] = field(default_factory=list)
    _asked: dict[ray.ObjectRef[Any], ActorHandle[Any]] = field(default_factory=dict)
    _passes: dict[ActorHandle[Any], int] = field(default_factory=dict)
    _failures: dict[int, int] = field(default_factory=dict)
    _failed_starts: int = 0
    _set_aside: list[FailedShard] = field(default_factory=list)

    def run(self, shards: Sequence[Shard]) -> list[FailedShard]:
        """Works until every shard is done or set aside; returns the latter.

        Raises:
            RunError: if workers fail to start `attempts` times and none is at work, or the storage is full or does not come back.
        """
        self._queue.extend(shards)
        looked = float("-inf")
        try:
            while self._queue or self._busy or self._held:
                self._recall()
                self._staff()
                pending = [*self._starting, *self._busy]
                if not pending:  # all that is left is in others' hands
                    time.sleep(_TICK)
                ready, _ = ray.wait(pending, num_returns=1, timeout=_TICK) if pending else ([], [])
                for ref in ready:
                    if ref in self._starting:
                        self._started(ref)
                    else:
                        self._finished(ref)
                if time.monotonic() - looked >= _TICK:  # not after every shard: each look asks every worker
                    looked = time.monotonic()
                    self._look()
            self._look()
        finally:
            for actor in [*self._starting.values(), *self._idle, *(actor for actor, _ in self._busy.values())]:
                ray.kill(actor)
        return self._set_aside

    def _recall(self) -> None:
        now = time.monotonic()
        self._queue.extend(shard for due, shard in self._held if due <= now)
        self._held = [(due, shard) for due, shard in self._held if due > now]

    def _staff(self) -> None:
        while self._idle and self._queue:
            actor, shard = self._idle.pop(), self._queue.popleft()
            self._busy[self.submit(actor, shard)] = actor, shard
            self._moved[actor] = time.monotonic()
        wanted = min(self.workers, len(self._queue) + len(self._busy))
        for _ in range(wanted - len(self._starting) - len(self._busy) - len(self._idle)):
            actor = self.create_actor()
            self._starting[actor.ready.remote()] = actor

    def _started(self, ref: ray.ObjectRef[Any]) -> None:
        actor = self._starting.pop(ref)
        try:
            ray.get(ref)
        except RayError as error:
            self._failed_starts += 1
            _log.warning("a worker did not start: %s", _cause(error))
            if self._failed_starts >= self.max_attempts and not self._busy and not self._idle:
                raise RunError(f"no worker could start, tried {self._failed_starts} times: {_cause(error)}") from None
        else:
            self._failed_starts = 0
            self._idle.append(actor)

    def _finished(self, ref: ray.ObjectRef[Any]) -> None:
        actor, shard = self._busy.pop(ref)
        try:
            report = ray.get(ref)
        except RayActorError as error:  # the worker is gone, with its process or its node
            _log.warning("shard %d: its worker was lost", shard.index)
            telemetry.count("hdm_workers_lost", run=self.name)
            ray.kill(actor)  # it may only be out of reach: it must not come back and hold its resources
            if error.preempted:  # its node was taken away, for which the shard cannot be blamed
                self._queue.append(shard)
            else:
                self._again(shard, error)
        except RayError as error:  # the worker is well, the shard is not
            if isinstance(cause := getattr(error, "cause", None), OSError) and cause.errno in _FULL:
                raise RunError(f"the storage is full: {one_line(cause)}; make room") from None
            if isinstance(cause, RunError):
                raise RunError(one_line(cause)) from None
            _log.warning("shard %d: %s", shard.index, _cause(error))
            self._idle.append(actor)
            self._again(shard, error)
        else:
            self._idle.append(actor)
            self._passes[actor] = max(self._passes.get(actor, 0), report.passes)  # those since it was last asked
            for level, line in report.lines:
                _log.log(level, "shard %d: %s", shard.index, line)
            if report.held is not None:
                self._held.append((time.monotonic() + self.pause, shard))
            else:
                telemetry.count("hdm_shards", run=self.name, outcome="done")
            self.on_done(report)

    def _again(self, shard: Shard, error: RayError) -> None:
        self._failures[shard.index] = self._failures.get(shard.index, 0) + 1
        if self._failures[shard.index] < self.max_attempts:
            telemetry.count("hdm_shards", run=self.name, outcome="failed")
            self._queue.append(shard)
        else:
            telemetry.count("hdm_shards", run=self.name, outcome="set_aside")
            self._set_aside.append(FailedShard(shard, _cause(error)))

    def _look(self) -> None:
        self._listen()
        self._give_up_the_hung()
        self._tell()

    def _listen(self) -> None:
        """Asks busy workers for their passes, and takes the answers that have come in."""
        asked = set(self._asked.values())
        for actor in [*self._idle, *(actor for actor, _ in self._busy.values())]:
            if actor not in asked:
                self._asked[actor.passes.options(concurrency_group=PROGRESS).remote()] = actor
        answered, _ = ray.wait(list(self._asked), num_returns=len(self._asked), timeout=0) if self._asked else ([], [])
        for ref in answered:
            actor = self._asked.pop(ref)
            try:
                passes = ray.get(ref)
            except RayError:
                continue  # lost; its shard's own reference tells
            if passes is None:
                self._let_go(actor)
            elif passes > self._passes.get(actor, -1):
                self._passes[actor], self._moved[actor] = passes, time.monotonic()
        self.on_tick(sum(self._passes.values()))

    def _tell(self) -> None:
        telemetry.show("hdm_shards_left", len(self._queue) + len(self._busy) + len(self._held), run=self.name)
        for state, workers in (("at_work", self._busy), ("idle", self._idle), ("starting", self._starting)):
            telemetry.show("hdm_workers", len(workers), run=self.name, state=state)

    def _let_go(self, actor: ActorHandle[Any]) -> None:
        """Takes a worker's shard back that was asked to go with its machine; the shard has not failed."""
        self._idle = [other for other in self._idle if other != actor]
        for ref, (_, shard) in [item for item in self._busy.items() if item[1][0] == actor]:
            _log.warning("shard %d: its worker was asked to go", shard.index)
            del self._busy[ref]
            self._queue.append(shard)
        ray.kill(actor)

    def _give_up_the_hung(self) -> None:
        for actor, shard in self._busy.values():
            if time.monotonic() - self._moved[actor] > self.stall_timeout:
                _log.warning("shard %d: its worker has done no pass for %g seconds and is replaced", shard.index, self.stall_timeout)
                self._moved[actor] = float("inf")  # killed once; its reference tells when it is gone
                ray.kill(actor)


def _cause(error: BaseException) -> str:
    """What happened in the worker, as one line without Ray's remote traceback."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        return f"{type(cause).__name__}: {one_line(cause)}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(Exception(lines[-1] if lines else type(error).__name__))

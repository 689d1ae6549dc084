"""Workers that were killed for memory: half the batch, once. Ray is not started; its errors are real."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError

from pipeline.execution.lost_memory import MemoryKills
from pipeline.execution.pool import Pool
from pipeline.execution.queue import ShardQueue
from pipeline.execution.worker_state import WorkerState
from pipeline.plan import Shard

KILLED = OutOfMemoryError("Task was killed due to the node running low on memory.")


def test_a_shard_whose_worker_was_killed_for_memory_is_tried_once_more_with_half_the_batch(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kills: list[Any] = []
    monkeypatch.setattr(ray, "kill", kills.append)
    halved: list[int] = []

    def halve(shard: Shard) -> bool:
        halved.append(shard.index)
        return halved.count(shard.index) == 1

    def unused(*arguments: Any) -> Any:
        raise AssertionError

    pool = Pool(unused, unused, 1, 3, unused, unused, halve=halve)
    queue = ShardQueue([], 3, 1.0, "run")
    computed, committed = Shard(1, 10, 20), Shard(0, 0, 10)

    def lose(error: Any) -> None:
        worker: Any = WorkerState("actor", None, computed, {"commit": committed})  # type: ignore[arg-type, dict-item]
        pool._workers.append(worker)
        pool._on_lost(worker, error, queue)

    with caplog.at_level(logging.WARNING):
        lose(KILLED)
    assert "shard 1: its worker was killed, the machine's memory is full; it is tried once more with half the batch" in caplog.messages
    assert "shard 0: its worker was lost" in caplog.messages
    assert (queue.waiting, queue.failed, kills) == (2, [], ["actor"])
    lose(KILLED)
    assert queue.waiting == 3, "the other shard alone"
    (failed,) = queue.failed
    assert failed.shard == computed
    assert failed.error.startswith(
        "its worker was killed twice because the machine's memory was full, with half the batch as well; start fewer"
    )
    lose(ActorDiedError())
    assert halved == [1, 1], "a worker that was lost otherwise"


def test_a_kill_by_the_kernel_is_known_by_its_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([7, 7, 8, 8])
    monkeypatch.setattr("pipeline.execution.lost_memory._kernel_kills", lambda: next(counts))
    kills = MemoryKills()
    assert [kills.killed(ActorDiedError()) for _ in range(3)] == [False, True, False]

"""The pool on a real Ray: what becomes of shards when workers fail, die, hang in the queue or lose their node."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.actor import ActorHandle
from ray.cluster_utils import Cluster

from pipeline.errors import RunError
from pipeline.execution.pool import PROGRESS, Pool
from pipeline.execution.queue import FailedShard
from pipeline.execution.reports import ShardReport
from pipeline.plan import Shard
from pipeline.runs.leases import LeaseHolder

pytestmark = pytest.mark.server

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's processes cannot import a test module


class Clerk:
    """A worker whose work is to write down that it worked; it fails as a table of (shard, nth try) says."""

    def __init__(self, ledger: Path, faults: dict[tuple[int, int], str], seconds: float) -> None:
        self.ledger, self.faults, self.seconds = ledger, faults, seconds

    def ready(self) -> str:
        if "start" in self.faults.values():
            raise OSError("no model here")
        return "cpu"

    def passes(self) -> int:
        return 1

    def run(self, shard: Shard) -> ShardReport:
        """Counts tries in files, since a process that dies remembers nothing."""
        tries = len(list(self.ledger.glob(f"{shard.index}-*"))) + 1
        (self.ledger / f"{shard.index}-{tries}-{os.getpid()}").touch()
        time.sleep(self.seconds)
        match self.faults.get((shard.index, tries)):
            case "die":
                os.kill(os.getpid(), signal.SIGKILL)
            case "raise":
                raise OSError("the disk is broken")
            case "full":
                raise OSError(errno.ENOSPC, "No space left on device")
            case "device":
                return ShardReport(shard.index, len(shard), 0.0, "cuda", passes=3, device_failure="the device failed (Xid 79)")
            case "hang":
                time.sleep(600)
            case "meet":
                while len(list(self.ledger.iterdir())) < 4:
                    time.sleep(0.05)
            case "tell":
                return ShardReport(shard.index, len(shard), 0.0, "cpu", passes=70, lines=((logging.WARNING, "the storage was away"),))
            case "held":
                return ShardReport(shard.index, len(shard), 0.0, "cpu", LeaseHolder("somebody", "1"))
        return ShardReport(shard.index, len(shard), 0.0, "cpu")


def pool_of(
    ledger: Path,
    workers: int = 2,
    faults: dict[tuple[int, int], str] | None = None,
    seconds: float = 0.0,
    **resources: float,
) -> tuple[Pool, list[ShardReport]]:
    done: list[ShardReport] = []
    actor = ray.remote(concurrency_groups={PROGRESS: 1})(Clerk)
    options = {"num_cpus": 0, "max_restarts": 0, "max_task_retries": 0} | resources

    def spawn() -> ActorHandle[Clerk]:
        return actor.options(**options).remote(ledger, faults or {}, seconds)

    pool = Pool(spawn, lambda worker, shard: worker.run.remote(shard), workers, 3, done.append, lambda passes: None)
    return pool, done


def shards(count: int) -> list[Shard]:
    return [Shard(index, 10 * index, 10 * index + 10) for index in range(count)]


@pytest.fixture(scope="class")
def one_gpu() -> Iterator[None]:
    """Ray with one GPU that exists only in its books: what is tested is scheduling, not CUDA."""
    ray.init(address="local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("one_gpu")
class TestOnOneNode:
    def test_every_shard_is_done_once(self, tmp_path: Path) -> None:
        pool, done = pool_of(tmp_path)
        assert pool.run(shards(7)) == []
        assert sorted(report.shard for report in done) == list(range(7))
        assert len(list(tmp_path.iterdir())) == 7

    def test_a_killed_worker_is_replaced_and_its_shard_done_again(self, tmp_path: Path) -> None:
        pool, done = pool_of(tmp_path, faults={(1, 1): "die", (4, 1): "die"})
        assert pool.run(shards(6)) == []
        assert sorted(report.shard for report in done) == list(range(6))
        assert len(list(tmp_path.glob("1-*"))) == 2
        assert len(list(tmp_path.glob("4-*"))) == 2
        assert len(list(tmp_path.iterdir())) == 8

    def test_what_a_worker_logs_and_its_last_passes_reach_the_driver(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        pool, _ = pool_of(tmp_path, workers=1, faults={(0, 1): "tell"})
        ticks: list[int] = []
        pool.on_tick = ticks.append
        with caplog.at_level(logging.INFO):
            pool.run(shards(1))
        assert ("pipeline.execution.pool", logging.WARNING, "shard 0: the storage was away") in caplog.record_tuples
        assert ticks[-1] == 70  # more than the last answer said, which a shard that ends between two questions would lose

    def test_a_worker_that_raises_goes_on_with_other_shards(self, tmp_path: Path) -> None:
        pool, done = pool_of(tmp_path, workers=1, faults={(0, 1): "raise"})
        assert pool.run(shards(3)) == []
        assert sorted(report.shard for report in done) == [0, 1, 2]
        assert len({path.name.split("-")[2] for path in tmp_path.iterdir()}) == 1, "the worker was well and must be kept"

    @pytest.mark.parametrize("fault", ["die", "raise", "device"])
    def test_a_shard_that_fails_every_time_is_set_aside(self, tmp_path: Path, fault: str) -> None:
        pool, done = pool_of(tmp_path, faults={(1, tries): fault for tries in range(1, 9)})
        (item,) = pool.run(shards(4))
        assert isinstance(item, FailedShard)
        assert item.shard.index == 1
        assert "\n" not in item.error
        if fault == "raise":
            assert item.error == "OSError: the disk is broken"
        assert sorted(report.shard for report in done) == [0, 2, 3]
        assert len(list(tmp_path.glob("1-*"))) == 3

    def test_a_worker_whose_device_failed_is_replaced_and_its_shard_done_by_another(self, tmp_path: Path) -> None:
        pool, done = pool_of(tmp_path, workers=1, faults={(1, 1): "device"})
        ticks: list[int] = []
        pool.on_tick = ticks.append
        assert pool.run(shards(4)) == []
        assert sorted(report.shard for report in done) == [0, 1, 2, 3]
        first, second = (path.name.split("-")[2] for path in sorted(tmp_path.glob("1-*")))
        assert first != second, "it must not take another shard"
        assert {path.name.split("-")[2] for path in tmp_path.iterdir()} == {first, second}
        assert ticks[-1] >= 3, "passes of the lost worker count"

    def test_a_device_that_fails_in_every_shard_of_one_worker_sets_none_aside(self, tmp_path: Path) -> None:
        """Every shard fails once, each with the worker that takes it first."""
        pool, done = pool_of(tmp_path, faults={(shard, 1): "device" for shard in range(4)})
        assert pool.run(shards(4)) == []
        assert sorted(report.shard for report in done) == [0, 1, 2, 3]

    def test_storage_that_is_full_ends_the_run_and_blames_no_shard(self, tmp_path: Path) -> None:
        pool, _ = pool_of(tmp_path, faults={(2, 1): "full"})
        with pytest.raises(RunError, match=r"the storage is full: .*No space left on device; make room"):
            pool.run(shards(4))

    def test_a_worker_that_hangs_is_replaced(self, tmp_path: Path) -> None:
        pool, done = pool_of(tmp_path, faults={(1, 1): "hang"})
        pool.stall_timeout = 3.0
        assert pool.run(shards(4)) == []
        assert sorted(report.shard for report in done) == [0, 1, 2, 3]

    def test_a_shard_in_others_hands_is_asked_for_until_it_is_done(self, tmp_path: Path) -> None:
        pool, done = pool_of(tmp_path, faults={(1, 1): "held", (1, 2): "held"})
        pool.pause = 0.5
        assert pool.run(shards(3)) == []
        assert [report.shard for report in done if report.held is None].count(1) == 1
        assert len([report for report in done if report.held is not None]) == 2

    def test_workers_that_cannot_start_end_the_run_with_their_reason(self, tmp_path: Path) -> None:
        pool, done = pool_of(tmp_path, faults={(0, 0): "start"})
        with pytest.raises(RunError, match="no model here"):
            pool.run(shards(2))
        assert done == []

    def test_four_workers_with_a_quarter_of_a_gpu_run_at_once_and_a_fifth_waits(self, tmp_path: Path) -> None:
        pool, done = pool_of(tmp_path, workers=5, faults={(shard, 1): "meet" for shard in range(5)}, num_gpus=0.25)
        assert pool.run(shards(5)) == []
        pids = [path.name.split("-")[2] for path in tmp_path.iterdir()]
        assert len(done) == 5
        assert len(set(pids)) == 4, "each shard waits for four at once, and the fifth for one of their workers"


def test_a_node_that_is_killed_costs_only_time(tmp_path: Path) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
        ray.init(address=cluster.address, log_to_driver=False)
        pool, done = pool_of(tmp_path, workers=4, seconds=0.5, num_cpus=1)
        killed: list[float] = []

        def kill_one(passes: int) -> None:
            if not killed and len(done) >= 4:
                killed.append(time.monotonic())
                cluster.remove_node(nodes[1], allow_graceful=False)

        pool.on_tick = kill_one
        assert pool.run(shards(16)) == []
        assert killed, "the node must go while there is work"
        assert sorted(report.shard for report in done) == list(range(16))
    finally:
        ray.shutdown()
        cluster.shutdown()

"""Commits that overlap with the computation of the next shard: order, memory, leases, errors and bytes."""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray
import torch
import yaml
from ray.actor import ActorHandle

from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.errors import RunError
from pipeline.execution import worker as workers
from pipeline.execution import worker_actor as actors
from pipeline.execution.driver import RunSummary, explain_run, plan_run
from pipeline.execution.pool import COMMITS, PROGRESS, Pool
from pipeline.execution.queue import FailedShard
from pipeline.execution.reports import ShardReport
from pipeline.execution.worker_actor import WorkerActor
from pipeline.plan import Plan, Shard
from pipeline.runs import RunStore
from pipeline.runs.leases import is_free
from tests.support.failing_device import ILLEGAL_ACCESS
from tests.support.fault_runs import contents, driver, until
from tests.support.plans import mapping, save_picture
from tests.support.small_run import hdm
from tests.support.traced_store import await_file

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # Ray's processes cannot import a test module

SHARDS = 4
SECONDS = 60.0


def config(folder: Path, name: str, executor: str = "ray", compute: dict[str, Any] | None = None, **arguments: Any) -> RunConfig:
    """Return a run over eight photographs in four shards, whose workers leave a trace of their shards."""
    return load_config(keys(folder, name, executor, compute, **arguments))


def keys(folder: Path, name: str, executor: str, compute: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    for number in range(2 * SHARDS):
        if not (path := folder / "images" / f"{number}.png").exists():
            save_picture(path, seed=number)
    (folder / name).mkdir(exist_ok=True)
    return mapping(
        name=name,
        dataset={"kind": "folder", "root": str(folder / "images")},
        classifier={
            "source": "import",
            "factory": "tests.support.traced_store:network",
            "arguments": {"folder": str(folder / name), **arguments},
            "resize": 32,
            "crop": 32,
        },
        methods=["grad_cam", "gradient"],
        compute={"executor": executor, "workers": 1, "shard_size": 2, "batch_size": 2, **(compute or {})},
        output=str(folder / "runs"),
    )


def run(config: RunConfig) -> tuple[RunSummary, RunStore]:
    plan, store = plan_run(config)
    return explain_run(plan, store), store


def same_bytes(store: RunStore, folder: Path) -> bool:
    """Compare with a run in one process, whose shards are computed and committed one after another."""
    return contents(store) == contents(run(config(folder, "sequential", "local"))[1])


# One worker, in this process


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return plan_run(config(tmp_path, "unit"))[0]


@pytest.fixture
def actor(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkerActor]:
    monkeypatch.setattr(actors.signal, "signal", lambda *_: None)
    packages = [logging.getLogger(name) for name in ("pipeline", "hdm_core")]
    before = [(logger.level, list(logger.handlers)) for logger in packages]
    yield WorkerActor(plan.config, plan.weights_digest)
    for logger, (level, handlers) in zip(packages, before, strict=True):
        logger.setLevel(level)
        logger.handlers[:] = handlers


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Hold back every commit until the event is set."""
    event = threading.Event()
    write = RunStore.write_shard

    def write_shard(store: RunStore, *arguments: Any) -> bool:
        assert event.wait(SECONDS)
        return write(store, *arguments)

    monkeypatch.setattr(RunStore, "write_shard", write_shard)
    return event


def samples_of(plan: Plan, index: int) -> tuple[Shard, Any]:
    shard = plan.shards[index]
    return shard, plan.samples[shard.start : shard.stop]


def leases(store: RunStore) -> dict[int, bool]:
    """Return shard -> whether its lease is free."""
    return {int(name[:6]): is_free(store.storage.read_json(f"leases/{name}")) for name in store.storage.names("leases")}


def test_a_shard_is_computed_while_the_one_before_is_committed(actor: WorkerActor, plan: Plan, released: threading.Event) -> None:
    store = RunStore.from_config(plan.config)
    assert actor.begin(*samples_of(plan, 0)) is None
    assert actor.begin(*samples_of(plan, 1)) is None
    assert store.done() == set()
    assert leases(store) == {0: False, 1: False}, "both are renewed until their commit"
    released.set()
    reports = [actor.committed(0), actor.committed(1)]
    assert [(report.shard, report.held, report.device_failure) for report in reports] == [(0, None, None), (1, None, None)]
    assert store.done() == {0, 1}
    assert leases(store) == {0: True, 1: True}
    assert actor._leases == set()


def test_seconds_of_overlapping_shards_are_counted_once(actor: WorkerActor, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    ends = iter([25.0, 40.0])
    monkeypatch.setattr(workers, "time", SimpleNamespace(perf_counter=lambda: next(ends)))
    reports = [actor._report(shard, began) for shard, began in zip(plan.shards, (10.0, 20.0), strict=False)]
    assert [report.seconds for report in reports] == [15.0, 15.0], "30 seconds in all, from 10 to 40"


def test_sigterm_releases_all_leases_and_nothing_is_committed(actor: WorkerActor, plan: Plan, released: threading.Event) -> None:
    store = RunStore.from_config(plan.config)
    for index in range(2):
        assert actor.begin(*samples_of(plan, index)) is None
    actor._on_sigterm()
    until(lambda: leases(store) == {0: True, 1: True}, SECONDS)
    assert actor.passes() is None
    released.set()
    assert [actor.committed(index).held is not None for index in range(2)] == [True, True]
    assert store.done() == set()


def test_an_error_of_a_commit_is_that_shards_error(actor: WorkerActor, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    store, write = RunStore.from_config(plan.config), RunStore.write_shard

    def write_shard(store: RunStore, shard: Shard, *arguments: Any) -> bool:
        if shard.index == 0:
            raise OSError(errno.EIO, "broken disk")
        return write(store, shard, *arguments)

    monkeypatch.setattr(RunStore, "write_shard", write_shard)
    for index in range(2):
        assert actor.begin(*samples_of(plan, index)) is None
    with pytest.raises(OSError, match="broken disk"):
        actor.committed(0)
    assert actor.committed(1).held is None
    assert store.done() == {1}
    assert leases(store) == {0: True, 1: True}


def test_a_shard_that_was_computed_before_the_device_failed_is_committed(
    actor: WorkerActor, plan: Plan, released: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.AcceleratorError(ILLEGAL_ACCESS)

    assert actor.begin(*samples_of(plan, 0)) is None
    monkeypatch.setattr(workers, "explain_shard", fail)
    report = actor.begin(*samples_of(plan, 1))
    assert report is not None
    assert report.device_failure is not None
    released.set()
    assert actor.committed(0).device_failure is None
    assert RunStore.from_config(plan.config).done() == {0}


# The pool on a real Ray


class Committer:
    """Worker whose shards are files: began-3, computed-3, writing-3, committed-3; a commit waits for the file go-3, if it is held."""

    def __init__(self, folder: Path, held: set[int], faults: dict[tuple[int, str], str]) -> None:
        self.folder, self.held, self.faults = folder, held, faults

    def ready(self) -> str:
        return "cpu"

    def passes(self) -> int:
        return 1

    def _event(self, name: str, shard: int) -> None:
        (self.folder / f"{name}-{shard}").touch()
        fault = self.faults.get((shard, name))
        first = not (self.folder / f"{name}-{shard}-fault").exists()
        if fault is not None and first:
            (self.folder / f"{name}-{shard}-fault").touch()
        if fault == "die" and first:
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "raise" and first:
            raise OSError("the disk is broken")
        if fault == "full":
            raise OSError(errno.ENOSPC, "No space left on device")

    def begin(self, shard: Shard) -> ShardReport | None:
        self._event("began", shard.index)
        if self.faults.get((shard.index, "device")) is not None and not (self.folder / "failed").exists():
            (self.folder / "failed").touch()
            return ShardReport(shard.index, len(shard), 0.0, "cuda", device_failure="the device failed (Xid 79)")
        self._event("computed", shard.index)
        return None

    def committed(self, shard: int) -> ShardReport:
        self._event("writing", shard)
        if shard in self.held:
            await_file(self.folder / f"go-{shard}")
        self._event("committed", shard)
        return ShardReport(shard, 10, 0.0, "cpu")


@pytest.fixture(scope="class")
def cluster() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def pool_of(
    folder: Path, held: set[int] | None = None, faults: dict[tuple[int, str], str] | None = None, attempts: int = 3
) -> tuple[Pool, list[ShardReport]]:
    done: list[ShardReport] = []
    actor = ray.remote(concurrency_groups={PROGRESS: 1, COMMITS: 1})(Committer)

    def create() -> ActorHandle[Committer]:
        return actor.options(num_cpus=0, max_restarts=0, max_task_retries=0).remote(folder, held or set(), faults or {})

    pool = Pool(
        create,
        lambda worker, shard: worker.begin.remote(shard),
        1,
        attempts,
        done.append,
        lambda passes: None,
        await_commit=lambda worker, shard: worker.committed.options(concurrency_group=COMMITS).remote(shard.index),
    )
    return pool, done


def shards(count: int) -> list[Shard]:
    return [Shard(index, 10 * index, 10 * index + 10) for index in range(count)]


@pytest.mark.server
@pytest.mark.usefixtures("cluster")
class TestPool:
    def test_a_worker_holds_at_most_two_shards_and_commits_one_of_them(self, tmp_path: Path) -> None:
        pool, done = pool_of(tmp_path, held={0})
        ticks = 0

        def on_tick(_passes: int) -> None:
            nonlocal ticks
            ticks += (tmp_path / "computed-1").exists()
            if ticks == 3:  # more than a second later
                assert not (tmp_path / "began-2").exists()
                assert not (tmp_path / "writing-1").exists()
                assert done == [], "a report comes after the commit"
                (tmp_path / "go-0").touch()

        pool.on_tick = on_tick
        assert pool.run(shards(4)) == []
        assert [report.shard for report in done] == [0, 1, 2, 3]
        assert ticks >= 3

    def test_a_worker_that_dies_blames_the_shard_that_it_computed(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        """With one attempt per shard, the shard that was being committed would be set aside, too."""
        pool, done = pool_of(tmp_path, held={0}, faults={(1, "began"): "die"}, attempts=1)
        pool.on_tick = lambda _: (tmp_path / "go-0").touch() if (tmp_path / "began-1-fault").exists() else None
        (failed,) = pool.run(shards(3))
        assert isinstance(failed, FailedShard)
        assert failed.shard.index == 1
        assert sorted(report.shard for report in done) == [0, 2]
        assert "shard 0: its worker was lost" in caplog.messages

    @pytest.mark.parametrize("event", ["writing", "committed"])
    @pytest.mark.parametrize("fault", ["die", "raise"])
    def test_a_commit_that_fails_is_tried_again_with_its_shard(self, event: str, fault: str, tmp_path: Path) -> None:
        pool, done = pool_of(tmp_path, faults={(1, event): fault})
        assert pool.run(shards(3)) == []
        assert sorted(report.shard for report in done) == [0, 1, 2]

    def test_a_commit_that_fails_every_time_sets_its_shard_aside(self, tmp_path: Path) -> None:
        pool, done = pool_of(tmp_path, faults={(2, "writing"): "raise"}, attempts=1)
        (failed,) = pool.run(shards(3))
        assert (failed.shard.index, failed.error) == (2, "OSError: the disk is broken")
        assert sorted(report.shard for report in done) == [0, 1]

    def test_a_full_storage_ends_the_run(self, tmp_path: Path) -> None:
        pool, _ = pool_of(tmp_path, faults={(1, "writing"): "full"})
        with pytest.raises(RunError, match="the storage is full"):
            pool.run(shards(4))

    def test_a_worker_whose_device_failed_commits_what_it_has_computed(self, tmp_path: Path) -> None:
        pool, done = pool_of(tmp_path, held={0}, faults={(1, "device"): "yes"})
        pool.on_tick = lambda _: (tmp_path / "go-0").touch() if (tmp_path / "failed").exists() else None
        assert pool.run(shards(3)) == []
        assert sorted(report.shard for report in done) == [0, 1, 2]

    def test_a_commit_that_hangs_is_found(self, tmp_path: Path) -> None:
        """The worker is replaced, and both of its shards are computed again."""
        pool, done = pool_of(tmp_path, held={0})
        pool.stall_timeout = 3.0
        pool.on_tick = lambda _: (tmp_path / "go-0").touch() if pool._passes_of_lost else None
        assert pool.run(shards(3)) == []
        assert sorted(report.shard for report in done) == [0, 1, 2]
        assert pool._passes_of_lost


# Real runs


@pytest.fixture
def workers_import_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.usefixtures("workers_import_tests")
class TestRuns:
    def test_the_next_shard_is_computed_before_a_commit_has_ended(self, tmp_path: Path) -> None:
        """Each commit waits for the next shard's computation: without overlap it would never end."""
        summary, store = run(config(tmp_path, "waiting", wait=True))
        assert summary.failed_shards == []
        assert len(list((tmp_path / "waiting").glob("committed-*"))) == SHARDS
        assert 0 < summary.worker_seconds <= summary.seconds
        assert summary.passes == sum(store.records()["passes"].to_pylist())
        assert same_bytes(store, tmp_path)

    def test_a_worker_that_is_killed_while_it_commits_costs_only_time(self, tmp_path: Path) -> None:
        summary, store = run(config(tmp_path, "killed", kill=1))
        assert (tmp_path / "killed" / "killed").exists()
        assert summary.failed_shards == []
        assert same_bytes(store, tmp_path)

    def test_a_run_that_is_killed_while_it_commits_is_resumed(self, tmp_path: Path) -> None:
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(keys(tmp_path, "driver", "ray", {"lease_seconds": 4.0}, seconds=3.0)))
        trace = tmp_path / "driver"
        with driver(file) as process:
            until(lambda: (trace / "computing-2").exists() and (trace / "writing-1").exists())
            process.kill()
        store = RunStore.from_config(load_config(str(file)))
        assert len(store.done()) < SHARDS
        done = hdm("run", file)
        assert done.returncode == 0, done.stderr
        assert store.done() == set(range(SHARDS))
        assert same_bytes(store, tmp_path)

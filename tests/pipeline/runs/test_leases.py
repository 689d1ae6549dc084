"""Leases of two drivers on a disk; the contract suite tests create and replace on S3."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from pipeline.runs import RunStore, leases
from pipeline.runs.leases import Lease, LeaseHolder, LeaseLostError, StaleLeaseDetector, is_free
from pipeline.storage.objects import Storage, to_json
from tests.support.plans import configuration, plan_of, results


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def lease(storage: Storage, seconds: float = 60) -> Lease:
    return Lease(storage, 7, seconds)


def holder(host: str, process: int) -> str:
    return f"{host} {process} 0123"


def lease_of(who: str | None, until: datetime | None = None) -> dict[str, Any]:
    return {"holder": who, "beat": 3, "until": (until or datetime.now(UTC)).isoformat()}


def test_a_lease_has_one_holder(storage: Storage) -> None:
    one, other = lease(storage), lease(storage)
    assert one.acquire(None) is None
    held = other.acquire(None)
    assert held is not None
    assert held.holder == one.holder
    with pytest.raises(LeaseLostError):
        other.renew()
    one.renew()


def test_a_released_lease_can_be_acquired(storage: Storage) -> None:
    one, other = lease(storage), lease(storage)
    one.acquire(None)
    with one.renewing():
        assert other.acquire(None) is not None
    assert other.acquire(None) is None
    one.release()  # a lease that was lost
    other.renew()


def test_a_lease_is_released_after_an_exception(storage: Storage) -> None:
    one = lease(storage)
    one.acquire(None)
    with pytest.raises(ZeroDivisionError), one.renewing():
        raise ZeroDivisionError
    assert lease(storage).acquire(None) is None


def test_a_stale_lease_is_taken_over_and_its_holder_learns_of_it(storage: Storage) -> None:
    one, other, third = lease(storage), lease(storage), lease(storage)
    one.acquire(None)
    held = other.acquire(None)
    assert held is not None
    assert other.acquire(held.tag) is None
    with pytest.raises(LeaseLostError, match="taken over"):
        one.renew()
    assert third.acquire(held.tag) is not None, "the tag is that of an earlier renewal"
    other.renew()


def test_a_lease_that_was_renewed_is_not_stale(storage: Storage) -> None:
    one, other = lease(storage), lease(storage)
    one.acquire(None)
    held = other.acquire(None)
    assert held is not None
    one.renew()
    assert other.acquire(held.tag) is not None
    one.renew()


def test_a_lease_is_renewed_while_it_is_held(storage: Storage) -> None:
    one = lease(storage, seconds=0.2)
    one.acquire(None)
    tags = set()
    with one.renewing():
        end = time.monotonic() + 5
        while len(tags) < 3 and time.monotonic() < end:
            held = lease(storage).acquire(None)
            assert held is not None
            tags.add(held.tag)
            time.sleep(0.02)
    assert len(tags) >= 3


def test_staleness_is_measured_by_the_local_clock_and_again_after_every_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(leases.time, "monotonic", lambda: now)
    detector = StaleLeaseDetector(5)
    assert detector.stale_tag(7) is None
    detector.observe(7, LeaseHolder("a", "1"))
    assert detector.stale_tag(7) is None
    now += 5
    assert detector.stale_tag(7) == "1"
    detector.observe(7, LeaseHolder("a", "1"))
    assert detector.stale_tag(7) == "1"
    detector.observe(7, LeaseHolder("a", "2"))
    assert detector.stale_tag(7) is None
    assert detector.stale_tag(8) is None


def test_a_dead_process_holds_no_lease() -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    assert is_free(lease_of(holder(socket.gethostname(), dead.pid)))
    assert not is_free(lease_of(holder(socket.gethostname(), os.getpid())))
    assert not is_free(lease_of(holder("elsewhere", dead.pid))), "processes of another machine are unknown"


@pytest.mark.parametrize(("minutes", "free"), [(-120, True), (-6, True), (-4, False), (-2, False), (2, False), (120, False)])
def test_a_clock_that_is_minutes_off_takes_over_no_lease(minutes: float, free: bool) -> None:
    assert is_free(lease_of(holder("elsewhere", 1), datetime.now(UTC) + timedelta(minutes=minutes))) is free


def test_a_worker_that_lost_its_lease_commits_nothing(tmp_path: Path) -> None:
    plan = plan_of(configuration(output=str(tmp_path)))
    store = RunStore.from_config(plan.config)
    store.create(plan)
    shard = plan.shards[0]
    slow, fast = (Lease(store.storage, shard.index, 60) for _ in range(2))
    slow.acquire(None)
    held = fast.acquire(None)
    assert held is not None
    fast.acquire(held.tag)
    with pytest.raises(LeaseLostError):
        store.write_shard(shard, *results(plan, shard), plan.config, slow)
    assert not store.storage.exists("records/part-000000.parquet"), "nothing is written where the loss is known before"
    assert store.done() == set()
    assert store.write_shard(shard, *results(plan, shard), plan.config, fast) is True
    assert store.storage.read_json("commits/000000.json")["holder"] == fast.holder


def test_a_lease_that_is_lost_while_objects_are_written_prevents_the_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(configuration(output=str(tmp_path)))
    store = RunStore.from_config(plan.config)
    store.create(plan)
    lost = Lease(store.storage, 0, 60)
    lost.acquire(None)
    write = store.storage.write

    def write_and_lose(name: str, data: bytes) -> None:
        write(name, data)
        write("leases/000000.json", to_json(lease_of(holder("elsewhere", 1))))

    monkeypatch.setattr(store.storage, "write", write_and_lose)
    with pytest.raises(LeaseLostError):
        store.write_shard(plan.shards[0], *results(plan, plan.shards[0]), plan.config, lost)
    assert store.done() == set()

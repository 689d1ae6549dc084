"""Real injected faults, after which a run has the bytes of an undisturbed one."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import ray

from pipeline.config.load import load_config
from pipeline.errors import RunError
from pipeline.execution.driver import RunSummary, plan_run
from pipeline.runs import RunStore
from pipeline.runs.verify import verify
from tests.support.fault_runs import IMAGES, SHARDS, InTurn, Once, at_work, contents, driver, explained, settings, until, written
from tests.support.paths import ROOT
from tests.support.s3_proxy import Fault, Proxy
from tests.support.s3_server import S3, serve
from tests.support.small_run import hdm

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

FAST_CLOCK = ROOT / "tests" / "support" / "fast_clock"


@pytest.fixture(scope="module", autouse=True)
def two_workers(s3_server: S3) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)  # workers inherit the environment of their node
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def own_s3() -> Iterator[S3]:
    """A server that the test may kill."""
    with serve() as server:
        yield server.folder()


def test_a_worker_that_is_killed_and_one_that_hangs(folder: Path, undisturbed: dict[str, Any]) -> None:
    """One run suffers both: a worker is killed, and another one is stopped, which is replaced after `stall_timeout`."""
    faults = InTurn(lambda process: os.kill(process, signal.SIGKILL), lambda process: os.kill(process, signal.SIGSTOP))
    outcome, store = explained(settings(folder, "killed-hung", compute={"stall_timeout": 15.0}), faults)
    assert len(set(faults.done)) == 2, "both faults must come while there is work"
    assert not outcome.failed_shards
    assert contents(store) == undisturbed
    assert not verify(store).damaged


def test_a_worker_that_is_asked_to_go_has_not_failed(folder: Path, undisturbed: dict[str, Any]) -> None:
    """SIGTERM is what a machine that is taken back gets; it does not count as a failure of the shard."""
    fault = Once(lambda process: os.kill(process, signal.SIGTERM))
    outcome, store = explained(settings(folder, "worker-SIGTERM", compute={"max_attempts": 1}), fault)
    assert fault.done, "the fault must come while there is work"
    assert not outcome.failed_shards
    assert contents(store) == undisturbed
    assert not verify(store).damaged


def test_a_worker_that_is_asked_to_go_gives_its_lease_back(folder: Path, undisturbed: dict[str, Any]) -> None:
    """The worker's driver is stopped, so that only another one can take the shard, and the lease is long."""
    lease = 240.0
    file = written(folder, "spot", compute={"workers": 1, "lease_seconds": lease})
    configuration = load_config(str(file))
    with driver(file) as first:
        store = RunStore.from_config(configuration)
        (process,) = until(lambda: at_work(store))
        os.kill(first.pid, signal.SIGSTOP)
        os.kill(process, signal.SIGTERM)
        begin = time.monotonic()
        until(lambda: not at_work(store), 20)
        os.kill(process, 0)  # the process still exists: the others do not rely on its end
        explained(configuration)
        assert time.monotonic() - begin < lease
        os.kill(first.pid, signal.SIGCONT)
        assert first.wait(lease) == 0
    assert contents(store) == undisturbed


def test_a_clock_two_minutes_off(folder: Path, undisturbed: dict[str, Any]) -> None:
    """By the fast clock, all leases of the other driver's workers expired more than a minute ago."""
    file = written(folder, "clock", compute={"workers": 1, "lease_seconds": 40.0})
    configuration = load_config(str(file))
    first_holders: dict[str, str] = {}

    with driver(file, PYTHONPATH=os.pathsep.join([str(FAST_CLOCK), *sys.path])) as fast:
        store = RunStore.from_config(configuration)
        (process,) = until(lambda: at_work(store))
        os.kill(process, signal.SIGSTOP)  # until the other driver has begun, so that both work

        def watch(store: RunStore) -> None:
            for name in store.storage.names("leases"):
                if holder := store.storage.read_json(f"leases/{name}")["holder"]:
                    first_holders.setdefault(name, holder)
            if set(at_work(store)) - {process}:
                os.kill(process, signal.SIGCONT)

        (lease,) = (store.storage.read_json(f"leases/{name}") for name in store.storage.names("leases"))
        assert datetime.fromisoformat(lease["until"]) - datetime.now(UTC) > timedelta(seconds=110), "its clock must be fast"
        explained(configuration, watch)
        assert fast.wait(120) == 0
    assert contents(store) == undisturbed
    committed = {name: store.storage.read_json(f"commits/{name}")["holder"] for name in store.storage.names("commits")}
    assert len({holder.split(" ")[1] for holder in committed.values()}) == 2, "both must have worked"
    assert {name: committed[name] for name in first_holders} == first_holders, "no lease was taken from a worker that was alive"


def test_a_shard_that_kills_its_worker_every_time(folder: Path, undisturbed: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The classifier of the run kills its process on one of the images."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # the workers import the network's factory from this module's package
    picture = next((folder / "photographs").rglob("003.png"))
    armed = folder / "armed"
    armed.touch()
    arguments = {"picture": str(picture), "armed": str(armed)}
    classifier = {"source": "import", "factory": "tests.support.crashing_network:network", "arguments": arguments, "resize": 72, "crop": 64}
    file = written(folder, "deadly", classifier=classifier)
    done = hdm("run", file)
    assert done.returncode == 3, done.stderr
    assert re.search(r"shard \d \(rows \d-\d\) failed after all attempts: .+", done.stderr)
    assert "2 images could not be explained" in done.stderr
    assert len(RunStore.from_config(load_config(str(file))).done()) == SHARDS - 1
    armed.unlink()
    outcome, store = explained(load_config(str(file)))
    assert (outcome.already_done, outcome.statuses) == (SHARDS - 1, {"ok": IMAGES})
    assert contents(store) == undisturbed


def test_two_drivers_share_a_run(folder: Path, undisturbed: dict[str, Any]) -> None:
    configuration = settings(folder, "shared", compute={"workers": 1})
    outcomes: list[RunSummary] = []
    threads = [threading.Thread(target=lambda: outcomes.append(explained(configuration)[0])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.statuses for outcome in outcomes] == [{"ok": IMAGES}] * 2
    store = RunStore.from_config(configuration)
    assert contents(store) == undisturbed
    holders = {store.storage.read_json(f"commits/{index:06d}.json")["holder"].split(" ")[1] for index in range(SHARDS)}
    assert len(holders) == 2, "both must have worked"


def test_s3_that_fails_now_and_then_and_is_unreachable_for_a_while(folder: Path, undisturbed: dict[str, Any], s3: S3) -> None:
    """One run suffers every fault of the proxy in turn, and an outage: all connections are reset for ten seconds."""
    with Proxy(s3.storage["endpoint_url"], list(Fault)) as proxy:
        outage = Once(lambda process: proxy.away(10.0))
        storage = {**s3.storage, "endpoint_url": proxy.url, "config_kwargs": {"read_timeout": 4}}
        _, store = explained(settings(folder, "s3-faults", output=s3.url, storage=storage), outage)
        assert outage.done
        assert set(proxy.injected) == set(Fault)
        assert min(proxy.injected.values()) >= 3, proxy.injected
    stored = RunStore.open(store.url, s3.storage)
    assert contents(stored) == undisturbed
    assert not verify(stored).damaged


def test_s3_whose_server_is_killed_and_comes_back(folder: Path, undisturbed: dict[str, Any], own_s3: S3) -> None:
    def crash() -> None:
        own_s3.server.kill()
        time.sleep(10)
        own_s3.server.start()

    outage = threading.Thread(target=crash)
    killed = Once(lambda process: outage.start())
    own_s3.upload(folder / "photographs")
    places = {"dataset": {"kind": "folder", "root": own_s3.url}, "output": own_s3.folder().url, "storage": own_s3.storage}
    outcome, store = explained(settings(folder, "s3-killed", **places), killed)
    assert killed.done
    outage.join()
    assert not outcome.failed_shards
    assert contents(store) == undisturbed
    assert not verify(store).damaged


def test_s3_whose_server_does_not_come_back(folder: Path, undisturbed: dict[str, Any], own_s3: S3) -> None:
    place = own_s3.folder()
    configuration = settings(folder, "s3-gone", output=place.url, storage=place.storage, compute={"storage_timeout": 5.0})
    with pytest.raises(RunError, match="has not answered for 5 seconds") as stopped:
        explained(configuration, Once(lambda process: own_s3.server.kill()))
    assert "\n" not in str(stopped.value)
    own_s3.server.start()
    _, store = explained(configuration)
    assert contents(store) == undisturbed


def test_what_was_damaged_is_repaired(folder: Path, undisturbed: dict[str, Any]) -> None:
    _, store = explained(settings(folder, "damaged"))
    moved = Path(store.url).with_name("elsewhere")
    Path(store.url).rename(moved)
    (moved / "maps.zarr/hdm/c/1/0/0").write_bytes(b"")
    (moved / "records/part-000003.parquet").unlink()
    done = hdm("repair", moved)
    assert done.returncode == 0, done.stderr
    assert "2 of 4 committed shards are damaged" in done.stderr
    assert contents(RunStore.open(str(moved))) == undisturbed
    assert not Path(store.url).exists(), "the run stays where it was moved to"


def test_a_disk_that_fills_up_ends_the_run_and_the_next_goes_on(folder: Path, undisturbed: dict[str, Any], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        configuration = settings(folder, "full", output=str(disk))
        ballast = disk / "ballast"
        plan_run(configuration)
        room = shutil.disk_usage(disk).free
        ballast.write_bytes(bytes(room - 12_000))
        with pytest.raises(RunError, match="the storage is full"):
            explained(configuration)
        ballast.unlink()
        outcome, store = explained(configuration)
        assert outcome.statuses == {"ok": IMAGES}
        assert contents(store) == undisturbed
        assert not list(disk.rglob("*.tmp")), "partly written files are removed"
    finally:
        subprocess.run(["umount", disk], check=True)

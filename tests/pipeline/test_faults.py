"""Faults that are injected for real; the run that goes through them ends with the bytes of an undisturbed one."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray

from pipeline.config import RunConfig
from pipeline.errors import RunError
from pipeline.loading import load_config
from pipeline.progress import State
from pipeline.run import Outcome, explain_run, plan_run
from pipeline.store import RunStore
from pipeline.store.verify import verify
from tests.pipeline.proxy import Fault, Proxy
from tests.seaweed import S3
from tests.small_run import config, hdm, photographs

pytestmark = pytest.mark.slow

IMAGES, SHARDS = 8, 4

# What a run's records may differ in: how long it took, and where.
CIRCUMSTANCES = ["seconds", "device", "run"]

Interfere = Callable[[RunStore], None]


@pytest.fixture(scope="module")
def two_workers(s3_server: S3) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment.items():
            patch.setenv(name, value)  # workers have the environment in which their node was started
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults")
    photographs(path / "photographs", IMAGES)
    return path


@pytest.fixture(scope="module")
def undisturbed(folder: Path, two_workers: None) -> dict[str, Any]:
    outcome, store = explained(settings(folder, "undisturbed"))
    assert outcome.statuses == {"ok": IMAGES}, "flat maps would be the same bytes whatever happened"
    return contents(store)


def settings(folder: Path, name: str, **changes: Any) -> RunConfig:
    return load_config(str(written(folder, name, **changes)))


def written(folder: Path, name: str, **changes: Any) -> Path:
    compute = {"workers": 2, "shard_size": IMAGES // SHARDS, "batch": IMAGES // SHARDS, "lease": 4.0, **changes.pop("compute", {})}
    return config(folder, folder / "photographs", name=name, **{"methods": ["hdm", "grad_cam"], "compute": compute, **changes})


def explained(configuration: RunConfig, interfere: Interfere = lambda store: None) -> tuple[Outcome, RunStore]:
    """Runs it to its end; `interfere` is called about twice a second."""
    plan, store = plan_run(configuration)

    def show(state: State) -> None:
        interfere(store)

    return explain_run(plan, store, show), store


def contents(store: RunStore) -> dict[str, Any]:
    """Every map, record, curve and fact of a run; the records without their circumstances."""
    found: dict[str, Any] = {}
    for index in sorted(store.done()):
        for name in store.storage.read_json(f"commits/{index:06d}.json")["sha256"]:
            data = store.storage.read(name)
            found[name] = pq.read_table(io.BytesIO(data)).drop_columns(CIRCUMSTANCES) if name.startswith("records/") else data
    return found


def at_work(store: RunStore) -> list[int]:
    """The processes that hold a lease now."""
    leases = [store.storage.read_json(f"leases/{name}")["holder"] for name in store.storage.names("leases")]
    return [int(holder.split(" ")[1]) for holder in leases if holder]


class Once:
    """Does a thing to the first worker that is seen at work."""

    def __init__(self, action: Callable[[int], None]) -> None:
        self.done: list[int] = []
        self._action = action

    def __call__(self, store: RunStore) -> None:
        if not self.done and (processes := at_work(store)):
            self.done.append(processes[0])
            self._action(processes[0])


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_worker_that_is_killed_hangs_or_is_asked_to_go(folder: Path, undisturbed: dict[str, Any], sent: signal.Signals) -> None:
    fault = Once(lambda process: os.kill(process, sent))
    outcome, store = explained(settings(folder, f"worker-{sent.name}", compute={"stall": 8.0}), fault)
    assert fault.done, "the fault must come while there is work"
    assert not outcome.set_aside
    assert contents(store) == undisturbed
    assert not verify(store).damaged


def test_two_drivers_share_a_run(folder: Path, undisturbed: dict[str, Any]) -> None:
    configuration = settings(folder, "shared", compute={"workers": 1})
    outcomes: list[Outcome] = []
    drivers = [threading.Thread(target=lambda: outcomes.append(explained(configuration)[0])) for _ in range(2)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    assert [outcome.statuses for outcome in outcomes] == [{"ok": IMAGES}] * 2
    store = RunStore.at(configuration)
    assert contents(store) == undisturbed
    holders = {store.storage.read_json(f"commits/{index:06d}.json")["holder"].split(" ")[1] for index in range(SHARDS)}
    assert len(holders) == 2, "both must have worked"


def test_a_run_on_s3_has_the_bytes_of_one_on_a_disk(folder: Path, undisturbed: dict[str, Any], s3: S3) -> None:
    _, store = explained(settings(folder, "s3", output=s3.url, storage=s3.storage))
    assert contents(store) == undisturbed


@pytest.mark.parametrize("fault", list(Fault))
def test_s3_that_fails_now_and_then(folder: Path, undisturbed: dict[str, Any], s3: S3, fault: Fault) -> None:
    every = 40 if fault is Fault.STALL else 5  # each costs as long as a client waits
    with Proxy(s3.storage["endpoint_url"], fault, every) as proxy:
        storage = {**s3.storage, "endpoint_url": proxy.url, "config_kwargs": {"read_timeout": 4}}
        _, store = explained(settings(folder, f"s3-{fault.name}", output=s3.url, storage=storage))
        assert proxy.injected >= (2 if fault is Fault.STALL else 10)
    there = RunStore.open(store.url, s3.storage)
    assert contents(there) == undisturbed
    assert not verify(there).damaged


def test_s3_that_is_away_for_a_while(folder: Path, undisturbed: dict[str, Any], s3: S3) -> None:
    """The server's process is not killed, but nobody answers at its address: for the run that is the same."""
    with Proxy(s3.storage["endpoint_url"], None) as proxy:
        gone = Once(lambda process: threading.Thread(target=proxy.away, args=(15.0,)).start())
        storage = {**s3.storage, "endpoint_url": proxy.url}
        _, store = explained(settings(folder, "s3-away", output=s3.url, storage=storage), gone)
        assert gone.done
    assert contents(RunStore.open(store.url, s3.storage)) == undisturbed


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
    assert not Path(store.url).exists(), "the run is where it was moved to"


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
        assert not list(disk.rglob("*.tmp")), "what was half written is gone"
    finally:
        subprocess.run(["umount", disk], check=True)

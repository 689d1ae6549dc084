"""Runs for the tests of faults: start, disturb and compare them."""

from __future__ import annotations

import io
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pyarrow.parquet as pq

from pipeline.config.load import load_config
from pipeline.config.schema import RunConfig
from pipeline.execution.driver import RunSummary, explain_run, plan_run
from pipeline.monitoring.progress import Progress
from pipeline.runs import RunStore
from tests.support.small_run import command, config

IMAGES, SHARDS = 8, 4

# Columns in which the records of two equal runs may differ: duration, machine and name.
CIRCUMSTANCES = ["seconds", "device", "run"]

T = TypeVar("T")

Interfere = Callable[[RunStore], None]


def settings(folder: Path, name: str, **changes: Any) -> RunConfig:
    """Return the configuration of a run over the photographs of `folder`."""
    return load_config(str(written(folder, name, **changes)))


def written(folder: Path, name: str, **changes: Any) -> Path:
    """Write the configuration to a file: two workers, and leases of 4 seconds."""
    compute = {
        "workers": 2,
        "shard_size": IMAGES // SHARDS,
        "batch_size": IMAGES // SHARDS,
        "lease_seconds": 4.0,
        **changes.pop("compute", {}),
    }
    return config(folder, folder / "photographs", name=name, **{"methods": ["hdm", "grad_cam"], "compute": compute, **changes})


def explained(configuration: RunConfig, interfere: Interfere = lambda store: None) -> tuple[RunSummary, RunStore]:
    """Run to the end, calling `interfere` about twice a second."""
    plan, store = plan_run(configuration)

    def on_progress(progress: Progress) -> None:
        interfere(store)

    return explain_run(plan, store, on_progress), store


def contents(store: RunStore) -> dict[str, Any]:
    """Return all objects of a run; the records without CIRCUMSTANCES."""
    objects: dict[str, Any] = {}
    for index in sorted(store.done()):
        for name in store.storage.read_json(f"commits/{index:06d}.json")["sha256"]:
            data = store.storage.read(name)
            objects[name] = pq.read_table(io.BytesIO(data)).drop_columns(CIRCUMSTANCES) if name.startswith("records/") else data
    return objects


def holders(store: RunStore) -> dict[int, tuple[str, int]]:
    """Return shard -> host and process id of the worker that holds its lease."""
    by_name = {name: store.storage.read_json(f"leases/{name}")["holder"] for name in store.storage.names("leases")}
    by_shard = {int(name.removesuffix(".json")): holder.split(" ") for name, holder in by_name.items() if holder}
    return {shard: (host, int(pid)) for shard, (host, pid, _) in by_shard.items()}


def at_work(store: RunStore) -> list[int]:
    """Return the ids of the processes that hold a lease."""
    return [process for _, process in holders(store).values()]


@contextmanager
def driver(file: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start `hdm run` in the background, with its own Ray; kill it at the end."""
    with subprocess.Popen(
        command("run", file), env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(poll: Callable[[], T], seconds: float = 120.0) -> T:
    """Poll until the result is true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := poll():
            return result
        time.sleep(0.05)
    raise TimeoutError


class InTurn:
    """Injects one fault after another, each into a worker that holds a lease and was not hit yet.

    Attributes:
        done: ids of the processes that were hit.
    """

    def __init__(self, *actions: Callable[[int], None]) -> None:
        self.done: list[int] = []
        self._actions = list(actions)

    def __call__(self, store: RunStore) -> None:
        untouched = [process for process in at_work(store) if process not in self.done]
        if self._actions and untouched:
            self.done.append(untouched[0])
            self._actions.pop(0)(untouched[0])


class Once(InTurn):
    """Injects one fault into the first worker that holds a lease."""

    def __init__(self, action: Callable[[int], None]) -> None:
        super().__init__(action)

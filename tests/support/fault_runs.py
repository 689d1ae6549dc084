"""A run that is disturbed and one that is not: what the tests of faults share."""

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
from pipeline.monitoring.progress import State
from pipeline.runs import RunStore
from tests.support.small_run import command, config

IMAGES, SHARDS = 8, 4

# What a run's records may differ in: how long it took, and where.
CIRCUMSTANCES = ["seconds", "device", "run"]

T = TypeVar("T")

Interfere = Callable[[RunStore], None]


def settings(folder: Path, name: str, **changes: Any) -> RunConfig:
    """A run over the photographs of `folder`."""
    return load_config(str(written(folder, name, **changes)))


def written(folder: Path, name: str, **changes: Any) -> Path:
    """The same in a file. Two workers, and a lease that is over soon."""
    compute = {
        "workers": 2,
        "shard_size": IMAGES // SHARDS,
        "batch_size": IMAGES // SHARDS,
        "lease_seconds": 4.0,
        **changes.pop("compute", {}),
    }
    return config(folder, folder / "photographs", name=name, **{"methods": ["hdm", "grad_cam"], "compute": compute, **changes})


def explained(configuration: RunConfig, interfere: Interfere = lambda store: None) -> tuple[RunSummary, RunStore]:
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


def holders(store: RunStore) -> dict[int, tuple[str, int]]:
    """Shard -> host and process of the worker that has its lease now."""
    found = {name: store.storage.read_json(f"leases/{name}")["holder"] for name in store.storage.names("leases")}
    places = {int(name.removesuffix(".json")): holder.split(" ") for name, holder in found.items() if holder}
    return {shard: (host, int(process)) for shard, (host, process, _) in places.items()}


def at_work(store: RunStore) -> list[int]:
    """The processes that hold a lease now."""
    return [process for _, process in holders(store).values()]


@contextmanager
def driver(file: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`hdm run` in the background, with a Ray of its own."""
    with subprocess.Popen(
        command("run", file), env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(found: Callable[[], T], seconds: float = 120.0) -> T:
    """Waits until something is there, and gives it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if result := found():
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

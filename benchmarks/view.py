"""Benchmark of the viewer: seconds of its pages on a very large run, and memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from starlette.testclient import TestClient

from hdm_core.metrics.registry import chosen_metrics
from pipeline.config.schema import RunConfig
from pipeline.datasets import Sample
from pipeline.plan import Plan, Shard
from pipeline.runs import RunStore
from pipeline.runs.records import RECORDS, to_parquet
from pipeline.runs.requested import written_columns
from pipeline.runs.store import commit_name
from pipeline.storage.objects import to_json
from pipeline.view import RunView, create_app

_CLASSES = 1000
_TOKEN, _PORT = "benchmark", 80
_TIMES = 3  # requests per page, of which the slowest counts

# Pages of a visit: what is filtered, sorted or counted.
PAGES = {
    "all images": "/",
    "one class": "/?class=class+007",
    "wrong and confident": "/?correct=no&min_probability=0.9",
    "expression": "/?where=insertion_auc+-+deletion_auc+%3C+0.1+and+image_id+like+'%2500.jpg'",
    "sorted by a metric": "/?sort=insertion_auc&order=down",
    "page 10,000": "/?page=10000",
    "brushed histogram": "/?min_deletion_auc=0.2&max_deletion_auc=0.25&sort=probability",
}


@dataclass(frozen=True)
class ViewResult:
    """Result: seconds of the viewer's pages on a run of `images` images.

    Attributes:
        first_page: seconds from opening the run to the first page with images.
        read: seconds until all records are read.
        pages: the slowest of three requests of each page, in seconds.
        before_mib, peak_mib: the process's own memory before the run was opened, and its peak.
        files_mib: pages of the files of libraries, such as torch.
    """

    images: int
    records: int
    shards: int
    first_page: float
    read: float
    pages: dict[str, float]
    before_mib: float
    peak_mib: float
    files_mib: float

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON object of the result."""
        return asdict(self)


def bench_view(images: int, shard_size: int, methods: tuple[str, ...], folder: Path) -> ViewResult:
    """Write the records of a run of `images` images, open it and ask for its pages.

    The maps and photographs do not exist: pictures are drawn one at a time, whatever the size of the run.
    """
    # By a process of its own, whose memory is not the viewer's.
    with ProcessPoolExecutor(1, get_context("spawn")) as writer:
        url = writer.submit(write_run, images, shard_size, methods, folder).result()
    memory = _Memory()
    begin = time.perf_counter()
    view = RunView(RunStore.open(url))
    client = TestClient(create_app(view, _TOKEN, _PORT), base_url="http://127.0.0.1", headers={"accept": "text/html"})
    client.get(f"/?token={_TOKEN}")
    while 'class="tile"' not in client.get("/").text:
        time.sleep(0.01)
    first = time.perf_counter() - begin
    view.wait()
    read = time.perf_counter() - begin
    pages = {name: max(_seconds(lambda page=page: _get(client, page)) for _ in range(_TIMES)) for name, page in PAGES.items()}  # type: ignore[misc]
    shards = view.catalogue.shards
    view.close()
    return ViewResult(images, images * len(methods), shards, first, read, pages, memory.before, memory.stop(), _status("RssFile"))


def write_run(images: int, shard_size: int, methods: tuple[str, ...], folder: Path) -> str:
    """Write a finished run without maps, and return its URL."""
    config = RunConfig.model_validate(
        {
            "name": "million",
            "dataset": {"kind": "folder", "root": str(folder)},
            "classifier": {"arch": "mobilenet_v2"},
            "methods": list(methods),
            "compute": {"shard_size": shard_size},
            "output": str(folder),
        }
    )
    samples = [
        Sample(
            f"photographs/{row // 1000:05d}/{row:09d}.jpg", f"{folder}/{row:09d}.jpg", row % _CLASSES, f"class {row % _CLASSES:03d}", "test"
        )
        for row in range(images)
    ]
    shards = [Shard(index, start, min(start + shard_size, images)) for index, start in enumerate(range(0, images, shard_size))]
    store = RunStore.from_config(config)
    store.create(Plan(config, samples, shards, (224, 224), "f" * 64, dict.fromkeys(methods, 12)))
    draw = np.random.default_rng(0)
    schema = written_columns(RECORDS, chosen_metrics(None))
    for shard in shards:
        store.storage.write(f"records/part-{shard.index:06d}.parquet", to_parquet(_records(shard, samples, methods, draw), schema))
        store.storage.write(commit_name(shard.index), to_json({"shard": shard.index, "rows": [shard.start, shard.stop]}))
    return store.url


def _records(shard: Shard, samples: list[Sample], methods: tuple[str, ...], draw: np.random.Generator) -> dict[str, Any]:
    """Return a shard's records as columns: one row per image and method."""
    rows = np.repeat(np.arange(shard.start, shard.stop), len(methods))
    wrong = draw.random(len(rows)) < 0.2
    targets = np.where(wrong, draw.integers(0, _CLASSES, len(rows)), rows % _CLASSES)
    numbers = {name: draw.random(len(rows), np.float32) for name in ("probability", "seconds", *chosen_metrics(None))}
    return {
        "row": rows,
        "run": ["million"] * len(rows),
        "shard": [shard.index] * len(rows),
        "image_id": [samples[row].image_id for row in rows],
        "method": list(methods) * len(shard),
        "rank": [0] * len(rows),
        "status": np.where(draw.random(len(rows)) < 0.01, "flat", "ok").tolist(),
        "target": targets.astype(np.int32),
        "target_name": [f"class {target:03d}" for target in targets],
        "label": (rows % _CLASSES).astype(np.int32),
        "region": ["none"] * len(rows),
        **{name: pa.array(values) for name, values in numbers.items()},
    }


def _get(client: TestClient, page: str) -> None:
    answer = client.get(page)
    if answer.status_code != 200:
        raise RuntimeError(f"{page}: {answer.status_code}")


def _seconds(work: Callable[[], None]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


class _Memory:
    """Peak of the process's memory in MiB, sampled fifty times per second.

    Memory of its own (RssAnon) counts; pages of the files of libraries, which are shared and can be dropped, are reported apart.
    """

    def __init__(self) -> None:
        self.before = _status("RssAnon")
        self._peak, self._stopped = self.before, threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def stop(self) -> float:
        """Return the peak."""
        self._stopped.set()
        return self._peak

    def _sample(self) -> None:
        while not self._stopped.wait(0.02):
            self._peak = max(self._peak, _status("RssAnon"))


def _status(name: str) -> float:
    """Return a size of this process in MiB, of Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))

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

from starlette.testclient import TestClient

from benchmarks.synthetic_run import write_run
from pipeline.runs import RunStore
from pipeline.view import RunView, create_app

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

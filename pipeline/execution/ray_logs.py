"""First worker of a Ray that starts here, and the errors in its logs."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import ray

from pipeline.errors import one_line
from pipeline.execution.ray_folder import RAY

# The first is the last to be believed: what a worker prints before it has a log of its own is in raylet.err.
_LOGS = ("gcs_server.out", "raylet.out", "gcs_server.err", "raylet.err")
_ERROR = re.compile(r"^[\w.]*(?:Error|Exception|Exit)\b|^Fatal|^\[[^]]* [EC][ \]]")

_STARTED = re.compile(r"Started worker process with pid (\d+)")

_WORKER_TIMEOUT = 300.0  # seconds for the first worker, which imports Ray: a few on an idle machine
# Seconds without any worker process, after which no other is awaited. An error in raylet.err may be of no consequence, and a
# worker that runs out of memory or crashes leaves none.
_GONE_WITH_ERROR = 5.0
_GONE = 30.0


def await_worker(folder: Path) -> None:
    """Wait until a worker has run an empty task.

    Workers that end before they reach Ray, such as those of a Python with a broken sitecustomize or library, are started again
    without end and without an error.

    Raises:
        RuntimeError: if no worker runs it.
        RayError: if the worker dies.
    """

    def respond() -> None:  # local, so that the worker need not import this module
        pass

    task = ray.remote(num_cpus=0, max_retries=0)(respond).remote()
    begin = last_running = time.monotonic()
    while not ray.wait([task], timeout=0.5)[0]:
        now = time.monotonic()
        started = _started_workers(folder)
        if not started or any(map(_is_running, started)):
            last_running = now
        has_error = any(_errors(log) for log in _logs(folder, "raylet.err"))
        if now - last_running > (_GONE_WITH_ERROR if has_error else _GONE) or now - begin > _WORKER_TIMEOUT:
            raise RuntimeError(f"its workers end, or hang, as they start; none was ready after {now - begin:.0f} s")
    ray.get(task)


def _started_workers(folder: Path) -> list[int]:
    """Return the process numbers of all workers that were started so far."""
    return [int(pid) for log in _logs(folder, "raylet.out") for pid in _STARTED.findall(log.read_text(errors="replace"))]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def with_last_error(error: Exception, folder: Path) -> str:
    """Return the error of a failed start, with the last one in Ray's logs."""
    lines = [line for name in _LOGS for path in _logs(folder, name) for line in _errors(path)]
    return one_line(error) + (f" ({one_line(Exception(lines[-1]))})" if lines else "")


def _logs(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{RAY}/session_2*/logs/{name}"))


def _errors(log: Path) -> list[str]:
    """Return the lines of a log that report an error.

    These are exceptions of Python, and Ray's own lines of the levels E and C.
    """
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return [line for line in lines if _ERROR.search(line)]

"""A real Prefect server for tests, with its own home, database and port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_fixed

from tests.support.paths import ROOT


@dataclass(frozen=True)
class Prefect:
    """A running server.

    Attributes:
        env: environment in which Prefect's commands find the server.
        workers: workers of the pool `hdm`.
    """

    env: dict[str, str]
    home: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_worker(self) -> None:
        """Start another worker."""
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "hdm", "--type", "process"]
        with (self.home / "worker.log").open("a") as log:
            self.workers.append(subprocess.Popen(command, env=self.env, stdout=log, stderr=subprocess.STDOUT, cwd=self.home))

    @retry(retry=retry_if_exception_type(httpx.TransportError), stop=stop_after_attempt(6), wait=wait_fixed(1), reraise=True)
    def post(self, route: str, **query: Any) -> list[dict[str, Any]]:
        """Return the response of the server's API to a filter.

        A request without an answer is sent again, as often as Prefect's own client does: a
        server on SQLite, on a busy machine, once did not answer for 30 seconds.
        """
        response = httpx.post(f"{self.env['PREFECT_API_URL']}/{route}", json=query, timeout=30)
        found: list[dict[str, Any]] = response.raise_for_status().json()
        return found

    def __call__(self, *arguments: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.env, capture_output=True, text=True, timeout=seconds)


@contextmanager
def serve_prefect(home: Path) -> Iterator[Prefect]:
    """Start the server with a work pool, the deployments of prefect.yaml and a worker."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    env = kept | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "PWD": str(ROOT),
    }
    server_command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    with (home / "server.log").open("w") as server_log:
        server = subprocess.Popen(server_command, env=env, stdout=server_log, stderr=subprocess.STDOUT, cwd=home)
        ready = Prefect(env, home)
        try:
            _wait_for(f"http://127.0.0.1:{port}/api/health", server, home / "server.log")
            for arguments in (
                ("work-pool", "create", "hdm", "--type", "process"),
                ("deploy", "--all"),
                ("automation", "create", "--from-file", "infra/automations.yaml"),
            ):
                ended = ready(*arguments)
                assert ended.returncode == 0, ended.stdout + ended.stderr
            ready.start_worker()
            yield ready
        finally:
            for process in (*ready.workers, server):
                process.terminate()
            end = time.monotonic() + 20  # all of them together
            for process in (*ready.workers, server):
                try:
                    process.wait(max(end - time.monotonic(), 0.1))
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text()
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.5)
    raise TimeoutError(log.read_text())

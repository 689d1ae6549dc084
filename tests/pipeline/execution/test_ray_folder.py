"""The temporary folder of a Ray that is started here. Ray itself is not started."""

from __future__ import annotations

import shutil
import socket
import stat
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.execution import ray_folder as module
from pipeline.execution.ray_folder import ray_folder
from tests.support.plans import refused

VARIABLES = ("RAY_TMPDIR", "TMPDIR", "XDG_RUNTIME_DIR")


class Usage(NamedTuple):
    """Bytes of a disk."""

    total: int
    used: int
    free: int


@pytest.fixture(autouse=True)
def without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """Return a short link to a new folder: pytest's own folders have long paths."""
    link = Path("/tmp") / f"l{tmp_path.stat().st_ino}"
    link.symlink_to(tmp_path)
    yield link
    link.unlink()


def folder() -> Path:
    """Return the folder that is chosen; it is gone by then."""
    with ray_folder() as chosen:
        assert chosen.is_dir()
        assert list(chosen.iterdir()) == []
    assert not chosen.exists()
    return chosen


def test_the_folder_is_private_and_disappears_with_what_is_in_it() -> None:
    with ray_folder() as first, ray_folder() as second:
        assert first != second
        assert stat.S_IMODE(first.stat().st_mode) == 0o700
        (first / "session" / "logs").mkdir(parents=True)
        (first / "session" / "logs" / "raylet.out").write_text("line")
    assert not first.exists()
    assert not second.exists()


def test_the_longest_socket_fits_into_the_folder() -> None:
    with ray_folder() as chosen, socket.socket(socket.AF_UNIX) as server:
        path = chosen / module._LONGEST_SOCKET
        path.parent.mkdir(parents=True)
        server.bind(str(path))


def test_a_short_folder_of_the_user_is_used(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(short))
    assert folder().parent == short


def test_a_relative_folder_is_one_of_the_current_folder(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    monkeypatch.setenv("TMPDIR", short.name)
    assert folder().parent == short


def test_rays_own_variable_comes_first_and_its_logs_stay_there(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    with ray_folder() as chosen:
        assert chosen.parent == short
        (chosen / "raylet.out").write_text("line")
    assert (chosen / "raylet.out").read_text() == "line"


def unusable(kind: str, base: Path) -> str:
    """Make a folder that Ray cannot use, or name one."""
    path = base / "people" / "a_long_user_name" / "slurm_jobdir" / "13557001" / "tmp.t0016" if kind == "long" else base / kind
    if kind == "file":
        path.write_text("")
    elif kind == "below a file":
        (base / "file2").write_text("")
        path = base / "file2" / "x"
    elif kind in ("long", "é" * 20, "a b", "it's"):
        path.mkdir(parents=True)
    return "" if kind == "empty" else str(path)


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
@pytest.mark.parametrize("kind", ["long", "é" * 20, "a b", "it's", "missing", "file", "below a file", "empty"])
def test_a_folder_that_cannot_be_used_is_replaced(
    name: str, kind: str, short: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = unusable(kind, short)
    monkeypatch.setenv(name, path)
    before = sorted(short.rglob("*"))
    assert folder().parent == Path("/tmp")
    assert sorted(short.rglob("*")) == before  # nothing is left there
    assert (f"{name}={path}" in caplog.text) == bool(path)  # an empty variable is an unset one


def test_a_full_disk_is_passed_over(short: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    disk_usage = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 3 << 20) if Path(path).parent == short else disk_usage(path))
    monkeypatch.setenv("TMPDIR", str(short))
    assert folder().parent == Path("/tmp")
    assert "only 3 MiB are free" in caplog.text


def test_where_no_folder_can_be_used_one_line_names_tmpdir(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1, 1, 0))
    monkeypatch.setenv("TMPDIR", unusable("long", short))
    message = refused(folder)
    assert "set TMPDIR to a short path with 50 MiB of room" in message
    assert "the path is too long for sockets" in message
    assert "/tmp: only 0 MiB are free" in message
    assert list(short.rglob("hdm-*")) == []

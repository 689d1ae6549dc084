"""Temporary folder of a Ray that is started here.

It holds sockets, logs and the token, and the objects if shared memory is small.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from pipeline.errors import InputError, one_line

_log = logging.getLogger(__name__)

# Ray lets everyone into the folder that it is given: that is one within ours.
RAY = "r"

# The longest path that Ray makes a socket at: the time to the microsecond, a process number of up to seven digits. The kernel
# takes 107 bytes (macOS: 103), so the folder's own path may have 41.
_LONGEST_SOCKET = f"{RAY}/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"

# Ray writes a few MiB of logs; its processes fail without a message, or wait for one another, on a full disk.
_MIN_FREE_MIB = 50


@contextmanager
def ray_folder() -> Iterator[Path]:
    """Make a folder for one Ray, and remove it at the end.

    Only this user can enter it. In RAY_TMPDIR, which the user chose for Ray's files, it stays, with the logs.

    Ray's own choice, TMPDIR/ray or /tmp/ray, may have too long a path (a batch system's TMPDIR) or belong to another user.

    Raises:
        InputError: if no place for it can be used.
    """
    variable, folder = _make_folder()
    try:
        yield folder
    finally:
        if variable != "RAY_TMPDIR":
            shutil.rmtree(folder, ignore_errors=True)


def _make_folder() -> tuple[str, Path]:
    """Make the folder; return it and the variable that names its place."""
    faults: list[str] = []
    for name, parent in _parents():
        fault = f"{name}={parent}: " if name else f"{parent}: "
        try:
            folder = Path(tempfile.mkdtemp(prefix="hdm-", dir=parent))
        except OSError as error:
            faults.append(fault + (error.strerror or one_line(error)))
            continue
        reason = _unusable(folder)
        if reason is None:
            if faults:
                _log.warning("Ray's temporary files are in %s (%s)", folder, "; ".join(faults))
            return name, folder
        shutil.rmtree(folder, ignore_errors=True)
        faults.append(fault + reason)
    raise InputError(
        f"no folder for Ray's temporary files ({'; '.join(faults)}); set TMPDIR to a short path with {_MIN_FREE_MIB} MiB of room"
    )


def _parents() -> Iterator[tuple[str, str]]:
    """List the folders to try, each with the variable that it comes from."""
    for name in ("RAY_TMPDIR", "TMPDIR"):  # Ray's own order
        if os.environ.get(name):
            yield name, os.path.abspath(os.environ[name])  # noqa: PTH100 - Path.resolve would make a short link long
    yield from (("", parent) for parent in ("/tmp", "/var/tmp"))  # noqa: S108 - the folder in it is private and has a random name
    if os.environ.get("XDG_RUNTIME_DIR"):
        yield "XDG_RUNTIME_DIR", os.path.abspath(os.environ["XDG_RUNTIME_DIR"])  # noqa: PTH100 - as above


def _unusable(folder: Path) -> str | None:
    """Return why Ray cannot use a folder, or None."""
    if shlex.quote(str(folder)) != str(folder):  # Ray splits its workers' command line at spaces and quotation marks
        return "the path has other characters than letters, digits and _@%+=:,./-"
    path = folder / _LONGEST_SOCKET
    try:
        path.parent.mkdir(parents=True)
        with closing(socket.socket(socket.AF_UNIX)) as probe:
            probe.bind(str(path))
    except OSError as error:
        # "AF_UNIX path too long" has no number of its own.
        return "the path is too long for sockets" if "too long" in str(error) else f"no sockets ({error.strerror or one_line(error)})"
    finally:
        shutil.rmtree(folder / RAY, ignore_errors=True)
    free_mib = shutil.disk_usage(folder).free >> 20
    return None if free_mib >= _MIN_FREE_MIB else f"only {free_mib} MiB are free"

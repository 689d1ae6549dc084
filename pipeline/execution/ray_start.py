"""Start of a Ray of our own on this machine."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import site
import socket
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray._common.utils import get_system_memory
from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined] # a compiled module

import hdm_core
from pipeline.environment import bypass_proxies_on_loopback, temporary_environment
from pipeline.errors import InputError, one_line
from pipeline.execution.ray_folder import RAY, ray_folder
from pipeline.execution.ray_logs import await_worker, with_last_error

_log = logging.getLogger(__name__)

# Ray sets these itself; the environment of the program that uses hdm is restored.
SET_BY_RAY = ("RAY_AUTH_MODE", "PYTHONBREAKPOINT")

_TOKEN = "auth_token"  # noqa: S105 - a file name
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - only measured
_MIN_OBJECT_STORE = 80 << 20  # bytes; Ray takes no less than 75 MiB


@contextmanager
def start_ray(cpus: int | None) -> Iterator[None]:
    """Start Ray for this process, and stop it at the end.

    Only this user can reach it, and only on this machine. The environment of this process is restored at the end.

    Args:
        cpus: logical CPUs; None counts the real ones.

    Raises:
        InputError: if Ray does not start.
    """
    _check_loopback()
    try:
        with ray_folder() as folder, temporary_environment(_environment(folder), SET_BY_RAY):
            _forget_token()
            try:
                _init(folder, cpus)
                await_worker(folder)
            except Exception as error:  # Ray raises a bare Exception where one of its processes is late
                _stop(folder)
                raise InputError(f"Ray does not start on this machine: {with_last_error(error, folder)}") from None
            try:
                yield
            finally:
                _stop(folder)
    finally:
        _forget_token()


def _stop(folder: Path) -> None:
    ray.shutdown()
    (folder / _TOKEN).unlink(missing_ok=True)  # the logs may stay


def _init(folder: Path, cpus: int | None) -> None:
    """Start Ray's processes; a second time if they were too slow.

    Ray waits for each for 30 s, which the first start after a boot, or from a network disk, may exceed.
    """
    keys: dict[str, Any] = {"num_cpus": cpus, "include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    keys |= {"_temp_dir": str(folder / RAY)} | _object_store(folder)
    with _bind_loopback():
        try:
            ray.init(address="local", **keys)
        except Exception as error:
            if "timed out" not in str(error).lower():
                raise
            _log.warning("Ray is slow to start (%s), and is started once more", one_line(error, 200))
            ray.shutdown()
            ray.init(address="local", **keys)


def _check_loopback() -> None:
    """Connect to this machine over the loopback interface.

    Ray itself would wait for minutes.

    Raises:
        InputError: if that fails, or the name localhost is another machine's.
    """
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        raise InputError(f"Ray needs the loopback interface, and 127.0.0.1 is unreachable ({one_line(error)})") from None
    try:
        addresses = {str(info[4][0]) for info in socket.getaddrinfo("localhost", None)}
    except OSError:
        return  # Ray works without the name
    if not any(address == "::1" or address.startswith("127.") for address in addresses):
        raise InputError(f"Ray needs the name localhost, which is {', '.join(sorted(addresses))} here; correct /etc/hosts")


def ray_defaults() -> dict[str, str]:
    """Return the variables of Ray that are set unless the user has set them."""
    defaults = {
        "RAY_USAGE_STATS_ENABLED": "0",
        # A worker that requested no GPU still sees those of its machine, and does not use them. Without a value Ray warns that this
        # default will change.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


def _environment(folder: Path) -> dict[str, str | None]:
    """Return the changes of the environment while Ray runs."""
    changes: dict[str, str | None] = {**ray_defaults()}
    # Ray would read and write ~/.ray/auth_token, for which the home folder may be missing or read-only.
    token = folder / _TOKEN
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    changes |= {"RAY_AUTH_TOKEN_PATH": str(token), "RAY_AUTH_TOKEN": None}
    if os.environ.get("RAY_AUTH_MODE") != "disabled":
        changes["RAY_AUTH_MODE"] = None  # Ray then turns tokens on
    # With it ray.init would return only after the first workers have started, never if they end as they start (`await_worker`).
    changes |= {"RAY_prestart_worker_first_driver": "0"}
    # No address and no port of another Ray: both would be taken.
    changes |= {"PYTHONPATH": os.pathsep.join(_import_path()), "RAY_ADDRESS": None, "RAY_GCS_SERVER_PORT": None}
    proxies = dict(os.environ)
    bypass_proxies_on_loopback(proxies)
    changes |= {name: proxies[name] for name in ("NO_PROXY", "no_proxy", "no_grpc_proxy") if name in proxies}
    return changes


def _import_path() -> list[str]:
    """List the folders to import from before Python's own.

    The workers find what this process finds, also if only sys.path has its folder, or the current folder has changed since.
    """
    own = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")] + site.getsitepackages()
    packages = [str(Path(hdm_core.__path__[0]).parent), str(Path(__file__).parents[2])]
    entries = [os.path.abspath(entry) for entry in [*sys.path, *packages] if entry]  # noqa: PTH100 - links stay as they are
    own_or_unusable = [*own, *(entry for entry in entries if os.pathsep in entry or not Path(entry).is_dir())]
    return [entry for entry in dict.fromkeys(entries) if not any(map(Path(entry).is_relative_to, own_or_unusable))]


def _object_store(folder: Path) -> dict[str, Any]:
    """Return Ray's arguments for the size and the folder of its object store.

    Ray's default is 30 % of the memory, whatever the size of /dev/shm (containers have 64 MiB), and it fails where there is none.
    """
    shared = shutil.disk_usage(_SHARED_MEMORY).free if os.access(_SHARED_MEMORY, os.W_OK) else 0
    default = int(get_system_memory() * ray_constants.DEFAULT_OBJECT_STORE_MEMORY_PROPORTION)
    if shared * 0.95 >= default:
        return {}
    if shared * 0.95 >= 2 * _MIN_OBJECT_STORE:
        return {"object_store_memory": int(shared * 0.95)}
    _log.info("Ray's objects are in %s: %s has %d MiB of room", folder, _SHARED_MEMORY, shared >> 20)
    room = max(_MIN_OBJECT_STORE, shutil.disk_usage(folder).free // 2)
    return {"object_store_memory": min(default, room), "_plasma_directory": str(folder)}


def _forget_token() -> None:
    """Make this process read Ray's token and authentication mode again."""
    AuthenticationTokenLoader.instance().reset_cache()
    Config.initialize("")


@contextmanager
def _bind_loopback() -> Iterator[None]:
    """Bind a Ray started in this context to the loopback interface only.

    Ray has no option for it, but does so on systems on which it supports no clusters, by taking 127.0.0.1 for the machine's address.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before

"""Connection to a Ray cluster, and the resources that each worker requests."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import ray

import hdm_core
import pipeline
from pipeline.config.schema import ComputeConfig
from pipeline.environment import temporary_environment
from pipeline.errors import InputError, one_line
from pipeline.execution.ray_start import SET_BY_RAY, ray_defaults, start_ray

# A pass on the CPU allocates and frees tensors of many megabytes. By default glibc returns each to the kernel and faults it
# in again page by page, which costs a quarter of the time; with these thresholds a worker keeps its memory.
CPU_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 33)}

_HINT = "; a cluster with token authentication needs RAY_AUTH_MODE=token and its ~/.ray/auth_token on this machine"


def reexec_with_worker_env() -> None:
    """Restart this command with the workers' environment.

    The environment must be set before Python starts.
    """
    if any(os.environ.get(name) != value for name, value in CPU_ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ | CPU_ENVIRONMENT)  # noqa: S606 - ourselves


@dataclass(frozen=True)
class WorkerResources:
    """Number of workers, the CPUs and GPUs of each, and a note for the user."""

    workers: int
    cpus: float
    gpus: float
    note: str


@contextmanager
def cluster(address: str | None, cpus: int | None = None) -> Iterator[None]:
    """Join the cluster at an address, or start Ray on this machine.

    A Ray that is connected already is used and left running.

    Args:
        cpus: logical CPUs of a Ray that is started here; None counts the real ones.

    Raises:
        InputError: if no cluster is reachable at the address, or Ray does not start.
    """
    if ray.is_initialized():
        yield
    elif address is None:
        with start_ray(cpus):
            yield
    else:
        with _join(address):
            yield


@contextmanager
def _join(address: str) -> Iterator[None]:
    """Join a cluster, and leave it at the end.

    Raises:
        InputError: if no cluster is reachable at the address, or it refuses this driver.
    """
    # The workers run the driver's own code, whatever is installed on their nodes: a few hundred kB, sent once per node.
    code = {"py_modules": [str(Path(package.__path__[0])) for package in (hdm_core, pipeline)], "excludes": ["__pycache__"]}
    try:  # Ray itself prefers RAY_ADDRESS to `auto`
        _check_reachable(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
    except (OSError, ValueError) as error:
        raise InputError(f"compute.ray_address {address}: no Ray cluster is reachable ({one_line(error)}); start it, or unset it") from None
    with temporary_environment(ray_defaults(), SET_BY_RAY):
        try:
            ray.init(address=address, runtime_env=code, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # of any layer: no cluster at `auto`, another version of Ray or Python, no token
            ray.shutdown()
            raise InputError(f"compute.ray_address {address}: the cluster cannot be joined ({one_line(error)}){_HINT}") from None
        try:
            yield
        finally:
            ray.shutdown()


def _check_reachable(address: str) -> None:
    """Connect to HOST:PORT once.

    This is checked first because Ray itself retries a wrong address for many minutes.

    Raises:
        OSError: if nothing listens there.
    """
    place = urlsplit(address if "://" in address else f"//{address}")
    if place.hostname is not None and place.port is not None:
        socket.create_connection((place.hostname, place.port), timeout=10).close()


def allocate_workers(compute: ComputeConfig, resources: dict[str, float], shards: int) -> WorkerResources:
    """Divide a cluster's resources (Ray's names and amounts) among workers.

    Raises:
        InputError: if a worker requests more than the cluster has.
    """
    gpus, cpus = resources.get("GPU", 0.0), resources.get("CPU", 0.0)
    share = compute.gpus_per_worker
    if share > 0 and gpus > 0:
        if share > gpus:
            raise InputError(f"compute.gpus_per_worker is {share:g}, but the cluster has {gpus:g} GPUs; request less")
        # Ray places no worker across two GPUs: shares are counted per GPU.
        most = int(gpus // share) if share >= 1 else int(gpus) * int(1 / share + 1e-9)
        workers = min(most if compute.workers == "auto" else compute.workers, shards)
        return WorkerResources(workers, 0, share, f"{workers} workers with {share:g} GPU each")
    if compute.threads > cpus:
        raise InputError(f"compute.threads is {compute.threads}, but the cluster has {cpus:g} CPUs; request less")
    workers = min(int(cpus // compute.threads) if compute.workers == "auto" else compute.workers, shards)
    why = "" if share == 0 else f"; the cluster has no GPU, so gpus_per_worker {share:g} does not apply"
    return WorkerResources(workers, compute.threads, 0, f"{workers} workers on the CPU with {compute.threads} thread each{why}")

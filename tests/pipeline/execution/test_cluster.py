"""How a cluster's resources are divided among workers. Ray itself is not started here."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.schema import ComputeConfig
from pipeline.execution.cluster import allocate_workers, cluster
from tests.support.plans import refused

MANY = 1000  # shards, so that they bound nothing


def compute(**keys: Any) -> ComputeConfig:
    return ComputeConfig.model_validate(keys)


@pytest.mark.parametrize(
    ("share", "gpus", "workers"),
    [
        (0.25, 1, 4),
        (0.3, 1, 3),
        (0.1, 1, 10),
        (1 / 3, 1, 3),
        (0.5, 3, 6),
        (0.6, 2, 2),
        (0.7, 3, 3),
        (1, 1, 1),
        (1, 5, 5),
        (2.0, 5, 2),
        (4, 4, 1),
    ],
)
def test_workers_share_gpus(share: float, gpus: float, workers: int) -> None:
    staffing = allocate_workers(compute(gpus_per_worker=share), {"GPU": gpus, "CPU": 2.0}, MANY)
    assert staffing.workers == workers
    assert staffing.gpus == share
    assert staffing.cpus == 0  # a GPU worker does not wait for a free CPU
    assert staffing.note.startswith(f"{workers} workers with {share:g} GPU")


@given(st.floats(0.01, 1.0), st.integers(1, 8))
def test_shares_never_ask_for_more_than_there_is_and_leave_no_room(share: float, gpus: int) -> None:
    staffing = allocate_workers(compute(gpus_per_worker=share), {"GPU": float(gpus)}, 10**6)
    a_gpu = staffing.workers // gpus
    assert staffing.workers == a_gpu * gpus
    assert a_gpu * share <= 1 + 1e-6
    assert (a_gpu + 1) * share > 1 - 1e-6


@pytest.mark.parametrize(("threads", "cpus", "workers"), [(1, 4, 4), (2, 5, 2), (4, 4, 1)])
def test_without_gpus_workers_share_cpus(threads: int, cpus: float, workers: int) -> None:
    staffing = allocate_workers(compute(gpus_per_worker=0, threads=threads), {"CPU": cpus}, MANY)
    assert (staffing.workers, staffing.cpus, staffing.gpus) == (workers, threads, 0)
    assert "on the CPU" in staffing.note
    assert "GPU" not in staffing.note.replace("CPU", "")


def test_where_a_gpu_was_asked_for_and_there_is_none_it_says_so() -> None:
    staffing = allocate_workers(compute(gpus_per_worker=0.25), {"CPU": 2.0}, MANY)
    assert (staffing.workers, staffing.cpus, staffing.gpus) == (2, 1, 0)
    assert "2 workers on the CPU" in staffing.note
    assert "the cluster has no GPU, so gpus_per_worker 0.25 does not apply" in staffing.note


def test_gpus_that_nobody_asks_for_are_left_alone() -> None:
    assert allocate_workers(compute(gpus_per_worker=0), {"CPU": 2.0, "GPU": 1.0}, MANY).gpus == 0


@pytest.mark.parametrize("resources", [{"CPU": 8.0}, {"CPU": 8.0, "GPU": 8.0}])
@pytest.mark.parametrize(("asked", "shards", "workers"), [("auto", 3, 3), (2, 3, 2), (5, 3, 3), (3, MANY, 3)])
def test_no_more_workers_than_are_asked_for_and_than_there_are_shards(
    resources: dict[str, float], asked: int | str, shards: int, workers: int
) -> None:
    assert allocate_workers(compute(workers=asked), resources, shards).workers == workers


def test_workers_that_are_asked_for_may_come_later() -> None:
    """An elastic cluster grows: what is asked for is asked for, even where it does not fit today."""
    assert allocate_workers(compute(workers=16), {"CPU": 2.0}, MANY).workers == 16


def test_a_worker_that_fits_nowhere_is_refused() -> None:
    message = refused(lambda: allocate_workers(compute(gpus_per_worker=2), {"CPU": 8.0, "GPU": 1.0}, MANY))
    assert message == "compute.gpus_per_worker is 2, but the cluster has 1 GPUs; request less"
    message = refused(lambda: allocate_workers(compute(gpus_per_worker=0, threads=16), {"CPU": 8.0}, MANY))
    assert message == "compute.threads is 16, but the cluster has 8 CPUs; request less"
    refused(lambda: allocate_workers(compute(), {}, MANY))


@pytest.fixture
def dead_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def join(address: str) -> None:
    with cluster(address):
        raise AssertionError("it was joined")


def test_an_address_where_nobody_listens_is_a_mistake_at_once(dead_address: str) -> None:
    message = refused(lambda: join(dead_address))
    assert message.startswith(f"compute.ray_address {dead_address}: no Ray cluster is reachable")
    assert "token" not in message  # that is another mistake


def test_auto_is_the_address_in_rays_variable_where_that_is_set(dead_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would try a stale address for many minutes."""
    monkeypatch.setenv("RAY_ADDRESS", dead_address)
    assert refused(lambda: join("auto")).startswith("compute.ray_address auto: no Ray cluster is reachable")


@pytest.mark.parametrize("address", ["host:port", "head:99999", "[::1", "no.such.host.invalid:6379"])
def test_an_address_that_is_none_is_a_mistake(address: str) -> None:
    assert f"compute.ray_address {address}: no Ray cluster is reachable" in refused(lambda: join(address))


@pytest.mark.parametrize("error", [RuntimeError("Version mismatch:\n2.59 and 2.60"), ConnectionError("no running Ray"), Exception("?")])
def test_a_cluster_that_cannot_be_joined_is_one_line_with_rays_reason(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise error

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "init", init)
    before = dict(os.environ)
    message = refused(lambda: join("auto"))
    assert message.startswith(f"compute.ray_address auto: the cluster cannot be joined ({' '.join(str(error).split())})")
    assert "RAY_AUTH_MODE=token" in message
    assert dict(os.environ) == before

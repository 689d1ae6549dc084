"""Fixtures that more than one test module uses."""

from __future__ import annotations

import importlib
import os
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import settings

from tests.support.tiers import ServerGuard, longest_first, mark

# The tests of hdm_core also run where Ray, Zarr, Prefect and S3 are not installed, such as in an image for a GPU: fixtures import them.
if TYPE_CHECKING:
    from pipeline.plan import Plan
    from pipeline.runs import RunStore
    from tests.support.prefect_server import Prefect
    from tests.support.s3_server import S3

torch.set_num_threads(1)
settings.register_profile("hdm", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("hdm")
guard = ServerGuard()


def pytest_sessionstart() -> None:
    """Assert, where the wheel is tested, that no package of the checkout is in its place."""
    if os.environ.get("HDM_TEST_INSTALLED"):
        for name in ("hdm_core", "pipeline", "flows"):
            origin = Path(str(importlib.import_module(name).__file__))
            assert origin.is_relative_to(sysconfig.get_path("purelib")), f"{origin} is tested and not the installed {name}"


# Tiers


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark and order the tests."""
    for item in items:
        mark(item)
    items[:] = longest_first(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let the test start a server only if it is marked."""
    guard.test = None if item.get_closest_marker("server") else item.nodeid
    try:
        return (yield)
    finally:
        guard.test = None


# hdm_core


@pytest.fixture
def double() -> Iterator[None]:
    """Make float64 the default dtype, so that two ways to compute one thing agree to many digits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


# pipeline


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """Start one S3 server for the session."""
    from tests.support.s3_server import serve

    with serve() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Make a new folder on the server, with the server's credentials in the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.folder()


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Plan five images in shards of two, explained by HDM and Grad-CAM, with its output below tmp_path."""
    from tests.support.plans import configuration, plan_of

    return plan_of(configuration(output=str(tmp_path / "runs")))


@pytest.fixture
def store(plan: Plan) -> RunStore:
    """Give the store of the plan's run; nothing is written yet."""
    from pipeline.runs import RunStore

    return RunStore.from_config(plan.config)


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """Start one Prefect server for the session, with a work pool, all deployments and a worker."""
    from tests.support.prefect_server import serve_prefect

    with serve_prefect(tmp_path_factory.mktemp("prefect")) as server:
        yield server

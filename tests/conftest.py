"""Fixtures that more than one test module uses."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from pipeline.plan import Plan
from pipeline.runs import RunStore
from tests.support.plans import configuration, plan_of
from tests.support.prefect_server import Prefect, serve_prefect
from tests.support.s3_server import S3, serve

torch.set_num_threads(1)
settings.register_profile("hdm", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("hdm")


# hdm_core


@pytest.fixture
def double() -> Iterator[None]:
    """New tensors and networks are float64, so that two ways to compute one thing agree to many digits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


# pipeline


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """The one S3 server of the session."""
    with serve() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A folder of its own on the server, with the server's credentials in the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server.folder()


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Five images in shards of two, explained by HDM and Grad-CAM, to be written below tmp_path."""
    return plan_of(configuration(output=str(tmp_path / "runs")))


@pytest.fixture
def store(plan: Plan) -> RunStore:
    """Where the plan's run goes; nothing is there yet."""
    return RunStore.from_config(plan.config)


@pytest.fixture(scope="session")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """The session's Prefect server, with a work pool, all deployments and a worker."""
    with serve_prefect(tmp_path_factory.mktemp("prefect")) as server:
        yield server

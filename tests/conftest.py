"""Fixtures that more than one test module uses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

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

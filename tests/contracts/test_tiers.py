"""A test without the mark `server` starts no server, and the tests that take longest come first."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support.small_run import command
from tests.support.tiers import longest_first

FAILED = pytest.fail.Exception


@pytest.mark.parametrize(
    "arguments",
    [
        ["/usr/lib/ray/gcs_server", "--port=0"],
        ["weed", "server"],
        ["/usr/bin/chromium", "--headless"],
        ["python", "-m", "prefect", "server", "start"],
        command("run", "demo"),
    ],
    ids=["ray", "s3", "browser", "prefect", "hdm"],
)
def test_a_server_is_refused(arguments: list[str]) -> None:
    with pytest.raises(FAILED, match="give it the mark `server`"):
        subprocess.Popen(arguments)


def test_other_processes_may_be_started() -> None:
    assert subprocess.run(["true"], check=True).returncode == 0


@pytest.mark.server
def test_a_marked_test_may_start_one() -> None:
    with pytest.raises(NotADirectoryError):
        subprocess.Popen([f"{os.devnull}/weed"])


def test_the_heaviest_groups_come_first(request: pytest.FixtureRequest) -> None:
    items = list(request.session.items)
    ordered = longest_first(items)
    assert sorted(item.nodeid for item in ordered) == sorted(item.nodeid for item in items)
    assert longest_first(ordered) == ordered

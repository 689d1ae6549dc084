"""Tiers of the tests: what a test needs decides its marks, and what the marks allow is enforced."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from typing import Any

import pytest

# Fixtures that start a server, or use one that another test has started.
SERVER_FIXTURES = frozenset({"prefect", "s3", "s3_server"})

# Programs and modules that are a server or start one. `hdm` is among them: nearly all of its commands start Ray.
_SERVERS = re.compile(
    r"(?:^|.*/)(?:gcs_server|raylet|ray|hdm|weed|chromium|postgres|initdb|prefect|uvicorn|flows|infra\.cluster_demo)$"
    r"|from pipeline\.cli\.main import main.*",
    re.DOTALL,
)

# Seconds of a test, by what it uses, to put the groups in order; only the order of magnitude matters.
_SECONDS = {"prefect": 60.0, "faults": 30.0, "slow": 10.0, "server": 5.0}
_OTHERWISE = 0.1


class ServerGuard:
    """An audit hook that lets only tests with the mark `server` start a server. An audit hook stays until the process ends.

    Attributes:
        test: id of the test that must not start a server; None where one may be started.
    """

    def __init__(self) -> None:
        self.test: str | None = None
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.test is None or event != "subprocess.Popen":
            return
        for word in _words(arguments[0], arguments[1]):
            if _SERVERS.match(word):
                # pytest's own failure is no Exception, so that no retry catches it.
                pytest.fail(f"{self.test} starts {word}: give it the mark `server`", pytrace=False)


def mark(item: pytest.Item) -> None:
    """Add the marks that follow from others and from fixtures, and the file as the group that one process takes."""
    if "faults" in item.keywords or not SERVER_FIXTURES.isdisjoint(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.server)
    if item.get_closest_marker("xdist_group") is None:
        group = "prefect" if "prefect" in getattr(item, "fixturenames", ()) else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(group))


def longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """Order the tests by group, the longest group first, so that two processes end at about the same time."""
    groups: dict[str, list[pytest.Item]] = {}
    for item in items:
        groups.setdefault(_group(item), []).append(item)
    heaviest = sorted(groups.values(), key=lambda group: -sum(map(_seconds, group)))
    return [item for group in heaviest for item in group]


def _group(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    return "" if marker is None else str(marker.args[0])


def _seconds(item: pytest.Item) -> float:
    uses = {*getattr(item, "fixturenames", ()), *(marker.name for marker in item.iter_markers())}
    return max((seconds for name, seconds in _SECONDS.items() if name in uses), default=_OTHERWISE)


def _words(program: Any, arguments: Any) -> Iterable[str]:
    """Give the program and the arguments of a process to start, as text."""
    parts = arguments if isinstance(arguments, list | tuple) else [arguments]
    return [os.fsdecode(part) for part in (program, *parts) if isinstance(part, str | bytes | os.PathLike)]

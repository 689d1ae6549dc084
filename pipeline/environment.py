"""Changes of the process environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager

LOOPBACK = ("127.0.0.1", "localhost")
NO_PROXY = ("NO_PROXY", "no_proxy")


def bypass_proxies_on_loopback(environment: MutableMapping[str, str]) -> None:
    """Exclude the loopback interface from the proxies in an environment.

    No proxy reaches the servers of this machine. Programs differ in which of NO_PROXY and no_proxy they read first: both
    get the entries of both. gRPC prefers no_grpc_proxy where that is set.
    """
    entries = [entry.strip() for name in NO_PROXY for entry in environment.get(name, "").split(",")]
    merged = ",".join(dict.fromkeys([*filter(None, entries), *LOOPBACK]))
    environment.update(dict.fromkeys(NO_PROXY, merged))
    if environment.get("no_grpc_proxy"):
        environment["no_grpc_proxy"] += "," + ",".join(LOOPBACK)


@contextmanager
def temporary_environment(changes: Mapping[str, str | None], restored: tuple[str, ...] = ()) -> Iterator[None]:
    """Change this process's environment within a context.

    Args:
        changes: variable -> value; None unsets it.
        restored: further variables that get their former values back at the end.
    """
    before = {name: os.environ.get(name) for name in (*changes, *restored)}
    _apply(changes)
    try:
        yield
    finally:
        _apply(before)


def _apply(changes: Mapping[str, str | None]) -> None:
    for name, value in changes.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value

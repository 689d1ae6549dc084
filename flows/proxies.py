"""Proxy settings of the environment that Prefect's HTTP client refuses."""

from __future__ import annotations

import os
import sys

import httpx

from pipeline.environment import NO_PROXY, temporary_environment
from pipeline.errors import one_line

_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def drop_unusable_proxies() -> None:
    """Remove the proxy settings that Prefect's HTTP client refuses.

    A line reports each. With one of them (a SOCKS proxy without the package socksio, an IPv6 address in NO_PROXY) no client can be
    made, not even for a server on this machine.
    """
    for name in [name for name in os.environ if name.lower() in _PROXIES]:
        reason = _refusal({name: os.environ[name]})
        if reason is not None:
            sys.stderr.write(f"hdm: {name} is ignored: {reason}\n")
            del os.environ[name]
    if _refusal({name: os.environ[name] for name in NO_PROXY}) is not None:
        entries = os.environ[NO_PROXY[0]].split(",")
        usable = [entry for entry in entries if _refusal({"no_proxy": entry}) is None]
        sys.stderr.write(f"hdm: entries of NO_PROXY are ignored: {', '.join(entry for entry in entries if entry not in usable)}\n")
        os.environ.update(dict.fromkeys(NO_PROXY, ",".join(usable)))


def _refusal(proxies: dict[str, str]) -> str | None:
    """Return why no HTTP client can be made with these proxy settings, or None."""
    others = {name: None for name in os.environ if name.lower() in (*_PROXIES, "no_proxy")}
    with temporary_environment({**others, "http_proxy": "http://127.0.0.1", **proxies}):
        try:
            httpx.Client(verify=False).close()  # noqa: S501 - nothing is requested; certificates take time to read
        except (ImportError, ValueError, httpx.InvalidURL) as error:
            return one_line(error)
    return None

"""Findings about networks in memory, kept until a network changes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

from hdm_core.network.state import NetworkState

_Found = TypeVar("_Found")

_findings: WeakKeyDictionary[nn.Module, tuple[NetworkState, dict[Hashable, Any]]] = WeakKeyDictionary()


def cached(network: nn.Module, key: Hashable, check: Callable[[], _Found]) -> _Found:
    """Return the findings of an earlier call for this network and key, or check now.

    Findings are dropped when the network has changed in any way that `NetworkState` notices.
    """
    state, findings = _findings.get(network, (None, {}))
    if key not in findings or state is None or not state.holds(network):
        found = check()
        if state is None or not state.holds(network):  # after the check, whose first forward may fill a cache of the network
            state, findings = NetworkState(network), {}
        findings[key] = found
        _findings[network] = state, findings
    result: _Found = findings[key]
    return result

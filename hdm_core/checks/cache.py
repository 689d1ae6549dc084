"""Findings about networks in memory, kept until a network changes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from itertools import chain
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from hdm_core.checks.finding import Finding

_findings: WeakKeyDictionary[nn.Module, tuple[Hashable, dict[Hashable, list[Finding]]]] = WeakKeyDictionary()


def cached(network: nn.Module, key: Hashable, check: Callable[[], list[Finding]]) -> list[Finding]:
    """Return the findings of an earlier call for this network and key, or check now.

    Findings are dropped when a module or a tensor of the network was replaced, changed in place, or moved.
    """
    state = _state(network)
    before, findings = _findings.get(network, (None, {}))
    if before != state:
        findings = {}
        _findings[network] = state, findings
    if key not in findings:
        findings[key] = check()
    return findings[key]


def _state(network: nn.Module) -> Hashable:
    """Return what changes with the network's modules and weights."""
    tensors = chain(network.parameters(), network.buffers())
    return tuple(map(id, network.modules())), tuple(map(_tensor_state, tensors))


def _tensor_state(tensor: Tensor) -> Hashable:
    version = 0 if tensor.is_inference() else tensor._version  # noqa: SLF001 - torch's own counter of changes in place
    return id(tensor), version, tensor.device, tensor.dtype, tuple(tensor.shape)

"""Tracing of a network's calls by torch.fx, without effect on other threads."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from torch import fx, nn

# While torch.fx traces, it replaces methods of nn.Module for the whole process. Two traces at once could restore them in the wrong order.
TRACING = threading.RLock()

_LAYERS = (nn.modules.batchnorm._NormBase, nn.modules.conv._ConvNd, nn.Linear)  # noqa: SLF001 - they have no public base classes


class ThreadTracer(fx.Tracer):
    """Tracer that records the calls of its own thread only.

    Networks that other threads run at the same time answer as usual.
    """

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a call is recorded as one operation.

        PyTorch's layers are, and so are their subclasses: they are not traceable inside.
        """
        return super().is_leaf_module(m, module_qualified_name) or (isinstance(m, _LAYERS) and not any(m.children()))

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Record a call of this thread; run a call of another."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """Return a proxy for a parameter to this thread, the value to others."""
        if threading.get_ident() != self._thread:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def trace(network: nn.Module, tracer: ThreadTracer | None = None) -> fx.Graph:
    """Trace a network's forward into a graph.

    The result is not made a GraphModule: torch.fx stores the generated source of each for as long as the process lives.

    Raises:
        Exception: of any type, from the network's own forward or from torch.fx, if the network cannot be traced.
    """
    with TRACING:
        return (tracer or ThreadTracer()).trace(network)

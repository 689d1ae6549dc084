"""Tail of a network: the subgraph after a layer, run on given activations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import fx, nn

from hdm_core.network.tracing import ThreadTracer, trace

# Pooling, reshaping and linear layers: the output of a tail of these alone is an affine function of the activations.
_AFFINE_MODULES = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Dropout, nn.Flatten, nn.Identity, nn.Linear)
_AFFINE_CALLS = {F.adaptive_avg_pool2d, F.avg_pool2d, torch.flatten, torch.mean, "flatten", "mean"}


class _Tracer(ThreadTracer):
    """Tracer that treats the layer as a leaf."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = layer

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m is self._layer or super().is_leaf_module(m, module_qualified_name)


def extract_tail(network: nn.Module, layer: nn.Module) -> fx.Interpreter | None:
    """Extract the part of a network after the last call of a layer.

    Returns:
        An interpreter whose `run` maps activations (B, K, h, w) to logits (B, classes). None if torch.fx cannot trace the network, or a
        value computed before the layer bypasses it.
    """
    try:
        graph = trace(network, _Tracer(layer))
    except Exception:  # tracing runs the user's forward on symbols: any exception means "not traceable"
        return None
    calls = [node for node in graph.nodes if node.op == "call_module" and network.get_submodule(str(node.target)) is layer]
    if not calls:
        return None
    tail = fx.Graph()
    copies = {calls[-1]: tail.placeholder("activations")}
    descendants = {calls[-1]}
    for node in graph.nodes:
        if node.op == "get_attr":
            copies[node] = tail.node_copy(node)
        elif descendants.intersection(node.all_input_nodes):
            if not copies.keys() >= set(node.all_input_nodes):
                return None
            descendants.add(node)
            copies[node] = tail.node_copy(node, copies.__getitem__)
    # Not a GraphModule: torch.fx keeps the source of every one in memory for good.
    return fx.Interpreter(network, graph=tail) if graph.output_node() in descendants else None


def is_affine(tail: fx.Interpreter) -> bool:
    """Return whether a tail is an affine function of the activations.

    It is if it only pools, reshapes and applies linear layers.
    """
    return all(
        type(tail.module.get_submodule(str(node.target))) in _AFFINE_MODULES if node.op == "call_module" else node.target in _AFFINE_CALLS
        for node in tail.graph.nodes
        if node.op.startswith("call_")
    )

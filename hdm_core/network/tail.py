"""What follows a layer, by itself: other activations can be shown to it without computing what comes before."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import fx, nn

# Pooling, reshaping and linear layers: of these alone an answer is a constant plus something linear in the activations.
_AFFINE_MODULES = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Dropout, nn.Flatten, nn.Identity, nn.Linear)
_AFFINE_CALLS = {F.adaptive_avg_pool2d, F.avg_pool2d, torch.flatten, torch.mean, "flatten", "mean"}


class _Tracer(fx.Tracer):
    """Does not look into the layer."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = layer

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m is self._layer or super().is_leaf_module(m, module_qualified_name)


def tail_of(network: nn.Module, layer: nn.Module) -> fx.Interpreter | None:
    """The part of a network after the last call of a layer: its `run` maps activations (B, K, h, w) to logits (B, classes).

    None if torch.fx cannot trace the network, or something before the layer goes around it.
    """
    try:
        graph = _Tracer(layer).trace(network)
    except Exception:  # tracing runs the user's forward on symbols: whatever it raises means "not traceable"
        return None
    calls = [node for node in graph.nodes if node.op == "call_module" and network.get_submodule(str(node.target)) is layer]
    if not calls:
        return None
    tail = fx.Graph()
    copies = {calls[-1]: tail.placeholder("activations")}
    after = {calls[-1]}
    for node in graph.nodes:
        if node.op == "get_attr":
            copies[node] = tail.node_copy(node)
        elif after.intersection(node.all_input_nodes):
            if not copies.keys() >= set(node.all_input_nodes):
                return None
            after.add(node)
            copies[node] = tail.node_copy(node, copies.__getitem__)
    # Not a GraphModule: torch.fx never forgets the source of one.
    return fx.Interpreter(network, graph=tail) if graph.output_node() in after else None


def is_affine(tail: fx.Interpreter) -> bool:
    """Whether a tail only pools and applies linear layers, so that logits are a constant plus something linear in the activations."""
    return all(
        type(tail.module.get_submodule(str(node.target))) in _AFFINE_MODULES if node.op == "call_module" else node.target in _AFFINE_CALLS
        for node in tail.graph.nodes
        if node.op.startswith("call_")
    )

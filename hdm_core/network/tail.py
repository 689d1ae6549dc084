"""Tail of a network: the subgraph after a layer, run on given activations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from hdm_core.device_errors import is_fatal
from hdm_core.network.contrasts import differences
from hdm_core.network.logits import class_logits
from hdm_core.network.target_layer import TargetLayer
from hdm_core.network.tracing import ThreadTracer, trace
from hdm_core.network.yes_no import both_answers

# Pooling, reshaping and linear layers: the output of a tail of these alone is an affine function of the activations.
_AFFINE_MODULES = (nn.AdaptiveAvgPool2d, nn.AvgPool2d, nn.Dropout, nn.Flatten, nn.Identity, nn.Linear)
_AFFINE_CALLS = {F.adaptive_avg_pool2d, F.avg_pool2d, both_answers, differences, torch.flatten, torch.mean, "flatten", "mean"}


class _Tracer(ThreadTracer):
    """Tracer that treats the layer as a leaf."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self._layer = layer

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m is self._layer or super().is_leaf_module(m, module_qualified_name)


class Tail:
    """Part of a network after the last call of a layer.

    Args:
        interpreter: of the subgraph, from the layer's output to the logits.
        layer: the layer and the axes of its output.
    """

    def __init__(self, interpreter: fx.Interpreter, layer: TargetLayer) -> None:
        self._interpreter = interpreter
        self._layer = layer

    def run(self, activations: Tensor) -> Tensor:
        """Return the logits (B, classes) of activations (B, K, h, w)."""
        return class_logits(self._interpreter.run, self._layer.from_maps(activations, activations))

    @property
    def is_affine(self) -> bool:
        """Affine function of the activations: pooling, reshaping and linear layers only."""
        module = self._interpreter.module
        return all(
            type(module.get_submodule(str(node.target))) in _AFFINE_MODULES if node.op == "call_module" else node.target in _AFFINE_CALLS
            for node in self._interpreter.graph.nodes
            if node.op.startswith("call_")
        )


def extract_tail(network: nn.Module, layer: TargetLayer) -> Tail | None:
    """Extract the part of a network after the last call of a layer.

    Returns:
        None if torch.fx cannot trace the network, or a value computed before the layer bypasses it, such as a class token.
    """
    if layer.grid is not None and layer.grid.tokens > layer.grid.rows * layer.grid.columns:
        return None  # the other tokens are not part of the activations
    try:
        graph = trace(network, _Tracer(layer.module))
    except Exception as error:  # tracing runs the user's forward on symbols: any exception means "not traceable"
        if is_fatal(error):
            raise
        return None
    calls = [node for node in graph.nodes if node.op == "call_module" and network.get_submodule(str(node.target)) is layer.module]
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
    return Tail(fx.Interpreter(network, graph=tail), layer) if graph.output_node() in descendants else None

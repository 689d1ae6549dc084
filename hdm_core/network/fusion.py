"""Deep copy of a network with fused batch normalisation and faster layers."""

from __future__ import annotations

import copy
import gc
from collections import Counter
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hdm_core.device import LAYOUT
from hdm_core.device_errors import is_of_device
from hdm_core.messages import typed_line
from hdm_core.network.convolution import DirectConv2d
from hdm_core.network.linear import RowwiseLinear
from hdm_core.network.tracing import trace

# In place their backward needs a copy of their input: 35 kernels and 15% of the bytes of a pass of MobileNetV2 on a GPU. On CPUs a pass is
# as fast with them in place (ratios 1.01 and 0.99).
_COPIED_IN_PLACE = (nn.Hardtanh, nn.Hardswish, nn.SiLU)  # ReLU6 is a Hardtanh

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class UnfoldableError(Exception):
    """No faster copy of a network can be made; the message says why."""


def fused_copy(network: nn.Module, channels_last: bool = True) -> nn.Module:
    """Copy a network, fuse batch normalisation into convolutions, freeze the copy.

    The copy runs the network's own forward, so control flow, gradient modes and custom functions are preserved; only layers are replaced.
    The graph that torch.fx traces shows which. A layer is replaced only if its type is exactly that of PyTorch and nothing but its call
    uses it: no hook, no access to its parameters, no override of its forward. A convolution and its batch normalisation are fused only if
    each is called once and nothing else reads the convolution's output.

    Args:
        network: in evaluation mode.
        channels_last: convert 4-D weights to channels last and use `DirectConv2d`, whose output has that layout.

    Raises:
        UnfoldableError: if the network cannot be traced or copied.
        torch.OutOfMemoryError: if there is no memory for the copy.
    """
    try:
        # Forward can store what it computes in the network. While tracing these are proxies, so a copy is traced that shares parameters.
        graph = trace(copy.deepcopy(network, _without_graphs(network) | {id(parameter): parameter for parameter in network.parameters()}))
    except Exception as error:  # tracing runs the user's forward on symbols: any exception means "not traceable"
        if is_of_device(error):
            raise
        raise UnfoldableError(f"torch.fx cannot trace it ({typed_line(error, 160)})") from None
    try:
        with torch.no_grad():  # a scripted module copies its weights by an operation, which would record a graph
            fused = copy.deepcopy(network, _without_graphs(network))
        if not _refers_to(fused, network):
            _replace_layers(fused, graph, channels_last)
            return _frozen(fused, channels_last)
    except Exception as error:  # deepcopy runs the user's code, and a module of another kind can refuse any of the changes
        if is_of_device(error):
            raise
        raise UnfoldableError(f"it cannot be copied ({typed_line(error, 160)})") from None
    raise UnfoldableError("its copy refers to the network itself, as by a closure or a hook that holds a layer")


def _frozen(network: nn.Module, channels_last: bool) -> nn.Module:
    network.requires_grad_(False)
    if any(parameter.is_cuda for parameter in network.parameters()):
        for module in network.modules():
            if isinstance(module, _COPIED_IN_PLACE):
                module.inplace = False
    if channels_last:
        for tensor in [*network.parameters(), *network.buffers()]:
            if tensor.ndim == 4:  # no other rank has this layout
                tensor.data = tensor.data.contiguous(memory_format=LAYOUT)
    return network


def _without_graphs(network: nn.Module) -> dict[int, Any]:
    """Return a memo for deepcopy with the results that a forward stored.

    PyTorch refuses to copy a tensor with a graph.
    """
    values = [value for module in network.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return {id(value): value.detach() for value in values if value.grad_fn is not None}


def _replace_layers(network: nn.Module, graph: fx.Graph, direct: bool) -> None:
    modules = dict(network.named_modules(remove_duplicate=False))
    nodes = [node for node in graph.nodes if node.op == "call_module"]
    calls = Counter(id(modules[str(node.target)]) for node in nodes)
    read = {id(modules[str(node.target).rpartition(".")[0]]) for node in graph.nodes if node.op == "get_attr"}
    # By the id of the module of the copy that is replaced.
    new: dict[int, nn.Module] = {}

    def replaceable(module: nn.Module) -> bool:
        return id(module) not in read and "forward" not in vars(module) and not any(getattr(module, hooks, None) for hooks in _HOOKS)

    for node in nodes:
        norm = modules[str(node.target)]
        source = node.args[0] if len(node.args) == 1 and not node.kwargs else None
        if not isinstance(source, fx.Node) or source.op != "call_module" or len(source.users) != 1:
            continue
        convolution = modules[str(source.target)]
        once = calls[id(norm)] == calls[id(convolution)] == 1
        if once and replaceable(norm) and replaceable(convolution) and _fusible(convolution, norm):
            new[id(convolution)], new[id(norm)] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    for key in calls:
        module = new.get(key) or next(module for module in modules.values() if id(module) == key)
        if not replaceable(module):
            continue
        if type(module) is nn.Linear:
            new[key] = RowwiseLinear(module)
        elif direct and DirectConv2d.fits(module):
            new[key] = DirectConv2d(module)  # type: ignore[arg-type]
    for name, module in modules.items():
        if id(module) in new:
            network.set_submodule(name, new[id(module)].eval())


def _fusible(convolution: nn.Module, norm: nn.Module) -> bool:
    return (
        type(convolution) is nn.Conv2d
        and type(norm) is nn.BatchNorm2d
        and not convolution.training
        and not norm.training
        and norm.running_mean is not None
        and norm.running_var is not None
        and norm.num_features == convolution.out_channels
        and norm.running_mean.dtype == convolution.weight.dtype
        and norm.running_mean.device == convolution.weight.device
    )


def _refers_to(start: nn.Module, network: nn.Module) -> bool:
    """Return whether any object reachable from `start` is a module of the network.

    Classes, Python modules and global variables are not followed.
    """
    targets = {id(module) for module in network.modules()}
    seen: set[int] = set()
    stack: list[Any] = [start]
    while stack:
        reached = stack.pop()
        if id(reached) in targets:
            return True
        if id(reached) in seen or isinstance(reached, type | ModuleType | str | bytes | int | float):
            continue
        seen.add(id(reached))
        if isinstance(reached, FunctionType):
            stack += [reached.__closure__, reached.__defaults__, reached.__kwdefaults__, reached.__dict__]
        else:
            stack += gc.get_referents(reached)
    return False

"""State of a network that its folded copy was made from."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn

# A module's own containers, which are compared by their contents.
_CONTAINERS = ("_parameters", "_buffers", "_modules")
# Longer lists and dictionaries of a module are compared by their length.
_LONGEST = 64


class NetworkState:
    """Snapshot of a network that notices later changes.

    It covers modules, hooks, plain attributes, and of every parameter and buffer its identity, memory, version and sum, because
    `tensor.data.mul_(2)` changes no version. It holds no strong reference to the network.
    """

    def __init__(self, network: nn.Module) -> None:
        objects = [*network.modules(), *_tensors(network)]
        # An id means the same object only as long as that object lives.
        self._alive = [weakref.ref(each) for each in objects]
        self._values = _values(network)

    def holds(self, network: nn.Module) -> bool:
        """Return whether the network is still in this state."""
        return all(ref() is not None for ref in self._alive) and self._values == _values(network)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _values(network: nn.Module) -> tuple[Any, ...]:
    modules = [(name, id(module), type(module), _attributes(module)) for name, module in network.named_modules(remove_duplicate=False)]
    tensors = _tensors(network)
    facts = [(id(tensor), tensor.data_ptr(), _version(tensor), tensor.device, tensor.dtype, tensor.shape) for tensor in tensors]
    names = [name for name, _ in [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]]
    return modules, names, facts, _sums(tensors)


def _attributes(module: nn.Module) -> list[tuple[str, Any]]:
    """Return what is compared of a module's own attributes.

    Tensors among them are often results that a forward stores, and are left out.
    """
    return [(key, _plain(value)) for key, value in vars(module).items() if key not in _CONTAINERS and not isinstance(value, Tensor)]


def _version(tensor: Tensor) -> int | None:
    """Return the number of changes in place; None for a tensor of inference mode."""
    return None if tensor.is_inference() else tensor._version  # noqa: SLF001 - torch offers no public name


@torch.no_grad()
def _sums(tensors: list[Tensor]) -> list[str]:
    """Return the sum of each tensor as text: unlike a float, it equals itself if NaN."""
    on_device: dict[torch.device, list[Tensor]] = {}
    sums = []
    for tensor in tensors:
        if tensor.device.type == "cpu" and tensor.dtype == torch.float32:
            # numpy adds on one thread: with other work on the machine, two threads of torch waited for each other for up to 3 s.
            sums.append(repr(float(tensor.detach().numpy().sum())))
        else:
            value = (torch.view_as_real(tensor) if tensor.is_complex() else tensor).sum()
            on_device.setdefault(tensor.device, []).append(value.double())
    for values in on_device.values():  # one wait for the device, not one per tensor
        sums += map(repr, torch.stack(values).tolist())
    return sums


def _plain(value: Any) -> Any:
    """Return what of an attribute is compared.

    Functions count by their identity, other objects by their type.
    """
    if value is None or isinstance(value, bool | int | str | torch.dtype | torch.device):
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, list | tuple) and len(value) <= _LONGEST:
        return [_plain(each) for each in value]
    if isinstance(value, dict) and len(value) <= _LONGEST:
        return [(_plain(key), _plain(each)) for key, each in value.items()]
    if callable(value) and not isinstance(value, nn.Module):
        return id(value)
    return type(value), len(value) if isinstance(value, list | tuple | dict | set) else None

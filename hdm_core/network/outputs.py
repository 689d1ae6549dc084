"""Outputs of a network that are no tensor: the logits in a tuple, list or dict."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from torch import Tensor, fx, nn

from hdm_core.network.wrappers import NetworkWrapper

# A key, an attribute or an index; texts may be dotted paths, such as "heads.0".
OutputKey = int | str

_LOGITS = "logits"  # the name in Hugging Face's ModelOutput, and in torchvision's outputs with auxiliary heads
_SHOWN = 6  # entries in a message
_HINT = "name the logits with output= (classifier.output in a configuration)"


class OutputError(TypeError):
    """Error for a network that does not return logits (B, classes)."""


def find_logits(output: object, images: int | None = None) -> tuple[str, Tensor]:
    """Find the logits in an output that is no tensor.

    They are its entry `logits`, where there is one, else its only tensor (B, classes).

    Args:
        output: a tuple, list, dict, ModelOutput or dataclass, also nested, or an object with `logits`.
        images: the number B of images; None where it is unknown.

    Returns:
        The path of the entry, such as "logits" or "0", and the tensor.

    Raises:
        OutputError: if there is no such tensor, or several and none of them is named logits.
    """
    named = _entry(output, _LOGITS)
    if _is_per_class(named, images):
        return _LOGITS, named
    entries = list(_tensors(output))
    candidates = [(path, tensor) for path, tensor in entries if _is_per_class(tensor, images)]
    if len({id(tensor) for _, tensor in candidates}) == 1:  # the same tensor may have two names
        return candidates[0]
    kind = type(output).__name__
    if not candidates:
        inside = f" of {_listed(entries)}" if entries else ""
        batch = "" if images is None else f" for {images} images"
        raise OutputError(f"the network must return logits (B, classes){batch}; it returned a {kind}{inside}")
    raise OutputError(
        f"the network must return logits (B, classes); it returned a {kind} with {len(candidates)} such tensors, {_listed(candidates)}: "
        f"{_HINT}, such as {candidates[0][0]}"
    )


def logits_in(output: object) -> Tensor:
    """Return an output that is a tensor, else the logits that `find_logits` finds.

    Raises:
        TypeError: as `find_logits`.
    """
    return output if isinstance(output, Tensor) else find_logits(output)[1]


@fx.wrap
def select_output(output: Any, key: OutputKey) -> Any:
    """Return the entry of a network's output that a key names.

    Args:
        key: an index, a key or the name of an attribute, or several of them joined by dots.

    Raises:
        OutputError: if the output is a tensor, or has no such entry.
    """
    if isinstance(output, Tensor):
        raise OutputError(f"the network returned a tensor of shape {tuple(output.shape)}, which has no output {key!r}: leave output out")
    entry = output
    for part in [key] if isinstance(output, Mapping) and key in output else str(key).split("."):
        entry = _entry(entry, part)
        if entry is None:
            raise OutputError(
                f"the network returned a {type(output).__name__} without an output {key!r}; it has {_listed(list(_tensors(output)))}"
            )
    return entry


class SelectedOutput(NetworkWrapper):
    """Network of which one of several outputs is the logits.

    Attributes:
        key: the output, see `select_output`.
    """

    def __init__(self, network: nn.Module, key: OutputKey) -> None:
        super().__init__(network)
        self.key = key

    def forward(self, images: Tensor) -> Any:
        """Apply the network to (B, C, H, W) and return the output that is named."""
        return select_output(self.network(images), self.key)


def _is_per_class(value: object, images: int | None) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.ndim == 2 and images in (None, len(value)) and value.is_floating_point()


def _entry(output: object, name: OutputKey) -> Any:
    """Return an entry of an output by key, index or attribute; None if there is none."""
    number = int(name) if isinstance(name, int) or name.removeprefix("-").isdecimal() else None
    if isinstance(output, Mapping):
        return output[name] if name in output else output.get(number)
    if isinstance(output, (tuple, list)) and number is not None:
        return output[number] if -len(output) <= number < len(output) else None
    return getattr(output, str(name), None) if not isinstance(output, Tensor) else None


def _tensors(output: object, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors inside an output, with their paths."""
    if isinstance(output, Tensor):
        yield path, output
        return
    if isinstance(output, Mapping):
        entries: list[tuple[object, object]] = list(output.items())
    elif isinstance(output, (tuple, list)):
        entries = list(zip(getattr(output, "_fields", range(len(output))), output, strict=True))
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        entries = [(field.name, getattr(output, field.name)) for field in dataclasses.fields(output)]
    else:
        named = getattr(output, _LOGITS, None)
        entries = [(_LOGITS, named)] if isinstance(named, Tensor) else []
    for key, value in entries:
        yield from _tensors(value, f"{path}.{key}" if path else str(key))


def _listed(entries: Sequence[tuple[str, Tensor]]) -> str:
    """Return paths and shapes of an output's tensors for a message."""
    more = len(entries) - _SHOWN
    shown = ", ".join(f"{path} {tuple(tensor.shape)}" for path, tensor in entries[:_SHOWN])
    return (shown or "no tensor") + (f" and {more} more" if more > 0 else "")

"""Read weights from a file that holds other objects, none of which is created."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, Self

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

_SHOWN = 5  # names in a message


class StandIn(list[Any]):
    """Object in place of one whose class is not loaded; it ignores its contents."""

    def __new__(cls, *_arguments: Any, **_named: Any) -> Self:
        """Return an empty one, whatever the class in its place is called with."""
        return super().__new__(cls)

    def __init__(self, *_arguments: Any, **_named: Any) -> None:
        super().__init__()

    def __setstate__(self, _state: Any) -> None:
        """Ignore the attributes."""


class _DictStandIn:
    """Class whose calls return an OrderedDict.

    While unpickling only Python's own dicts may be filled, and among these an OrderedDict alone may be given attributes.
    """

    def __new__(cls, *_arguments: Any, **_named: Any) -> Any:
        """Return an empty dict, whatever the class in its place is called with."""
        return OrderedDict()


def load_weights(path: Path) -> Any:
    """Load the tensors and plain containers of a `torch.save` file.

    A training's checkpoint often holds more, such as the arguments of a script or Lightning's hyperparameters and callbacks. Nothing
    of it is imported or called: empty objects stand in their place.

    Raises:
        pickle.UnpicklingError: if the file is no checkpoint, or holds objects that nothing can stand in for.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        names = foreign_names(path)
        if not names:
            raise
        stand_ins = [(_DictStandIn if "dict" in name.rpartition(".")[2].lower() else StandIn, name) for name in names]
    with safe_globals(stand_ins):  # type: ignore[arg-type]
        return torch.load(path, map_location="cpu", weights_only=True)


def foreign_names(path: Path) -> list[str]:
    """Return the names of classes and functions in a file that are no weights, sorted.

    The list is empty if the file is no checkpoint in torch's zip format.
    """
    try:
        return sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:  # pickle's disassembler raises errors of many types for a damaged file
        return []


def describe_foreign(path: Path) -> str:
    """Return in words what else a file holds; empty if that is not known."""
    names = foreign_names(path)
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")

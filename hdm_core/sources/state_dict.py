"""A user's weights: a state dict from a file, put into a network or refused in one line."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

# How a training script may have wrapped it.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_DATA_PARALLEL = "module."
_NAMED = 3  # keys that a message spells out

Classes = int | Sequence[str] | str | Path


def read_classes(classes: Classes) -> int | tuple[str, ...]:
    """Names or a number of classes; a path is a text file with a name a line.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if there is no class, or the file is no text.
    """
    if isinstance(classes, (str, Path)):
        try:
            lines = Path(classes).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise ValueError(f"{classes} is no text file: write a class's name a line") from None
        found: int | tuple[str, ...] = tuple(line.strip() for line in lines if line.strip())
    else:
        found = classes if isinstance(classes, int) else tuple(classes)
    if not found or (isinstance(found, int) and found < 1):
        raise ValueError(f"classes: {classes!r} names no class; give a number, names, or a file with a name a line")
    return found


def read_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .safetensors file or of one that `torch.save` wrote, by name. Nothing is unpickled but tensors.

    A state dict in {"state_dict": ...} or {"model": ...} and the prefix `module.` of a network trained in parallel are undone.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is damaged, or holds more than weights.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}") from None
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"{path} holds more than weights, or is no file of torch.save: save model.state_dict() alone") from None
    except (RuntimeError, EOFError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[0] if str(error) else 'it ends too early'}") from None
    for key in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
            break
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} holds no state dict: save model.state_dict()")
    prefix = _DATA_PARALLEL if all(str(key).startswith(_DATA_PARALLEL) for key in found) else ""
    return {str(key).removeprefix(prefix): value for key, value in found.items()}


def fit_state(module: nn.Module, state: Mapping[str, Tensor], path: str | Path, what: str) -> None:
    """Puts weights into a network.

    Args:
        path, what: the file and the network, as a message names them.

    Raises:
        ValueError: if keys are missing or unexpected, or tensors have other shapes.
    """
    own = module.state_dict()
    shapes = [
        f"{key} is {tuple(state[key].shape)} and should be {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    parts = (("missing", [key for key in own if key not in state]), ("unexpected", [key for key in state if key not in own]), ("", shapes))
    problems = [f"{head} {_first(found)}".strip() for head, found in parts if found]
    if problems:
        raise ValueError(f"{path} does not hold the weights of {what}: {'; '.join(problems)}")
    module.load_state_dict(dict(state))


def _first(texts: Sequence[str]) -> str:
    """The first few of them, and how many more there are."""
    more = len(texts) - _NAMED
    return ", ".join(texts[:_NAMED]) + (f" and {more} more" if more > 0 else "")

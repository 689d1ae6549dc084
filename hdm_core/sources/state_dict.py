"""Read a user's state dict from a file and load it into a network."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

# Keys under which training scripts store the state dict.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_DATA_PARALLEL = "module."
_KEYS_SHOWN = 3  # in a message

Classes = int | Sequence[str] | str | Path


def read_classes(classes: Classes) -> int | tuple[str, ...]:
    """Return names or number of classes; a path is a file with one name per line.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if there is no class, or the file is not UTF-8 text.
    """
    if isinstance(classes, (str, Path)):
        try:
            lines = Path(classes).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise ValueError(f"{classes} is no text file: write one class name per line") from None
        parsed: int | tuple[str, ...] = tuple(line.strip() for line in lines if line.strip())
    else:
        parsed = classes if isinstance(classes, int) else tuple(classes)
    if not parsed or (isinstance(parsed, int) and parsed < 1):
        raise ValueError(f"classes: {classes!r} names no class; give a number, names, or a file with one name per line")
    return parsed


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file or a `torch.save` file, by name.

    Only tensors are unpickled. A state dict inside {"state_dict": ...} or {"model": ...} is unwrapped, and the prefix `module.` of a
    network trained in parallel is removed.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is damaged, or holds more than weights.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}") from None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(f"{path} holds more than weights, or is no file of torch.save: save model.state_dict() alone") from None
    except (RuntimeError, EOFError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[0] if str(error) else 'it ends too early'}") from None
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{path} holds no state dict: save model.state_dict()")
    prefix = _DATA_PARALLEL if all(str(key).startswith(_DATA_PARALLEL) for key in content) else ""
    return {str(key).removeprefix(prefix): value for key, value in content.items()}


def fit_state(module: nn.Module, state: Mapping[str, Tensor], path: str | Path, what: str) -> None:
    """Load weights into a network.

    Args:
        path, what: names of the file and the network for error messages.

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
    problems = [f"{head} {_first_few(texts)}".strip() for head, texts in parts if texts]
    if problems:
        raise ValueError(f"{path} does not hold the weights of {what}: {'; '.join(problems)}")
    module.load_state_dict(dict(state))


def _first_few(texts: Sequence[str]) -> str:
    """Join the first few texts, and count the rest."""
    more = len(texts) - _KEYS_SHOWN
    return ", ".join(texts[:_KEYS_SHOWN]) + (f" and {more} more" if more > 0 else "")

"""Read a user's state dict from a file and load it into a network."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hdm_core.class_names import check_spellings
from hdm_core.integers import as_integer
from hdm_core.sources.paths import local_path
from hdm_core.sources.stand_ins import StandIn, describe_foreign, load_weights
from hdm_core.sources.state_keys import add_counters, describe_prefixes, match_keys

# Keys under which training scripts store the state dict, and those of the moving average of its weights.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "network", "net", "weights", "module")
_AVERAGES = ("state_dict_ema", "model_ema", "ema_state_dict", "model_ema_state_dict", "ema_model", "ema")
_KEYS_SHOWN = 3  # in a message

Classes = int | Sequence[str] | str | Path


def read_classes(classes: Classes) -> int | tuple[str, ...]:
    """Return names or number of classes; a path is a file with one name per line.

    A file that ends in .json holds a list of names, or names by number as in `id2label`. A byte order mark, blank lines and spaces around
    names are ignored. Two classes may have one name, as ImageNet's two cranes do.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if there is no class, the file is not UTF-8 text, or two names are one name in two spellings.
        TypeError: if a number is no integer, or a name no text.
    """
    if isinstance(classes, (str, Path)):
        names = _read_names(local_path(classes))
    elif isinstance(classes, (Sequence, np.ndarray)) and getattr(classes, "ndim", None) != 0:
        names = tuple(classes)
    else:
        count = as_integer("classes", classes)
        names = ()
        if count >= 1:
            return count
    if not names:
        raise ValueError(f"classes: {classes!r} names no class; give a number, names, or a file with one name per line")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"classes: {name!r} is no name: give texts, or their number alone")
    try:
        check_spellings(names)
    except ValueError as error:
        raise ValueError(f"classes: {error}") from None
    return tuple(map(str, names))


def _read_names(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # UTF-16 without a byte order mark is valid UTF-8
        raise ValueError(f"{path} is no text file in UTF-8: save it as UTF-8, one class name per line")
    if path.suffix.lower() != ".json":
        return tuple(line.strip() for line in text.split("\n") if line.strip())
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if isinstance(content, dict) and sorted(content) == sorted(map(str, range(len(content)))):
        content = [content[str(number)] for number in range(len(content))]
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise ValueError(f'{path}: write a list of class names, or {{"0": name, "1": name, ...}}')
    return tuple(content)


def read_state(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors file or a `torch.save` file, by name.

    Only tensors are unpickled; other objects beside the weights, such as Lightning's hyperparameters, are skipped. A state dict inside
    {"state_dict": ...}, {"model": ...} or another usual key is unwrapped, also the moving average of the weights if it is alone.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if the file is damaged, holds no state dict, or holds the weights and their average.
    """
    path = local_path(path)
    if path.suffix.lower() == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged: {error}") from None
    try:
        content = load_weights(path)
    except pickle.UnpicklingError:
        foreign = describe_foreign(path)
        holds = f"objects that cannot be skipped ({foreign})" if foreign else "more than weights, or is no file of torch.save"
        raise ValueError(f"{path} holds {holds}: save model.state_dict() alone") from None
    except (RuntimeError, EOFError, zipfile.BadZipFile, KeyError, ValueError) as error:
        if "TorchScript" in str(error):
            raise ValueError(f"{path} is a TorchScript archive: save model.state_dict() instead") from None
        raise ValueError(f"{path} is damaged: {str(error).splitlines()[0] if str(error) else 'it ends too early'}") from None
    state = _unwrap(content, path)
    if isinstance(state, StandIn):
        raise ValueError(  # noqa: TRY004 - a file of the wrong kind
            f"{path} holds a pickled object and no state dict ({describe_foreign(path)}): save model.state_dict()"
        )
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{path} holds no state dict: save model.state_dict()")
    others = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"{path} holds no state dict, of which all entries are tensors, but {_first_few(others)}: save model.state_dict()")
    return {str(key): value for key, value in state.items()}


def _unwrap(content: Any, path: Path) -> Any:
    """Return the state dict inside the usual keys of training scripts.

    Raises:
        ValueError: if there are weights and their moving average, which are two networks.
    """
    while isinstance(content, Mapping):
        plain, average = (
            next((key for key in keys if isinstance(content.get(key), Mapping) and content[key]), None) for keys in (_WRAPPERS, _AVERAGES)
        )
        if plain is not None and average is not None:
            raise ValueError(f"{path} holds two networks, {plain!r} and {average!r}: save the state dict of the one that you use alone")
        if plain is None and average is None:
            break
        content = content[plain or average]
    return content


def fit_state(module: nn.Module, state: Mapping[str, Tensor], path: str | Path, what: str) -> None:
    """Load weights into a network, and switch it to evaluation mode.

    Prefixes of wrappers are removed from the keys, see `match_keys`.

    Args:
        path, what: names of the file and the network for error messages.

    Raises:
        ValueError: if keys are missing or unexpected, or tensors have other shapes or hold no plain numbers.
    """
    own = module.state_dict()
    renamed = add_counters(match_keys(state, own), own)
    wrong = [text for key, value in own.items() if key in renamed and (text := _misfit(key, renamed[key], value))]
    missing, unexpected = [key for key in own if key not in renamed], [key for key in renamed if key not in own]
    parts = (("missing", missing), ("unexpected", unexpected), ("", wrong))
    problems = [f"{head} {_first_few(texts)}".strip() for head, texts in parts if texts]
    if problems:
        hint = describe_prefixes(state, own)
        raise ValueError(f"{path} does not hold the weights of {what}: {'; '.join(problems)}{hint}")
    own.update(renamed)  # own has the versions of its modules, which MNASNet reads and a plain dict lacks
    module.load_state_dict(own)
    module.eval()


def _misfit(key: str, value: Tensor, own: Tensor) -> str:
    """Return why a tensor cannot be a network's, or an empty text."""
    if value.shape != own.shape:
        return f"{key} is {tuple(value.shape)} and should be {tuple(own.shape)}"
    if value.is_meta or value.is_quantized or value.layout is not torch.strided:
        kind = "without values (meta)" if value.is_meta else "quantised" if value.is_quantized else "sparse"
        return f"{key} is {kind} and should be a dense tensor"
    if (value.is_floating_point(), value.is_complex()) != (own.is_floating_point(), own.is_complex()):
        return f"{key} is {value.dtype} and should be {own.dtype}"
    return ""


def _first_few(texts: Sequence[str]) -> str:
    """Join the first few texts, and count the rest."""
    more = len(texts) - _KEYS_SHOWN
    return ", ".join(texts[:_KEYS_SHOWN]) + (f" and {more} more" if more > 0 else "")

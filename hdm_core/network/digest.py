"""Digest of a network's state dict, also of entries that are no tensors."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from hdm_core.device_errors import is_of_device

_HINT = "let get_extra_state return numbers, texts, tensors, and lists, sets or dicts of them"


def state_digest(network: nn.Module) -> str:
    """Return a sha256 over name, shape, type and values of a network's state.

    The state is that of `state_dict`: parameters, persistent buffers and what `get_extra_state` returns. It does not depend on the
    layout in memory, the device, or the order in which sets and dicts were filled.

    Raises:
        ValueError: if a tensor has no values, or an entry is of a type without a digest.
    """
    digest = hashlib.sha256()
    try:
        state = network.state_dict(keep_vars=True)  # lazy parameters cannot be detached
    except Exception as error:  # get_extra_state is the user's code
        if is_of_device(error):
            raise
        raise ValueError(f"the network's state_dict() raises {type(error).__name__}: {' '.join(str(error).split())}") from None
    for name in sorted(state):
        value = state[name]
        try:
            if isinstance(value, (UninitializedBuffer, UninitializedParameter)):
                raise ValueError("it is a lazy parameter without a shape; run the network once before")  # noqa: TRY004, TRY301
            if _is_dense(value):
                digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
                digest.update(_bytes_of(value))
            else:
                digest.update(f"{name}\n".encode() + _encode(value))
        except (ValueError, RuntimeError) as error:
            if is_of_device(error):
                raise
            reason = "it contains itself" if isinstance(error, RecursionError) else " ".join(str(error).split())
            raise ValueError(f"the network's state {name!r} has no digest: {reason}") from None
    return digest.hexdigest()


def _is_dense(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_quantized


def _bytes_of(tensor: Tensor) -> bytes:
    """Return the values of a dense tensor in the order of its indices."""
    if tensor.is_meta:
        raise ValueError("it is on the device meta and has no values; load the weights first")
    # A conjugated or negated view has a flag instead of its values, and torch refuses its bytes.
    dense = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return dense.reshape(-1).view(torch.uint8).numpy().tobytes()


def _encode(value: Any) -> bytes:
    """Encode a value so that different values, also nested ones, have different bytes.

    Each encoding begins with its type and its length. Pickle would not do: its bytes depend on the identity of objects, and on the
    order of sets, which differs between processes.
    """
    kind, data = _kind_and_bytes(value)
    return f"{kind} {len(data)}\n".encode() + data


def _kind_and_bytes(value: Any) -> tuple[str, bytes]:
    if isinstance(value, Tensor):
        return _encode_tensor(value)
    for types, kind, encode in _ENCODERS:
        if isinstance(value, types):
            return kind, encode(value)
    raise ValueError(f"an object of type {type(value).__name__} has no fixed bytes; {_HINT}")


def _encode_tensor(tensor: Tensor) -> tuple[str, bytes]:
    if _is_dense(tensor):
        return f"tensor {tuple(tensor.shape)} {tensor.dtype}", _bytes_of(tensor)
    head = f"{tensor.layout} {tuple(tensor.shape)} {tensor.dtype}"
    if tensor.is_quantized:
        scheme = tensor.qscheme()
        if scheme in (torch.per_tensor_affine, torch.per_tensor_symmetric):
            scales: list[Any] = [tensor.q_scale(), tensor.q_zero_point()]
        else:
            scales = [tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points(), tensor.q_per_channel_axis()]
        return f"{head} {scheme}", _encode([tensor.int_repr(), *scales])
    if tensor.layout is torch.sparse_coo:
        tensor = tensor.detach().coalesce()
        return head, _encode([tensor.indices(), tensor.values()])
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return head, _encode([tensor.crow_indices(), tensor.col_indices(), tensor.values()])
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return head, _encode([tensor.ccol_indices(), tensor.row_indices(), tensor.values()])
    return head, _encode(tensor.to_dense())


def _encode_all(values: Iterable[Any]) -> bytes:
    return b"".join(map(_encode, values))


def _encode_mapping(values: Mapping[Any, Any]) -> bytes:
    return b"".join(sorted(_encode(key) + _encode(value) for key, value in values.items()))


def _encode_array(array: np.ndarray[Any, Any]) -> bytes:
    if array.dtype.hasobject:
        return _encode([array.shape, array.tolist()])
    return f"{array.shape} {array.dtype.str}\n".encode() + array.tobytes()


def _as_text(value: object) -> bytes:
    return str(value).encode()


# Type -> its name in the encoding, and its bytes. A bool is also an int, so it comes first.
_ENCODERS: tuple[tuple[type | tuple[type, ...], str, Callable[[Any], bytes]], ...] = (
    (type(None), "none", lambda _: b""),
    (bool, "bool", _as_text),
    (int, "int", lambda value: str(int(value)).encode()),
    (float, "float", lambda value: struct.pack("<d", value)),
    (complex, "complex", lambda value: struct.pack("<dd", value.real, value.imag)),
    (str, "str", lambda value: value.encode("utf-8", "surrogatepass")),
    ((bytes, bytearray, memoryview), "bytes", bytes),
    (io.BytesIO, "bytes", lambda value: value.getvalue()),
    ((np.ndarray, np.generic), "array", lambda value: _encode_array(np.asarray(value))),
    ((torch.dtype, torch.device, torch.layout, torch.memory_format, torch.qscheme), "torch", _as_text),
    (Mapping, "dict", _encode_mapping),
    (AbstractSet, "set", lambda value: b"".join(sorted(map(_encode, value)))),
    ((list, tuple), "list", _encode_all),
    (torch.ScriptObject, "script", lambda value: _encode(value.__getstate__())),  # packed weights of quantised layers
)

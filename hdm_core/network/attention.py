"""Attention maps of a network, read while they are computed in the open.

The fused functions of torch return no attention map: for as long as the context lasts they are replaced by the computation that they stand
for.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

_SOFTMAX = (F.softmax, torch.softmax, Tensor.softmax)
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)
_FUSED = inspect.signature(lambda query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False: None)
# Arguments of multi_head_attention_forward with which it computes more than attention of tokens to each other.
_UNUSUAL = ("bias_k", "bias_v", "key_padding_mask", "attn_mask", "static_k", "static_v")


class AttentionReader(TorchFunctionMode):
    """Context in which a network's attention maps are read.

    Each is softmax(Q K^T / sqrt(d)) of tokens to each other, (B, heads, N, N), detached, and used by the network. Attention of other
    queries after them, such as that of a class token or a pooling query to all patches, is left as it is.

    Args:
        read: called with each attention map, in the order of the network's calls.
        leaves: whether the maps are leaves of the graph that require a gradient.

    Attributes:
        missed: number of attentions whose maps are not read: of fewer queries or keys than tokens, with masks or added keys, or in another
            layout.
    """

    def __init__(self, read: Callable[[Tensor], None], leaves: bool = False) -> None:
        super().__init__()
        self.missed = 0
        self._oblong = 0  # maps (B, heads, M, N) that no square one followed yet
        self._read = read
        self._leaves = leaves

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return self._fused(_FUSED.bind(*args, **kwargs).arguments)
        if func is F.multi_head_attention_forward:
            bound = _MULTI_HEAD.bind(*args, **kwargs)
            bound.apply_defaults()
            if _is_plain(bound.arguments):
                return self._multi_head(bound.arguments)
            self.missed += bound.arguments["query"].shape == bound.arguments["key"].shape
        result = func(*args, **kwargs)
        return self._leaf(result) if func in _SOFTMAX and _is_map(result, args, kwargs) else result

    def _leaf(self, attention: Tensor) -> Tensor:
        """Read a map and return the tensor that the network continues with."""
        if attention.shape[-2] != attention.shape[-1]:
            self._oblong += 1
            return attention
        self.missed += self._oblong
        self._oblong = 0
        leaf = attention.detach().requires_grad_(self._leaves)
        self._read(leaf)
        return leaf

    def _fused(self, given: dict[str, Any]) -> Tensor:
        """Compute scaled_dot_product_attention in the open, without dropout."""
        query: Tensor = given["query"]
        key, value = given["key"], given["value"]
        if given.get("enable_gqa"):
            key, value = (each.repeat_interleave(query.shape[-3] // each.shape[-3], -3) for each in (key, value))
        scale = given.get("scale")
        scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
        mask = given.get("attn_mask")
        if given.get("is_causal"):
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype is torch.bool else scores + mask
        attention: Tensor = scores.softmax(-1)
        if attention.ndim == 4:
            attention = self._leaf(attention)
        else:
            self.missed += 1
        return torch.matmul(attention, value)

    def _multi_head(self, given: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """Compute multi_head_attention_forward in the open, for tokens (N, B, K)."""
        tokens, heads = given["query"], given["num_heads"]
        count, batch, channels = tokens.shape
        projected = F.linear(tokens, given["in_proj_weight"], given["in_proj_bias"])
        query, key, value = (each.reshape(count, batch, heads, -1).permute(1, 2, 0, 3) for each in projected.chunk(3, -1))
        attention = self._leaf((query @ key.mT / math.sqrt(channels // heads)).softmax(-1))
        mixed = (attention @ value).permute(2, 0, 1, 3).reshape(count, batch, channels)
        output = F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"])
        if not given["need_weights"]:
            return output, None
        return output, attention.mean(1) if given["average_attn_weights"] else attention


def _is_plain(given: dict[str, Any]) -> bool:
    """Return whether tokens attend to each other, and to nothing else.

    Args:
        given: arguments of multi_head_attention_forward.
    """
    plain = not given["add_zero_attn"] and not given["use_separate_proj_weight"] and not any(given[name] is not None for name in _UNUSUAL)
    return plain and given["query"].ndim == 3 and given["query"] is given["key"] is given["value"]


def _is_map(result: object, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Return whether the result of a softmax may be attention.

    It has four axes, of which the last sums to one.
    """
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return isinstance(result, Tensor) and result.ndim == 4 and axis in (-1, 3)

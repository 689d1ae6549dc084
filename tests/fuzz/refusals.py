"""Refusals that a classifier of the grammar deserves: all others are of networks that are right and ordinary."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import torch

from hdm_core import METHODS
from tests.fuzz.agreement import ATTENTION, CAMS, GRADIENTS
from tests.fuzz.grammar import Spec, core

_ALL = (*METHODS, "metrics")
_NO_GRADIENT = ("odd:no_grad", "odd:detach", "odd:data")
# FullGrad knows no constants of these.
_INCOMPLETE = (
    *(f"norm:{name}" for name in ("instance", "instance_tracked", "group", "layer", "layer_last", "rms_last", "local_response")),
    *("norm:unit_length", "act:sin", "act:square", "act:swish_function", "head:layer_norm", "head:cosine", "head:tokens"),
    *("head:channels_last", "ending:log_softmax", "extra:attention", "extra:attention_written_out", "extra:windowed_attention"),
    *("extra:channels_last", "odd:custom_function", "odd:half_detached", "odd:checkpoint", "odd:checkpoint_reentrant"),
)
# Maps that are permuted views, whose gradient torch's batch normalisation gets wrong for one image.
_PERMUTED = (
    *("conv:unfold", "conv:linear", "extra:attention", "extra:attention_written_out", "extra:windowed_attention", "extra:channels_last"),
    *("norm:layer_last", "norm:rms_last", "extra:transposed", "head:tokens"),
)
# Methods that take the gradient of an image alone.
_SINGLE = [method for method in GRADIENTS if not METHODS[method].pairs_images]
# In a map of so few rows or columns a change at one edge of the image may reach the opposite edge.
_TINY = 5


@dataclass(frozen=True)
class Rule:
    """Words of a refusal, the methods that may say so, and the parts of which a classifier must have one."""

    words: str
    subjects: Collection[str]
    parts: Collection[str]


_RULES = (
    Rule("depend on the others in its batch", _ALL, ("norm:batch_no_statistics", "odd:batch_mean", "odd:batch_statistics")),
    Rule("running statistics", ("full_grad",), ("norm:batch_no_statistics", "odd:batch_statistics")),
    Rule("other logits in a second call", _ALL, ("odd:random_dropout", "odd:noise")),
    # Logits of a float32 network that differ less than they are rounded at a constant of 1.1.
    Rule("which is rounding of torch.float32 at their size", _ALL, ("ending:log_softmax",)),
    Rule("probabilities (every row", _ALL, ("ending:softmax",)),
    Rule("ends in a sigmoid", _ALL, ("ending:sigmoid",)),
    Rule("one logit", _ALL, ("classes:1",)),
    Rule("no gradient of the", (*GRADIENTS, *CAMS, *ATTENTION), _NO_GRADIENT),
    # A ReLU in place behind the ReLU of such a norm: torch itself raises.
    Rule("an operation in place overwrites", (*GRADIENTS, *CAMS, *ATTENTION), ("norm:activated",)),
    Rule("only a part of the gradient", ("full_grad",), ("odd:half_detached",)),
    Rule("differs between the image alone and beside others", (*_SINGLE, *CAMS, *ATTENTION), _PERMUTED),
    Rule("TorchScript", (*CAMS, *ATTENTION, "full_grad", "deeplift"), ("wrapper:traced", "extra:scripted")),
    Rule("checkpoint", (*GRADIENTS, *CAMS, *ATTENTION), ("odd:checkpoint", "odd:checkpoint_reentrant")),
    # Its maps may have sizes that no square patch gives.
    Rule("classifies from tokens", CAMS, ("head:tokens",)),
    Rule("do not sum to its logits", ("full_grad",), _INCOMPLETE),
)


def _smallest_side(spec: Spec) -> int:
    """Return the smaller side of the last maps (B, K, h, w)."""
    with torch.compiler.set_stance("force_eager"):  # a compiled stage meets a graph of other stages, which torch warns of
        return min(core(spec).stages(spec.images()).shape[2:])


def unexpected(spec: Spec, subject: str, words: str) -> bool:
    """Return whether a method refuses a classifier that it should explain, or for another reason than the true one."""
    if {"wrapper:traced", "extra:attention"} <= spec.names and "no gradient of the" in words:
        return False  # the trace of a forward without gradients has the attention's fast path, which has no backward
    if subject in ATTENTION and "choose another method" in words:
        return False  # the grammar's attention is between pixels of maps (B, K, h, w), which no block returns as tokens
    if "follow the rows and columns" in words and subject in CAMS:
        return _smallest_side(spec) > _TINY
    return not any(rule.words in words and subject in rule.subjects and not spec.names.isdisjoint(rule.parts) for rule in _RULES)

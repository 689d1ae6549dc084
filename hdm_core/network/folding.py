"""Cached copy of a network: the same logits, a faster gradient to the input."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from hdm_core.device import LAYOUT, Precision
from hdm_core.device_errors import is_fatal, is_of_device, is_out_of_memory
from hdm_core.messages import typed_line
from hdm_core.network.agreement import Answer, answer, gradients_disagree, logits_disagree, noise_like, spread
from hdm_core.network.bfloat16 import bfloat16_copy
from hdm_core.network.contrasts import Contrasts
from hdm_core.network.fusion import UnfoldableError, fused_copy
from hdm_core.network.logits import class_logits
from hdm_core.network.state import NetworkState


@dataclass(frozen=True)
class Folded:
    """Network to compute maps with.

    Attributes:
        network: a faster copy, or the network itself.
        reason: why the network is used unfolded, in one line; None if it is folded.
    """

    network: nn.Module
    reason: str | None = None


class ContiguousInput(nn.Module):
    """Network whose input is converted to the contiguous layout.

    A forward that calls `view` on activations fails with channels last, which the masked images have.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.training = network.training

    def forward(self, images: Tensor) -> Tensor:
        """Apply the network to (B, C, H, W)."""
        logits: Tensor = self.network(images.contiguous())
        return logits


@dataclass(frozen=True)
class _Cached:
    """Result of folding a network in one state; it holds no reference to the network.

    Attributes:
        copy: the folded copy; None if the network is used unfolded, for `reason`.
        noise_logits: the network's logits for noise, (N, classes); None without a copy.
        contiguous: the network, used unfolded, needs a contiguous input.
        in_bfloat16: the copy in bfloat16, or the copy itself where autocast is better; None until it is needed.
    """

    state: NetworkState
    copy: nn.Module | None = None
    noise_logits: Tensor | None = None
    reason: str | None = None
    contiguous: bool = False
    in_bfloat16: nn.Module | None = None

    def folded(self, network: nn.Module, precision: Precision) -> Folded:
        if self.copy is not None:
            return Folded(self.in_bfloat16 or self.copy if precision == "bfloat16" else self.copy)
        return Folded(ContiguousInput(network) if self.contiguous else network, self.reason)

    def with_bfloat16(self, images: Tensor) -> _Cached:
        """Return the same with a copy in bfloat16, if there is none yet."""
        if self.copy is None or self.in_bfloat16 is not None:
            return self
        in_bfloat16 = bfloat16_copy(self.copy, noise_like(images)) or self.copy
        _COPIES.add(in_bfloat16)
        return replace(self, in_bfloat16=in_bfloat16)


_CACHE: WeakKeyDictionary[nn.Module, _Cached] = WeakKeyDictionary()
_COPIES: WeakSet[nn.Module] = WeakSet()
_LOCK = threading.Lock()


def is_folded(network: nn.Module) -> bool:
    """Return whether a network is a copy by `fold_network`, or contrasts of one.

    The forward of a copy was seen to leave its parameters, buffers and attributes unchanged, and to take the same way for all images.
    """
    return (network.network if isinstance(network, Contrasts) else network) in _COPIES


def fold_network(network: nn.Module, images: Tensor, precision: Precision = "float32") -> Folded:
    """Return a faster copy of a network in evaluation mode, or why there is none.

    A copy is made once and checked on noise, in logits and gradient. It is made again if the network has changed. On every call its logits
    for `images` are compared with the network's. If they disagree, it is made again; if that disagrees too, the network is used unfolded.

    Args:
        network: in evaluation mode.
        images: (B, C, H, W), some that are to be explained.
        precision: "bfloat16" asks for a copy with weights in bfloat16, for use in or outside of autocast. A copy in float32 is returned
            where none can be made, for use under autocast, see `bfloat16_copy`.

    Raises:
        TypeError: if the network does not return logits (B, classes).
    """
    if network.training:
        return Folded(network, "it is in training mode")
    devices = [images.device] if images.device.type == "cuda" else []
    # What is made in inference mode has no gradient. A network that draws random numbers must not answer otherwise after a check.
    with torch.inference_mode(False), torch.random.fork_rng(devices=devices):
        images = images.detach().nan_to_num(0, 0, 0).contiguous()  # with NaN logits every copy would seem to agree
        with _LOCK:
            cached = _CACHE.get(network)
        try:
            unchanged = cached is not None and cached.state.holds(network)
            state = cached.state if cached is not None and unchanged else NetworkState(network)
        except Exception as error:  # such as tensors without memory or without a sum
            if is_fatal(error):
                raise
            return _unfolded(network, images, f"its state cannot be read ({typed_line(error, 160)})")
        try:
            reason = "there is no copy" if cached is None or not unchanged else _disagreement(cached, network, images)
            if cached is None or reason is not None:
                cached = _fold(network, state, images)
                reason = _disagreement(cached, network, images)
            if precision == "bfloat16":
                cached = cached.with_bfloat16(images)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            # Not stored: there may be memory next time.
            return _unfolded(network, images, "the memory is too small for its copy")
        with _LOCK:
            _CACHE[network] = cached
        return cached.folded(network, precision) if reason is None else _unfolded(network, images, reason)


def _unfolded(network: nn.Module, images: Tensor, reason: str) -> Folded:
    return Folded(ContiguousInput(network) if _needs_contiguous(network, images) else network, reason)


def _fold(network: nn.Module, state: NetworkState, images: Tensor) -> _Cached:
    """Make a copy and check it on noise."""
    reason = None
    for channels_last in (True, False):
        try:
            fused = fused_copy(network, channels_last)
        except UnfoldableError as error:
            reason = str(error)
            break
        copy = fused if channels_last else ContiguousInput(fused)
        with torch.no_grad():
            class_logits(network, images)  # an exception of the network itself is the caller's
        if not state.holds(network):
            state = NetworkState(network)  # the first forward can fill a cache
        noise = noise_like(images)
        try:
            expected = [answer(network, part) for part in (noise, noise[:1])]
        except Exception as error:
            if is_of_device(error):
                raise
            reason = f"it fails for images of noise ({typed_line(error, 160)})"
            break
        if not state.holds(network):
            reason = "its forward changes its own parameters, buffers or attributes"
            break
        reason = _answers_otherwise(network, copy, noise, expected)
        if reason is None:
            _COPIES.add(copy)
            return _Cached(state, copy, expected[0].logits)
    return _Cached(NetworkState(network), reason=reason, contiguous=_needs_contiguous(network, images))


def _answers_otherwise(network: nn.Module, copy: nn.Module, noise: Tensor, expected: list[Answer]) -> str | None:
    """Return in words how a copy differs for noise; None if it agrees.

    One image alone is tried, too: PyTorch's backward of batch normalisation with a backward hook is wrong for it with channels last.
    """
    for part, wanted in zip((noise, noise[:1]), expected, strict=True):
        try:
            found = answer(copy, part)
        except Exception as error:  # as a forward that calls `view` on channels last
            if is_of_device(error):
                raise
            return f"its copy fails ({typed_line(error, 160)})"
        reason = logits_disagree(found.logits, wanted.logits, spread(expected[0].logits))
        reason = reason or gradients_disagree(found.gradient, wanted.gradient, network, part)
        if reason is not None:
            return reason
    return None


@torch.no_grad()
def _disagreement(cached: _Cached, network: nn.Module, images: Tensor) -> str | None:
    """Return in words how a copy's logits differ; None if they agree, or without copy."""
    if cached.copy is None or cached.noise_logits is None:
        return None
    expected = class_logits(network, images)
    try:
        found = class_logits(cached.copy, images)
    except Exception as error:  # a copy of a network that accepts these images should, too
        if is_fatal(error):
            raise
        return f"its copy fails ({typed_line(error, 160)})"
    return logits_disagree(found, expected, spread(torch.cat([cached.noise_logits, expected])))


@torch.no_grad()
def _needs_contiguous(network: nn.Module, images: Tensor) -> bool:
    """Return whether the forward or gradient is wrong with channels last."""
    if any(getattr(module, hooks, None) for module in network.modules() for hooks in ("_backward_hooks", "_backward_pre_hooks")):
        return True
    try:
        class_logits(network, images.contiguous(memory_format=LAYOUT))
    except RuntimeError as error:
        if is_of_device(error) or "view" not in str(error):
            raise
        return True
    return False

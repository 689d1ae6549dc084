"""Frozen CPU convolution with the same speed and rounding at every batch size."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdm_core.device import LAYOUT


class DirectConv2d(nn.Module):
    """Convolution whose input gradient is a convolution too, both computed by oneDNN.

    With fewer than 16 images on one thread, PyTorch computes small kernels by matrix products of another library. Those are up to a third
    slower, round differently by batch size, and need a copy of the image for every position of the kernel.

    Args:
        convolution: a module for which `fits` returns True; its weights must not change afterwards.
    """

    weight: Tensor
    bias: Tensor | None
    adjoint: Tensor

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        weight = convolution.weight.detach()
        self.padding = _pair(convolution.padding)
        self.back_padding = (weight.shape[2] - 1 - self.padding[0], weight.shape[3] - 1 - self.padding[1])
        self.register_buffer("weight", weight.contiguous(memory_format=LAYOUT))
        self.register_buffer("bias", None if convolution.bias is None else convolution.bias.detach())
        # The adjoint: kernels rotated by 180 degrees, input and output channels swapped.
        self.register_buffer("adjoint", weight.flip(2, 3).transpose(0, 1).contiguous(memory_format=LAYOUT))

    @staticmethod
    def fits(module: nn.Module) -> bool:
        """Return whether this class can replace a module.

        It replaces convolutions that are dense, not strided, in float32 and on the CPU.
        """
        return (
            type(module) is nn.Conv2d
            and module.groups == 1
            and module.stride == module.dilation == (1, 1)
            and module.padding_mode == "zeros"
            and not isinstance(module.padding, str)
            and all(pad < side for pad, side in zip(module.padding, module.kernel_size, strict=True))
            and module.weight.device.type == "cpu"
            and module.weight.dtype == torch.float32
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        )

    def forward(self, images: Tensor) -> Tensor:
        """Convolve (B, channels, H, W) to (B, K, H', W'); an image without B too."""
        if images.ndim != 4 or images.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return F.conv2d(images, self.weight, self.bias, padding=self.padding)
        out: Tensor = _Convolve.apply(images, self.weight, self.bias, self.padding, self.adjoint, self.back_padding)
        return out


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor | None, padding: Any, adjoint: Tensor, back: Any) -> Tensor:
        ctx.adjoint, ctx.padding = adjoint, back
        return _convolve(images, weight, bias, padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return _convolve(gradients[0], ctx.adjoint, None, ctx.padding), None, None, None, None, None


def _convolve(images: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
    return torch.mkldnn_convolution(images.contiguous(memory_format=LAYOUT), weight, bias, padding, (1, 1), (1, 1), 1)


def _pair(padding: Any) -> tuple[int, int]:
    return padding[0], padding[1]

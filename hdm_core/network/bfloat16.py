"""Copy of a network in bfloat16, whose last linear layers compute in float32."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from hdm_core.device_errors import is_of_device
from hdm_core.network.agreement import spread
from hdm_core.network.linear import RowwiseLinear
from hdm_core.network.logits import class_logits

# A copy's logits may be this many times as far from those of float32 as autocast's are, and further by this share of their spread: both are
# rounded by chance, and a normalisation in bfloat16 adds two roundings of 0.4%.
_AUTOCASTS = 2.0
_SPREAD = 0.01


class Bfloat16Network(nn.Module):
    """Network whose weights are bfloat16: no pass casts them, as autocast would.

    On a GPU 104 of the 407 kernels of a pass of MobileNetV2 under autocast cast weights. Normalisations and softmaxes, which autocast
    computes in float32, are computed in bfloat16 here, so that `bfloat16_copy` compares the logits. Images are float32; logits are of
    float32 if the last layer is linear.

    Args:
        network: in float32, with weights to cast; it belongs to this object afterwards.
        in_float32: linear layers that stay in float32. In bfloat16 a logit of 16 has steps of 1/16.
    """

    def __init__(self, network: nn.Module, in_float32: frozenset[str]) -> None:
        super().__init__()
        for name, module in network.named_modules():
            if name.removesuffix(".linear") not in in_float32:
                for tensor in [*module.parameters(recurse=False), *module.buffers(recurse=False)]:
                    if tensor.dtype == torch.float32:
                        tensor.data = tensor.data.to(torch.bfloat16)
        self.network = network
        self.training = network.training

    def forward(self, images: Tensor) -> object:
        """Apply the network to (B, C, H, W)."""
        with torch.autocast(images.device.type, enabled=False):
            output: object = self.network(images.to(torch.bfloat16))
            return output


@torch.no_grad()
def bfloat16_copy(network: nn.Module, noise: Tensor) -> nn.Module | None:
    """Copy a folded network to bfloat16; None if autocast is better or needed.

    Autocast is needed where the forward mixes types, as with tensors that are no parameters. It is better where it is closer to float32.

    Args:
        network: a folded copy, in float32.
        noise: images (B, C, H, W) that both are compared for.
    """
    expected = class_logits(network, noise)
    try:
        in_bfloat16 = Bfloat16Network(copy.deepcopy(network), _float32_layers(network, noise))
        found = class_logits(in_bfloat16, noise).to(expected.dtype)
        with torch.autocast(noise.device.type, dtype=torch.bfloat16, cache_enabled=False):
            by_autocast = class_logits(network, noise).to(expected.dtype)
    except Exception as error:  # of a forward that mixes types
        if is_of_device(error):
            raise
        return None
    allowed = _AUTOCASTS * (by_autocast - expected).abs().max() + _SPREAD * spread(expected)
    return in_bfloat16 if bool((found - expected).abs().max() <= allowed) else None


def _float32_layers(network: nn.Module, noise: Tensor) -> frozenset[str]:
    """Return the names of linear layers whose inputs are all (B, features).

    Others, such as those of a transformer's tokens, would not compute in float32 under autocast either.
    """
    of_rows: dict[str, bool] = {}
    handles = [
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: of_rows.update({name: of_rows.get(name, True) and inputs[0].ndim == 2})
        )
        for name, module in network.named_modules()
        if isinstance(module, RowwiseLinear)
    ]
    try:
        class_logits(network, noise)
    finally:
        for handle in handles:
            handle.remove()
    return frozenset(name for name, only_rows in of_rows.items() if only_rows)

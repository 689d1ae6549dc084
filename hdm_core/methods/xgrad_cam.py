"""XGrad-CAM: Grad-CAM with gradients weighted by their activations."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.methods.cam import cam_method, gradient_cam

# A sum below this share of its absolute terms is rounding.
_ROUNDING = 1e-6


def _cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return sum_k w_k A_k with w_k = sum_ij A_ij g_ij / sum_ij A_ij: (B, h, w).

    A channel whose activations sum to zero has no such weight and is omitted. After a ReLU that is a channel of zeros.

    Args:
        activations, gradients: A and g = dy_c / dA, (B, K, h, w).
    """
    total = activations.sum((2, 3), keepdim=True)
    vanishes = total.abs() <= _ROUNDING * activations.abs().sum((2, 3), keepdim=True)
    weights = (gradients * activations).sum((2, 3), keepdim=True) / torch.where(vanishes, 1.0, total)
    return (torch.where(vanishes, 0.0, weights) * activations).sum(1)


XGRAD_CAM = cam_method(
    id="xgrad_cam",
    title="XGrad-CAM",
    source="Fu et al.: Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation of CNNs, BMVC 2020",
    run=gradient_cam(_cam),
)

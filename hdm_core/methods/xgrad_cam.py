"""XGrad-CAM: as Grad-CAM, where a gradient weighs as much as the activation that it belongs to."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.methods.cam import cam_method, gradient_cam

# A sum this small against its terms is rounding.
_ROUNDING = 1e-6


def _cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """sum_k w_k A_k with w_k = sum_ij A_ij g_ij / sum_ij A_ij, g = dy_c / dA_k: (B, K, h, w) twice -> (B, h, w).

    A channel whose activations sum to zero has no such weight and is left out. Behind a ReLU that is a channel of zeros.
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

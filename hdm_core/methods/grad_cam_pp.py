"""Grad-CAM++: Grad-CAM with a separate weight for each pixel's positive gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.methods.cam import cam_method, gradient_cam


def _cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return sum_k w_k A_k with w_k = sum_ij alpha_ij ReLU(g_ij): (B, h, w).

    g = dy_c / dA_k. For Y = exp(y_c) the derivatives are powers of g, and alpha_ij = g^2 / (2 g^2 + g^3 sum_ab A_ab) (Eq. 19). It is
    computed as 1 / (2 + g sum_ab A_ab), in which small gradients do not underflow, and counts only where g > 0. The factor exp(y_c) of that
    gradient, one number per image, is removed by N. The paper assumes activations >= 0; where negative ones make the denominator zero,
    alpha is 0.

    Args:
        activations, gradients: A and g, (B, K, h, w).
    """
    denominator = 2 + gradients * activations.sum((2, 3), keepdim=True)
    alpha = torch.where(denominator == 0, 0.0, 1 / denominator)
    weights = (alpha * torch.relu(gradients)).sum((2, 3), keepdim=True)
    return (weights * activations).sum(1)


GRAD_CAM_PP = cam_method(
    id="grad_cam_pp",
    title="Grad-CAM++",
    source="Chattopadhay et al.: Grad-CAM++: Generalized Gradient-based Visual Explanations for Deep Convolutional Networks, WACV 2018",
    run=gradient_cam(_cam),
)

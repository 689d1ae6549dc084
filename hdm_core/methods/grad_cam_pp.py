"""Grad-CAM++: as Grad-CAM, where each pixel's positive gradient has a weight of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.methods.cam import cam_method, gradient_cam


def _cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """sum_k w_k A_k with w_k = sum_ij alpha_ij ReLU(g_ij), g = dy_c / dA_k: (B, K, h, w) twice -> (B, h, w).

    For Y = exp(y_c) the derivatives are powers of g, and alpha_ij = g^2 / (2 g^2 + g^3 sum_ab A_ab) (Eq. 19): 1 / (2 + g sum_ab A_ab),
    in which small gradients do not vanish. It counts only where g > 0. The factor exp(y_c) of that gradient, one number an image,
    is lost in N. The paper assumes activations >= 0; where others bring the denominator to zero, alpha is 0.
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

"""Grad-CAM: feature maps weighted by the mean of the target's gradient over each."""

from __future__ import annotations

from torch import Tensor

from hdm_core.methods.cam import cam_method, gradient_cam


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return sum_k w_k A_k with w_k = mean(dy_c / dA_k), Eq. 1 and 2: (B, h, w).

    Args:
        activations, gradients: A and dy_c / dA, (B, K, h, w).
    """
    return (gradients.mean((2, 3), keepdim=True) * activations).sum(1)


GRAD_CAM = cam_method(
    id="grad_cam",
    title="Grad-CAM",
    source="Selvaraju et al.: Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017",
    run=gradient_cam(grad_cam),
)

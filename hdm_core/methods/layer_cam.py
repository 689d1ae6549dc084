"""Layer-CAM: every pixel of a feature map weighted by its positive gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.methods.cam import cam_method, gradient_cam


def _cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Return sum_k ReLU(dy_c / dA_k) A_k, pixel by pixel: (B, h, w).

    One layer is used. The paper's tanh(2 M / max M) serves to add the maps of shallow layers, which is not done here.

    Args:
        activations, gradients: A and dy_c / dA, (B, K, h, w).
    """
    return (torch.relu(gradients) * activations).sum(1)


LAYER_CAM = cam_method(
    id="layer_cam",
    title="Layer-CAM",
    source="Jiang et al.: LayerCAM: Exploring Hierarchical Class Activation Maps for Localization, IEEE TIP 2021",
    run=gradient_cam(_cam),
)

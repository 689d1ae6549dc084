"""Eigen-CAM: feature maps projected on their first principal direction.

The map does not depend on the target class.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hdm_core.methods.base import ExplainJob, RawMaps
from hdm_core.methods.cam import CAMSettings, cam_method, in_batches, layer_of, layer_output_of
from hdm_core.network.target_layer import TargetLayer

# A projection of float32 activations that varies less than this, relative to its largest value, is constant.
_ROUNDING = 1e-5


def first_projection(activations: Tensor) -> Tensor:
    """Project (B, K, h, w) on the first principal direction: O v_1, (B, h, w).

    Row ij of O (h w, K) is a pixel's activations and v_1 the first right singular vector. As in the paper O is not centred. The sign of v_1
    is arbitrary: the one is taken whose projection has a positive scalar product with sum_k |A_k|, so that strong activations are bright
    on every machine. Computed in float64 from the smaller of the Gram matrices O O^T and O^T O; NaN where an image's activations are not
    finite.
    """
    pixels = activations.flatten(2).double()  # O^T
    finite = pixels.isfinite().all(2).all(1)[:, None]
    pixels = torch.where(finite[:, None], pixels, 0.0)  # else the decomposition would fail for the whole batch
    if pixels.shape[1] < pixels.shape[2]:
        v = torch.linalg.eigh(pixels @ pixels.mT).eigenvectors[:, :, -1]
        projection = (v[:, None] @ pixels)[:, 0]
    else:
        # The first left singular vector: O v_1 up to a positive factor, which N removes.
        projection = torch.linalg.eigh(pixels.mT @ pixels).eigenvectors[:, :, -1]
    agreement = (projection * pixels.abs().sum(1)).sum(1, keepdim=True)
    projection = torch.where(agreement < 0, -projection, projection)
    spread = projection.amax(1, keepdim=True) - projection.amin(1, keepdim=True)
    constant = spread <= _ROUNDING * projection.abs().amax(1, keepdim=True)
    projection = torch.where(finite, torch.where(constant, 0.0, projection), torch.nan)
    return projection.view(activations[:, 0].shape).to(activations.dtype)


def _cam(part: ExplainJob, layer: TargetLayer) -> Tensor:
    activations = layer_output_of(part, layer).activations.detach()
    part.passes.add(len(activations))
    return first_projection(activations)


def _run(job: ExplainJob, settings: CAMSettings) -> RawMaps:
    return in_batches(job, layer_of(job, settings), _cam)


EIGEN_CAM = cam_method(
    id="eigen_cam",
    title="Eigen-CAM",
    source="Muhammad, Yeasin: Eigen-CAM: Class Activation Map using Principal Components, IJCNN 2020",
    run=_run,
    backward=False,
    sign="independent of the class",
)

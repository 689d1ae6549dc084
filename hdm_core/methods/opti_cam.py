"""Opti-CAM: weights of feature maps, optimised for the logit of the masked image."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor, nn

from hdm_core.masking.baselines import baseline_image
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.ops import Upsampling, normalise
from hdm_core.masking.optimizer import MaskBank
from hdm_core.masking.passes import PassInputs
from hdm_core.methods.base import ExplainJob, RawMaps
from hdm_core.methods.cam import CAMSettings, cam_method, in_batches, layer_of
from hdm_core.methods.job_loss import job_loss
from hdm_core.network.hooks import activations_and_logits
from hdm_core.network.target_layer import TargetLayer
from hdm_core.settings import Baseline


class OptiCAMSettings(CAMSettings):
    """Settings of Opti-CAM: the target layer and the optimiser."""

    steps: int = Field(100, ge=1, description="Adam steps")
    learning_rate: float = Field(0.1, gt=0)
    baseline: Baseline = Field("mean", description="value of a masked pixel: the normalisation mean, black, or the blurred image")


class InsertionLoss(ConsistencyLoss):
    """ConsistencyLoss that maximises f_p itself instead of J."""

    def loss(self, activation: Tensor, inputs: PassInputs) -> Tensor:
        """Return -f_p of masked images, (N,)."""
        return -activation


def opti_cam(insertion: InsertionLoss, activations: Tensor, steps: int, learning_rate: float) -> Tensor:
    """Return S = sum_k softmax(u)_k A_k for the u that maximises f_p(N(g(S)) X).

    u starts from zeros, so that all feature maps have the same weight; f_p is the logit.

    Args:
        insertion: holds the images X.
        activations: A, (B, K, h, w), at least 0.

    Returns:
        (B, h, w).
    """
    batch, channels, rows, columns = activations.shape
    height, width = insertion.contrast.shape[-2:]
    upsampling = Upsampling((rows, columns), height, width, insertion.contrast)
    images = torch.arange(batch, device=activations.device)
    bank = MaskBank([activations.new_zeros(batch, 1, 1, channels)])
    (u,), (gradients,) = bank.masks, bank.gradients
    optimiser = torch.optim.Adam([bank.values], lr=learning_rate, fused=True)
    bank.values.grad = bank.flat_gradients
    for _ in range(steps):
        with torch.enable_grad():
            weights = u.detach().requires_grad_()
            maps = _combined(weights, activations)
            enlarged = upsampling(maps.detach()[:, None]).requires_grad_()
            masks = normalise(enlarged)
        (to_enlarged,) = torch.autograd.grad(masks, enlarged, insertion.gradient(masks.detach(), images))
        (to_weights,) = torch.autograd.grad(maps, weights, upsampling.adjoint(to_enlarged)[:, 0])
        gradients.copy_(to_weights)
        optimiser.step()
    return _combined(u, activations)


def _combined(u: Tensor, activations: Tensor) -> Tensor:
    """Return sum_k softmax(u)_k A_k, (B, 1, 1, K) and (B, K, h, w) -> (B, h, w)."""
    return (u[:, 0, 0].softmax(1)[:, :, None, None] * activations).sum(1)


def _cam(part: ExplainJob, layer: TargetLayer, network: nn.Module, settings: OptiCAMSettings) -> Tensor:
    # One image per pass: in a batch some convolutions round differently, and the optimiser magnifies that.
    singles = torch.split(part.images, 1)
    activations = torch.cat([activations_and_logits(part.classifier.module, layer, image)[0] for image in singles]).relu()
    part.passes.add(len(part.images))
    baseline = baseline_image(settings.baseline, part.classifier, part.images)
    # In float32 whatever the precision, as Mask, whose Adam steps bfloat16 moves.
    insertion = job_loss(InsertionLoss, replace(part, precision="float32"), network, baseline, "logit")
    with torch.no_grad():
        return opti_cam(insertion, activations, settings.steps, settings.learning_rate)


def _run(job: ExplainJob, settings: OptiCAMSettings) -> RawMaps:
    layer = layer_of(job, settings)
    with job.classifier.folded(job.images[:1]) as network:
        return in_batches(job, layer, lambda part, layer: _cam(part, layer, network, settings))


OPTI_CAM = replace(
    cam_method(
        id="opti_cam",
        title="Opti-CAM",
        source="Zhang et al.: Opti-CAM: Optimizing saliency maps for interpretability, CVIU 2024, arXiv 2301.07002",
        run=_run,
    ),
    settings=OptiCAMSettings,
    presets={"paper": OptiCAMSettings(layer=None, steps=100)},
    passes=lambda settings, height, width: 1 + int(settings.steps),
    pairs_images=True,
    input_gradient=True,
)

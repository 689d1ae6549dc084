"""Score-CAM: feature maps weighted by the class's score on the masked image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hdm_core.classifier import Classifier
from hdm_core.masking.ops import normalise, upsample
from hdm_core.methods.base import ExplainJob, RawMaps
from hdm_core.methods.cam import CAMSettings, cam_method, in_batches, layer_of, layer_output_of, target_layer
from hdm_core.network.hooks import activations_and_logits
from hdm_core.network.logits import class_logits
from hdm_core.network.target_layer import TargetLayer


@torch.no_grad()
def _cam(part: ExplainJob, layer: TargetLayer, network: nn.Module) -> Tensor:
    """Return sum_k w_k A_k with w_k = p_c(X H_k) - p_c(X_b): (B, h, w).

    H_k = N(g(A_k)) and X_b = 0 (the paper's CIC, Def. 2 and 3). p_c is the probability, as the paper's section on normalised scores
    requires. The paper's listing applies a softmax over the channels to the weights; its definitions and its authors' code do not, and
    neither does this: weights may be negative. A constant A_k masks nothing and has weight 0.

    Args:
        network: the classifier, folded.
    """
    images, targets = part.images, part.targets
    activations = layer_output_of(part, layer).activations.detach()
    part.passes.add(len(images))
    batch, channels = activations.shape[:2]
    maps = activations.flatten(0, 1)[:, None]
    probabilities = part.classifier.probabilities
    baseline_scores = probabilities(class_logits(network, torch.zeros_like(images[:1])).double())[0, targets]
    scores = []
    for rows in torch.split(torch.arange(len(maps), device=images.device), part.batch):
        image = rows // channels
        masks = normalise(upsample(maps[rows], *images.shape[-2:]))
        # Differences of probabilities near 1, or of nearly equal ones, lose their digits in float32: maps were off by up to 0.14.
        masked = probabilities(class_logits(network, images[image] * masks).double())
        scores.append(masked.gather(1, targets[image, None])[:, 0])
        part.passes.add(len(rows))
    weights = (torch.cat(scores).view(batch, channels) - baseline_scores[:, None]).to(activations)
    varies = activations.amax((2, 3)) != activations.amin((2, 3))
    return (torch.where(varies, weights, 0.0)[:, :, None, None] * activations).sum(1)


def _run(job: ExplainJob, settings: CAMSettings) -> RawMaps:
    layer = layer_of(job, settings)
    with job.classifier.folded(job.images[:1]) as network:
        return in_batches(job, layer, lambda part, layer: _cam(part, layer, network))


def _extra_passes(settings: CAMSettings, classifier: Classifier, image: Tensor) -> int:
    """Return the number of the layer's channels: one forward pass per channel."""
    with classifier.frozen() as network:
        return activations_and_logits(network, target_layer(network, settings, image), image)[0].shape[1]


SCORE_CAM = cam_method(
    id="score_cam",
    title="Score-CAM",
    source="Wang et al.: Score-CAM: Score-Weighted Visual Explanations for Convolutional Neural Networks, CVPR Workshops 2020",
    run=_run,
    network_passes=_extra_passes,
    backward=False,
)

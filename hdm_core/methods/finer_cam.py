"""Finer-CAM: Grad-CAM of the difference between a class and those like it."""

from __future__ import annotations

from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from hdm_core.classifier import Classifier
from hdm_core.methods.base import ExplainJob, RawMaps
from hdm_core.methods.cam import CAMSettings, cam_method, in_batches, layer_of, layer_output_of
from hdm_core.methods.grad_cam import grad_cam
from hdm_core.network.contrasts import Contrasts
from hdm_core.network.logits import class_logits
from hdm_core.network.target_layer import TargetLayer


class FinerCAMSettings(CAMSettings):
    """Settings of Finer-CAM: the target layer, and the classes to compare with."""

    strength: float = Field(0.6, ge=0, allow_inf_nan=False, description="alpha: weight of the other classes' mean logit; 0 is Grad-CAM")
    classes: int = Field(3, ge=1, description="number of classes to compare with: those whose logits are nearest to the target's")


def class_weights(logits: Tensor, targets: Tensor, strength: float, count: int) -> Tensor:
    """Return the weights of the logits in y_c - alpha mean y_d, (B, classes).

    d are the `count` classes whose logits are nearest to y_c, or as many as there are; of equal distances the first class.

    Args:
        logits: (B, classes).
        targets: c, (B,) int64.

    Raises:
        ValueError: if there is one class.
    """
    if logits.shape[1] < 2:
        raise ValueError("finer_cam compares a class with others, and the network has one output: use grad_cam")
    own = targets[:, None]
    distances = (logits - logits.gather(1, own)).abs().scatter(1, own, torch.inf)
    others = distances.argsort(dim=1, stable=True)[:, : min(count, logits.shape[1] - 1)]
    weights = torch.zeros_like(logits).scatter(1, others, -strength / others.shape[1])
    return weights.scatter(1, own, 1.0)


def _cam(part: ExplainJob, layer: TargetLayer, settings: FinerCAMSettings) -> Tensor:
    output = layer_output_of(part, layer)
    part.passes.add(len(part.images))
    if isinstance(part.classifier.module, Contrasts):  # the target is a difference already, and the other columns are those of other images
        gradients = output.gradients(part.targets)
    else:
        weights = class_weights(output.logits.detach(), part.targets, settings.strength, settings.classes)
        gradients = output.gradients_of_score((output.logits * weights).sum())
    return grad_cam(output.activations.detach(), gradients)


def _check(settings: FinerCAMSettings, classifier: Classifier, image: Tensor) -> None:
    """Check that there is a class to compare with; the layer is checked for every CAM."""
    with torch.no_grad(), classifier.frozen() as network:
        class_weights(class_logits(network, image), image.new_zeros(len(image), dtype=torch.int64), settings.strength, settings.classes)


def _run(job: ExplainJob, settings: FinerCAMSettings) -> RawMaps:
    return in_batches(job, layer_of(job, settings), lambda part, layer: _cam(part, layer, settings))


FINER_CAM = replace(
    cam_method(
        id="finer_cam",
        title="Finer-CAM",
        source="Zhang et al.: Finer-CAM: Spotting the Difference Reveals Finer Details for Visual Explanation, CVPR 2025, arXiv 2501.11309",
        run=_run,
        sign="only evidence for the class rather than those like it",
    ),
    settings=FinerCAMSettings,
    presets={"paper": FinerCAMSettings(layer=None, strength=0.6)},
    check=_check,
)

"""Start of the masks of DM and HDM: tau everywhere, or a CAM."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor, nn

from hdm_core.checks.finding import Finding
from hdm_core.classifier import Classifier
from hdm_core.methods.base import ExplainJob
from hdm_core.methods.cam import CAMSettings, gradient_cam_maps, target_layer
from hdm_core.methods.grad_cam import grad_cam
from hdm_core.network.target_layer import TargetLayer
from hdm_core.settings import DMSettings


def starting_maps(job: ExplainJob, settings: DMSettings) -> Tensor | None:
    """Return Grad-CAM's maps of the job's images, (B, 1, H, W) in [0, 1].

    None if masks start from tau: by the settings, or because the network has no layer with maps.
    """
    layer = None if settings.start == "tau" else _layer(job.classifier.module, job.images[:1])
    if layer is None:
        return None
    return gradient_cam_maps(replace(job, batch=cam_batch(job), layer_output=None), layer, grad_cam).maps[:, None].detach()


def cam_batch(job: ExplainJob) -> int:
    """Return the images per pass of the CAM.

    On the CPU it is one: in a batch some convolutions round differently, and the optimiser magnifies that.
    """
    return job.batch if job.images.device.type == "cuda" else 1


def starting_passes(settings: DMSettings, classifier: Classifier, image: Tensor) -> int:
    """Return the passes per image of the start: one where it is a CAM."""
    with classifier.frozen() as network:
        return int(settings.start != "tau" and _layer(network, image) is not None)


def check_start(settings: DMSettings, classifier: Classifier, image: Tensor) -> Finding | None:
    """Report where masks start from tau because the network has no CAM."""
    if settings.start == "tau":
        return None
    with classifier.frozen() as network:
        if _layer(network, image) is not None:
            return None
    return Finding("start", "handled", f"this network has no layer with maps for a CAM: masks start from {settings.tau:g}")


def _layer(network: nn.Module, images: Tensor) -> TargetLayer | None:
    """Return the layer of Grad-CAM; None if the network has none."""
    try:
        return target_layer(network, CAMSettings(layer=None), images)
    except (ValueError, TypeError):
        return None

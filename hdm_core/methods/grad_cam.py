"""Grad-CAM: the last feature maps, each weighted by the mean of the target's gradient over it."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import nn

from hdm_core.capture import activations_and_gradients, last_spatial_layer
from hdm_core.masks import normalise, upsample
from hdm_core.methods.base import Job, Method, RawMaps
from hdm_core.settings import Settings


class GradCAMSettings(Settings):
    """Where Grad-CAM looks."""

    layer: str | None = Field(None, description="name of a submodule such as layer4.2; by default the last convolutional stage's end")


def _run(job: Job, settings: GradCAMSettings) -> RawMaps:
    network = job.classifier.module
    layer = last_spatial_layer(network, job.images) if settings.layer is None else named_layer(network, settings.layer)
    maps = []
    for start in range(0, len(job.images), job.batch):
        part = slice(start, start + job.batch)
        activations, gradients = activations_and_gradients(network, layer, job.images[part], job.targets[part])
        weights = gradients.mean((2, 3), keepdim=True)  # Eq. 1 of Selvaraju et al. 2017
        cam = torch.relu((weights * activations).sum(1, keepdim=True))  # Eq. 2
        maps.append(normalise(upsample(cam, *job.images.shape[-2:])).squeeze(1))
        job.passes.add(len(activations))
    return RawMaps(torch.cat(maps))


def named_layer(network: nn.Module, name: str) -> nn.Module:
    """The submodule of this dotted name.

    Raises:
        ValueError: if the network has none.
    """
    try:
        return network.get_submodule(name)
    except AttributeError:
        children = ", ".join(child for child, _ in network.named_children())
        raise ValueError(f"this network has no layer {name!r}; its parts are {children}") from None


GRAD_CAM = Method(
    id="grad_cam",
    title="Grad-CAM",
    source="Selvaraju et al.: Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization, ICCV 2017",
    settings=GradCAMSettings,
    presets={"paper": GradCAMSettings(layer=None)},
    default="paper",
    run=_run,
    passes=lambda settings, height, width: 1,
)

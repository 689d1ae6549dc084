"""Shared by the CAM family: target layer, batching, and the map of a CAM."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from hdm_core.classifier import Classifier
from hdm_core.masking.ops import normalise, upsample
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.network.axes import locate
from hdm_core.network.default_layer import default_layer
from hdm_core.network.hooks import LayerOutput, forward_to
from hdm_core.network.target_layer import TargetLayer
from hdm_core.network.wrappers import inner_network
from hdm_core.settings import Settings
from hdm_core.sources.exported import require_layers


class CAMSettings(Settings):
    """Settings of a CAM: its target layer."""

    layer: str | None = Field(
        None, description="name of a submodule such as layer4.2; by default the last one with maps or tokens that matter"
    )


def cam_method(
    id: str,  # noqa: A002  (the registry's name for it)
    title: str,
    source: str,
    run: Callable[[ExplainJob, Any], RawMaps],
    network_passes: Callable[[Any, Classifier, Tensor], int] | None = None,
    backward: bool = True,
    gradient_optional: bool = False,
    sign: str = "only evidence for the class",
) -> Method:
    """Build the registry entry of a CAM.

    It costs one pass per image plus those that `network_passes` returns.
    """
    return Method(
        id=id,
        title=title,
        source=source,
        settings=CAMSettings,
        presets={"paper": CAMSettings(layer=None)},
        default="paper",
        run=run,
        passes=lambda settings, height, width: 1,
        network_passes=network_passes,
        backward=backward,
        gradient_optional=gradient_optional,
        layer=target_layer,
        family="CAM",
        sign=sign,
    )


def gradient_cam(cam: Callable[[Tensor, Tensor], Tensor]) -> Callable[[ExplainJob, CAMSettings], RawMaps]:
    """Build the `run` of a CAM that needs activations and gradients alone.

    Args:
        cam: as of `gradient_cam_maps`.
    """
    return lambda job, settings: gradient_cam_maps(job, layer_of(job, settings), cam)


def gradient_cam_maps(job: ExplainJob, layer: TargetLayer, cam: Callable[[Tensor, Tensor], Tensor]) -> RawMaps:
    """Compute the maps of a CAM that needs activations and gradients alone.

    Args:
        cam: activations A and gradients dy_c / dA, each (B, K, h, w) -> (B, h, w).
    """

    def compute(part: ExplainJob, layer: TargetLayer) -> Tensor:
        output = layer_output_of(part, layer)
        part.passes.add(len(part.images))
        return cam(output.activations.detach(), output.gradients(part.targets))

    return in_batches(job, layer, compute)


def in_batches(job: ExplainJob, layer: TargetLayer, cam: Callable[[ExplainJob, TargetLayer], Tensor]) -> RawMaps:
    """Compute the maps N(g(ReLU(L))) in batches of at most `job.batch` images.

    Args:
        cam: a part of the job and the target layer -> the CAMs L, (B, h, w).
    """
    height, width = job.images.shape[-2:]
    maps = []
    for start in range(0, len(job.images), job.batch):
        part = slice(start, start + job.batch)
        evidence = torch.relu(cam(replace(job, images=job.images[part], targets=job.targets[part]), layer))
        # N also before g: upsampling rounds, so a constant would not stay constant.
        maps.append(normalise(upsample(normalise(evidence)[:, None], height, width))[:, 0])
    return RawMaps(torch.cat(maps))


def layer_output_of(part: ExplainJob, layer: TargetLayer) -> LayerOutput:
    """Return the layer's output and the logits.

    Those of the forward that chose the targets are reused if the job has them; else one forward runs.
    """
    return part.layer_output or forward_to(part.classifier.module, layer, part.images)


def layer_of(job: ExplainJob, settings: CAMSettings) -> TargetLayer:
    """Return the target layer: that of the job's layer output, else from the settings."""
    if job.layer_output is not None and job.layer_output.layer is not None:
        return job.layer_output.layer
    return target_layer(job.classifier.module, settings, job.images)


def target_layer(network: nn.Module, settings: CAMSettings, images: Tensor) -> TargetLayer:
    """Return the submodule that the settings name, or that of `default_layer`.

    Raises:
        TypeError: if the named submodule does not return one map per image.
        ValueError: if the network has no such submodule, it is not called, no layer is named and none returns maps, the axes of its output
            or the grid of its tokens are not clear, or the network's layers are not accessible.
    """
    if settings.layer is None:
        require_layers(network)
        return default_layer(network, images)
    try:
        layer = inner_network(network).get_submodule(settings.layer)
    except AttributeError:
        require_layers(network)
        children = ", ".join(child for child, _ in inner_network(network).named_children())
        raise ValueError(f"this network has no layer {settings.layer!r}; its parts are {children}") from None
    require_layers(network, layer)
    return locate(network, layer, images)

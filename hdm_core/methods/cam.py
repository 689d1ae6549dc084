"""What the CAM family shares: the target layer, the way through a batch, and from a CAM to a map."""

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
from hdm_core.network.hooks import LayerOutput, forward_to, last_spatial_layer
from hdm_core.settings import Settings
from hdm_core.sources.exported import require_layers


class CAMSettings(Settings):
    """Where a CAM looks."""

    layer: str | None = Field(None, description="name of a submodule such as layer4.2; by default the last convolutional stage")


def cam_method(
    id: str,  # noqa: A002  (as the registry calls it)
    title: str,
    source: str,
    run: Callable[[ExplainJob, Any], RawMaps],
    network_passes: Callable[[Any, Classifier, Tensor], int] | None = None,
    backward: bool = True,
) -> Method:
    """An entry of the registry for a CAM: one pass an image, and what `network_passes` adds."""
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
        layer=target_layer,
    )


def gradient_cam(cam: Callable[[Tensor, Tensor], Tensor]) -> Callable[[ExplainJob, CAMSettings], RawMaps]:
    """The `run` of a CAM that is computed from activations A and gradients dy_c / dA, each (B, K, h, w) -> (B, h, w)."""

    def one(part: ExplainJob, layer: nn.Module) -> Tensor:
        answer = layer_output_of(part, layer)
        part.passes.add(len(part.images))
        return cam(answer.activations.detach(), answer.gradients(part.targets))

    def run(job: ExplainJob, settings: CAMSettings) -> RawMaps:
        return in_parts(job, layer_of(job, settings), one)

    return run


def in_parts(job: ExplainJob, layer: nn.Module, cam: Callable[[ExplainJob, nn.Module], Tensor]) -> RawMaps:
    """The maps N(g(ReLU(L))) of the CAMs L, (B, h, w), that `cam` makes of at most `job.batch` images at a time."""
    height, width = job.images.shape[-2:]
    maps = []
    for start in range(0, len(job.images), job.batch):
        part = slice(start, start + job.batch)
        evidence = torch.relu(cam(replace(job, images=job.images[part], targets=job.targets[part]), layer))
        # N first, too: enlarging rounds, and a constant would not stay one.
        maps.append(normalise(upsample(normalise(evidence)[:, None], height, width))[:, 0])
    return RawMaps(torch.cat(maps))


def layer_output_of(part: ExplainJob, layer: nn.Module) -> LayerOutput:
    """The network's answer with the layer's output: that which found the targets, or one of a pass of its own."""
    return part.layer_output or forward_to(part.classifier.module, layer, part.images)


def layer_of(job: ExplainJob, settings: CAMSettings) -> nn.Module:
    """The target layer, which need not be looked for again if a job has an answer."""
    if job.layer_output is not None and job.layer_output.layer is not None:
        return job.layer_output.layer
    return target_layer(job.classifier.module, settings, job.images)


def target_layer(network: nn.Module, settings: CAMSettings, images: Tensor) -> nn.Module:
    """The submodule that the settings name, or the last convolutional stage.

    Raises:
        ValueError: if the network has no such submodule, no stage with maps and none is named, or is an exported program.
    """
    require_layers(network)
    if settings.layer is None:
        return last_spatial_layer(network, images)
    try:
        return network.get_submodule(settings.layer)
    except AttributeError:
        children = ", ".join(child for child, _ in network.named_children())
        raise ValueError(f"this network has no layer {settings.layer!r}; its parts are {children}") from None

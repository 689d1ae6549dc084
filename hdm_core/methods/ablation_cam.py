"""Ablation-CAM: every feature map weighted by how much the class's logit falls without it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from hdm_core.classifier import Classifier
from hdm_core.methods.base import ExplainJob, RawMaps
from hdm_core.methods.cam import CAMSettings, cam_method, in_parts, layer_of, layer_output_of, target_layer
from hdm_core.network.hooks import activations_and_logits, calls_of, logits_with
from hdm_core.network.tail import is_affine, tail_of

_TOLERANCE = 1e-3


@dataclass(frozen=True)
class _Way:
    """How the logits of ablated activations are found.

    Attributes:
        tail: activations -> logits; None if it cannot be had and the whole network runs.
        affine: whether all ablations are known from one gradient.
        passes: what the ablations of an image cost beyond the first pass. Those of a tail count by its share of the network's
            multiplications, rounded up.
    """

    tail: fx.Interpreter | None
    affine: bool
    passes: int


@torch.no_grad()
def _way(network: nn.Module, layer: nn.Module, images: Tensor) -> _Way:
    """What torch.fx finds, believed only if it answers as the network does on an image."""
    image = images[:1].nan_to_num(0, 0, 0)  # on NaN all would seem right
    activations, logits = activations_and_logits(network, layer, image)
    channels = activations.shape[1]
    tail = tail_of(network, layer)
    if tail is None or not _same(tail.run(activations.clone()), logits):
        return _Way(None, False, channels)
    ablated = activations.clone()
    ablated[:, ::2] = 0
    if is_affine(tail) and _same(tail.run(ablated) + tail.run(activations - ablated), logits + tail.run(torch.zeros_like(ablated))):
        return _Way(tail, True, 0)
    share = _multiplications(tail.run, activations.clone()) / max(1, _multiplications(network, image))
    return _Way(tail, False, math.ceil(channels * share))


def _same(found: Tensor, expected: Tensor) -> bool:
    return bool((found - expected).abs().amax() <= _TOLERANCE * expected.abs().amax())


def _multiplications(run: Callable[[Tensor], object], x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        run(x)
    return int(counter.get_total_flops())


def _weights(drops: Tensor, activations: Tensor) -> Tensor:
    """sum_k w_k A_k with w_k = (y_c - y_c^k) / |y_c|, but for the positive |y_c|, which N takes away: -> (B, h, w).

    The paper divides by y_c. For y_c > 0 that is the same map; for y_c < 0 it would turn every weight's sign, so that what speaks
    against the class would light up.
    """
    return (drops[:, :, None, None] * activations).sum(1)


def _closed_form(part: ExplainJob, layer: nn.Module) -> Tensor:
    """All drops from one gradient, y_c - y_c^k = sum_ij A_ij dy_c / dA_ij: for pooling and a linear layer it is w_ck mean(A_k)."""
    answer = layer_output_of(part, layer)
    activations, gradients = answer.activations.detach(), answer.gradients(part.targets)
    part.passes.add(len(activations))
    return _weights((gradients * activations).sum((2, 3)), activations)


@torch.no_grad()
def _one_by_one(part: ExplainJob, layer: nn.Module, way: _Way, logits_of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Each drop by a run of its own; `logits_of` takes ablated activations (N, K, h, w) and the images (N,) that they are of."""
    answer = layer_output_of(part, layer)
    activations, logits = answer.activations.detach(), answer.logits.detach()
    batch, channels = activations.shape[:2]
    part.passes.add(batch)
    rows = torch.arange(batch * channels, device=activations.device)
    scores = []
    for chunk in torch.split(rows, part.batch):
        image, channel = chunk // channels, chunk % channels
        ablated = activations[image]
        ablated[torch.arange(len(chunk), device=chunk.device), channel] = 0
        scores.append(logits_of(ablated, image).gather(1, part.targets[image, None])[:, 0])
    if way.passes:
        part.passes.add(batch * way.passes)
    drops = logits.gather(1, part.targets[:, None]) - torch.cat(scores).view(batch, channels)
    return _weights(drops, activations)


def _run(job: ExplainJob, settings: CAMSettings) -> RawMaps:
    network = job.classifier.module
    layer = layer_of(job, settings)
    way = _way(network, layer, job.images)
    if way.affine:
        return in_parts(job, layer, _closed_form)
    tail = way.tail
    calls = calls_of(network, layer, job.images) if tail is None else 0

    def cam(part: ExplainJob, layer: nn.Module) -> Tensor:
        if tail is not None:
            return _one_by_one(part, layer, way, lambda ablated, image: tail.run(ablated))
        return _one_by_one(part, layer, way, lambda ablated, image: logits_with(network, layer, calls, ablated, part.images[image]))

    return in_parts(job, layer, cam)


def _ablations(settings: CAMSettings, classifier: Classifier, image: Tensor) -> int:
    """Nothing where there is a closed form, else a run for every channel of the layer."""
    with classifier.frozen() as network:
        return _way(network, target_layer(network, settings, image), image).passes


ABLATION_CAM = cam_method(
    id="ablation_cam",
    title="Ablation-CAM",
    source="Desai, Ramaswamy: Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free Localization, WACV 2020",
    run=_run,
    network_passes=_ablations,
)

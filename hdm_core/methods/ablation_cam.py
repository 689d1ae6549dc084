"""Ablation-CAM: feature maps weighted by the logit's drop without each of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from hdm_core.classifier import Classifier
from hdm_core.device_errors import is_fatal
from hdm_core.methods.base import ExplainJob, RawMaps
from hdm_core.methods.cam import CAMSettings, cam_method, in_batches, layer_of, layer_output_of, target_layer
from hdm_core.network.gradients import NoGradientError
from hdm_core.network.hooks import activations_and_logits, count_calls, logits_with_activations
from hdm_core.network.tail import Tail, extract_tail
from hdm_core.network.target_layer import TargetLayer

# A difference of logits below this share of their spread, or of this share of the largest, is rounding.
_TOLERANCE = 1e-3
_ROUNDING = 1e-5


@dataclass(frozen=True)
class _AblationPlan:
    """Plan of an ablation: the cheapest way to the logits of ablated activations.

    Attributes:
        tail: activations -> logits; None if it cannot be extracted, so that the whole network runs.
        affine: whether one gradient gives the result of all ablations.
        passes: passes per image beyond the first one. Those of a tail count by its share of the network's multiplications, rounded up.
    """

    tail: Tail | None
    affine: bool
    passes: int


@torch.no_grad()
def _plan_ablations(network: nn.Module, layer: TargetLayer, images: Tensor) -> _AblationPlan:
    """Plan the ablations of a layer.

    A tail from torch.fx is used only if it reproduces the network's logits on one image.
    """
    image = images[:1].nan_to_num(0, 0, 0)  # with NaN logits no comparison would hold
    activations, logits = activations_and_logits(network, layer, image)
    channels = activations.shape[1]
    ablated = activations.clone()
    ablated[:, ::2] = 0
    tail = extract_tail(network, layer)
    logits_of_tail = None if tail is None else _run_tail(tail, torch.cat([activations, ablated, activations - ablated, 0 * activations]))
    if tail is None or logits_of_tail is None or not _close(logits_of_tail[:1], logits):
        return _AblationPlan(None, False, channels)
    whole, one, other, nothing = logits_of_tail
    if tail.is_affine and _close((one + other - 2 * nothing)[None], (whole - nothing)[None]):
        return _AblationPlan(tail, True, 0)
    share = _multiplications(tail.run, activations.clone()) / max(1, _multiplications(network, image))
    return _AblationPlan(tail, False, math.ceil(channels * share))


def _run_tail(tail: Tail, activations: Tensor) -> Tensor | None:
    """Return the tail's logits; None if it runs for other activations only.

    Tracing turns what a network computes from the sizes of its input, such as the number of images, into constants.
    """
    try:
        return tail.run(activations.clone())  # a tail may begin with an operation in place
    except (RuntimeError, TypeError) as error:
        if is_fatal(error):
            raise
        return None


def _close(actual: Tensor, expected: Tensor) -> bool:
    """Return whether logits (N, classes) agree, relative to their spread."""
    spread = expected.amax() - expected.amin()
    return bool((actual - expected).abs().amax() <= torch.maximum(_TOLERANCE * spread, _ROUNDING * expected.abs().amax()))


def _multiplications(run: Callable[[Tensor], object], x: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        run(x)
    return int(counter.get_total_flops())


def _weighted_sum(drops: Tensor, activations: Tensor) -> Tensor:
    """Return sum_k w_k A_k with w_k = (y_c - y_c^k) / |y_c|, up to |y_c|: (B, h, w).

    N removes the positive factor |y_c|. The paper divides by y_c. For y_c > 0 that is the same map; for y_c < 0 it would flip every
    weight's sign, and evidence against the class would be salient.

    Args:
        drops: y_c - y_c^k, (B, K).
        activations: A, (B, K, h, w).
    """
    return (drops[:, :, None, None] * activations).sum(1)


def _closed_form(part: ExplainJob, layer: TargetLayer) -> Tensor:
    """Compute all drops from one gradient: y_c - y_c^k = sum_ij A_ij dy_c / dA_ij.

    For pooling and a linear layer this is w_ck mean(A_k).
    """
    output = layer_output_of(part, layer)
    activations, gradients = output.activations.detach(), output.gradients(part.targets)
    part.passes.add(len(activations))
    return _weighted_sum((gradients * activations).sum((2, 3)), activations)


@torch.no_grad()
def _ablate_channels(part: ExplainJob, layer: TargetLayer, plan: _AblationPlan, logits_of: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Compute each drop by a forward of its own.

    Args:
        logits_of: ablated activations (N, K, h, w) and the index of their images (N,) -> logits (N, classes).
    """
    output = layer_output_of(part, layer)
    activations, logits = output.activations.detach(), output.logits.detach()
    batch, channels = activations.shape[:2]
    part.passes.add(batch)
    rows = torch.arange(batch * channels, device=activations.device)
    scores = []
    for chunk in torch.split(rows, part.batch):
        image, channel = chunk // channels, chunk % channels
        ablated = activations[image]
        ablated[torch.arange(len(chunk), device=chunk.device), channel] = 0
        scores.append(logits_of(ablated, image).gather(1, part.targets[image, None])[:, 0])
    if plan.passes:
        part.passes.add(batch * plan.passes)
    drops = logits.gather(1, part.targets[:, None]) - torch.cat(scores).view(batch, channels)
    return _weighted_sum(drops, activations)


def _run(job: ExplainJob, settings: CAMSettings) -> RawMaps:
    network = job.classifier.module
    layer = layer_of(job, settings)
    plan = _plan_ablations(network, layer, job.images)
    if plan.affine:
        with suppress(NoGradientError):  # the head runs under torch.no_grad(): one forward per channel gives the same map
            return in_batches(job, layer, _closed_form)
    tail = plan.tail
    calls = count_calls(network, layer, job.images) if tail is None else 0

    def cam(part: ExplainJob, layer: TargetLayer) -> Tensor:
        if tail is not None:
            return _ablate_channels(part, layer, plan, lambda ablated, image: tail.run(ablated))

        def logits_of(ablated: Tensor, image: Tensor) -> Tensor:
            return logits_with_activations(network, layer, calls, ablated, part.images[image])

        return _ablate_channels(part, layer, plan, logits_of)

    return in_batches(job, layer, cam)


def _extra_passes(settings: CAMSettings, classifier: Classifier, image: Tensor) -> int:
    """Return 0 where there is a closed form, else the cost of one forward per channel."""
    with classifier.frozen() as network:
        return _plan_ablations(network, target_layer(network, settings, image), image).passes


ABLATION_CAM = cam_method(
    id="ablation_cam",
    title="Ablation-CAM",
    source="Desai, Ramaswamy: Ablation-CAM: Visual Explanations for Deep Convolutional Network via Gradient-free Localization, WACV 2020",
    run=_run,
    network_passes=_extra_passes,
    gradient_optional=True,
)

"""DeepLIFT, Rescale rule: contributions to a logit's difference from a reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from hdm_core.checks.finding import Finding
from hdm_core.classifier import Classifier
from hdm_core.masking.baselines import baseline_image
from hdm_core.methods.attribution import maps_of_signed, pixel_shares
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.network.functions import ELEMENTWISE, function_name, input_first
from hdm_core.network.gradients import gradient_of
from hdm_core.network.logits import class_logits
from hdm_core.settings import Baseline, Settings
from hdm_core.sources.exported import require_operations

_MAX_POOLS: Mapping[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "max_pool2d": F.max_pool2d_with_indices,
    "adaptive_max_pool2d": F.adaptive_max_pool2d_with_indices,
}
# Input differences smaller than this give no reliable quotient: the gradient at the image is taken instead.
_NEAR = 1e-6
_INCOMPLETE = 0.05  # share of a logit's change that the contributions may miss; 1e-6 in networks of convolutions and ReLU


class DeepLiftSettings(Settings):
    """Settings of DeepLIFT: the reference."""

    baseline: Baseline = Field("mean", description="the reference: the normalisation mean, black, the blurred image, or noise")


@torch.enable_grad()
def deeplift(network: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor) -> Tensor:
    """Compute contributions by the Rescale rule (Section 3.5 of the paper).

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W); 2 B images go through the network at once.
        targets: (B,) int64.
        baseline: the reference, broadcastable to images.

    Returns:
        (B, C, H, W) in logits. An image's sum is f_p(x) - f_p(baseline), unless the network multiplies activations with each other.

    Raises:
        ValueError: if an activation does not have the images along its first axis, no gradient reaches the images, or the network is
            TorchScript, whose non-linear functions are not seen.
    """
    require_operations(network)
    images = images.detach().requires_grad_()
    baseline = baseline.expand_as(images)
    with Rescale(len(images)):
        logits = class_logits(network, torch.cat([images, baseline]))
    score = logits[: len(images)].gather(1, targets[:, None]).sum()
    return gradient_of(score, images) * (images.detach() - baseline)


class Rescale(TorchFunctionMode):
    """Context that gives non-linear functions the gradient (y - y') / (x - x').

    x and y are the input and output of the function at an image, x' and y' at its reference. The context intercepts function calls, not
    modules: modules used twice, functions without a module and in-place functions are all handled, and the network is not modified.
    Batches hold B images and then their B references; only the images' half is differentiable.

    Args:
        images: B.
    """

    def __init__(self, images: int) -> None:
        super().__init__()
        self._image_count = images

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        args, kwargs = input_first(args, kwargs)
        name = function_name(func)
        if not (name in ELEMENTWISE or name in _MAX_POOLS) or not isinstance(args[0], Tensor) or not args[0].requires_grad:
            return func(*args, **kwargs)
        if not torch.is_grad_enabled():  # in the forward of an autograd.Function, which keeps its own gradient
            return func(*args, **kwargs)
        x, rest = args[0], args[1:]
        if x.ndim == 0 or len(x) % (2 * self._image_count):
            raise ValueError(f"deeplift needs activations with the images along their first axis; {name} was called with {tuple(x.shape)}")
        if name in _MAX_POOLS:
            return _max_pool(x, lambda v: _MAX_POOLS[name](v, *rest, **{**kwargs, "return_indices": True}))
        return _elementwise(x, lambda v: func(v, *rest, **kwargs))


def _elementwise(x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Apply an elementwise function with the rescaled gradient."""
    leaf = x.detach().requires_grad_()
    argument = leaf.clone()  # an in-place function overwrites it
    y = function(argument)
    (gradient,) = torch.autograd.grad(y.sum(), leaf)
    image, reference = leaf.detach().chunk(2)
    multipliers = _quotient(torch.sub(*y.detach().chunk(2)), image - reference, gradient.chunk(2)[0])
    rescaled = _with_gradient(y, x.chunk(2)[0], multipliers)
    return x.copy_(rescaled) if y is argument else rescaled


def _max_pool(x: Tensor, pool: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
    """Max-pool with all of y - y' attributed to the pixel that causes it.

    Where y >= y' it is the image's largest pixel, else the reference's. That pixel's own difference is at least as large, so multipliers
    are in [0, 1], and nothing is lost when image and reference have their largest values at different pixels.
    """
    y, indices = pool(x.detach())
    difference = torch.sub(*y.chunk(2)).flatten(2)
    at_image, at_reference = indices.flatten(2).chunk(2)
    index = torch.where(difference >= 0, at_image, at_reference)
    image, reference = x.flatten(2).chunk(2)
    input_difference = (image - reference).detach().gather(2, index)
    multipliers = _quotient(difference, input_difference, torch.ones_like(input_difference))
    return _with_gradient(y, image.gather(2, index), multipliers)


def _quotient(difference: Tensor, input_difference: Tensor, gradient: Tensor) -> Tensor:
    """Divide output by input differences; take `gradient` where the latter are tiny."""
    near = input_difference.abs() < _NEAR
    return torch.where(near, gradient, difference / torch.where(near, 1.0, input_difference))


def _with_gradient(y: Tensor, x: Tensor, multipliers: Tensor) -> Tensor:
    """Return the values y with the gradient `multipliers` to x for the images' half.

    Args:
        y: of images and references, (2 B, ...).
        x: of the images, with as many elements as their half of y.
        multipliers: of the shape of x.
    """
    image, reference = y.detach().chunk(2)
    zero = (multipliers * (x - x.detach())).reshape(image.shape)
    return torch.cat([image + zero, reference])


def _run(job: ExplainJob, settings: DeepLiftSettings) -> RawMaps:
    baseline = baseline_image(settings.baseline, job.classifier, job.images).expand_as(job.images)
    shares = []
    for rows in torch.split(torch.arange(len(job.images), device=job.images.device), max(1, job.batch // 2)):
        shares.append(pixel_shares(deeplift(job.classifier.module, job.images[rows], job.targets[rows], baseline[rows])))
        job.passes.add(2 * len(rows))  # the image and its reference
    return maps_of_signed(torch.cat(shares))


@torch.no_grad()
def _check(settings: DeepLiftSettings, classifier: Classifier, image: Tensor) -> Finding:
    """Compare the sum of an image's contributions with the change of its logit."""
    baseline = baseline_image(settings.baseline, classifier, image)
    with classifier.frozen() as network:
        logits = class_logits(network, torch.cat([image, baseline.expand_as(image)]))
        target = (logits[:1] - logits[1:]).abs().argmax(1)  # of the class that changes most
        contributions = deeplift(network, image, target, baseline)
    change = float((logits[0] - logits[1])[target])
    share = float(contributions.sum()) / change if change else 1.0
    if abs(share - 1) <= _INCOMPLETE:
        return Finding("method", "ok", "contributions sum to the change of the logit")
    return Finding(
        "method",
        "doubtful",
        f"contributions sum to {share:.2g} of the change of the logit, because the network multiplies activations with each other, as "
        "attention and layer normalisation do: they are no shares of it",
    )


DEEPLIFT = Method(
    id="deeplift",
    title="DeepLIFT",
    source="Shrikumar, Greenside, Kundaje: Learning Important Features Through Propagating Activation Differences, ICML 2017",
    settings=DeepLiftSettings,
    presets={"standard": DeepLiftSettings(baseline="mean")},
    default="standard",
    run=_run,
    pairs_images=True,
    passes=lambda settings, height, width: 2,
    check=_check,
    family="gradient",
    sign="absolute values",
    signed=True,
)

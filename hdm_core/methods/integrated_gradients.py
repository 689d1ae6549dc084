"""Integrated Gradients: gradients averaged on the path from baseline to image."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from hdm_core.masking.baselines import baseline_image
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.methods.attribution import maps_of_signed, pixel_shares, sum_gradients
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.settings import Baseline, Settings


class IntegratedGradientsSettings(Settings):
    """Settings of Integrated Gradients: baseline and number of steps."""

    steps: int = Field(50, ge=1, description="points on the path at which gradients are computed")
    baseline: Baseline = Field("mean", description="start of the path: the normalisation mean, black, the blurred image, or noise")


def integrated_gradients(
    network: nn.Module, images: Tensor, targets: Tensor, baseline: Tensor, steps: int, batch: int, passes: PassCounter
) -> Tensor:
    """Compute Eq. 1 of the paper by Gauss-Legendre quadrature.

    The quadrature is exact for gradients that are polynomials of degree up to 2 steps - 1 along the path.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W).
        targets: (B,) int64.
        baseline: broadcastable to images.
        steps: points on the path.
        batch: at most this many points go through the network at once; they may belong to different images.
        passes: counter of the passes.

    Returns:
        Attributions (B, C, H, W) in logits. An image's sum is f_p(x) - f_p(baseline), up to the error of the quadrature.
    """
    nodes, weights = (values.to(images)[:, None, None, None] for values in gauss_legendre(steps))
    baseline = baseline.expand_as(images)
    path = images - baseline

    def at(image: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        return baseline[image] + nodes[step] * path[image], weights[step]

    return sum_gradients(network, images, targets, steps, at, batch, passes) * path


def gauss_legendre(points: int) -> tuple[Tensor, Tensor]:
    """Return nodes in (0, 1), ascending, and weights that sum to 1, (points,) float64.

    They are the eigenvalues of the Legendre polynomials' recurrence matrix and the squared first entries of its eigenvectors (Golub and
    Welsch 1969).
    """
    k = torch.arange(1, points, dtype=torch.float64)
    off_diagonal = k / (4 * k**2 - 1).sqrt()
    values, vectors = torch.linalg.eigh(torch.diag(off_diagonal, 1) + torch.diag(off_diagonal, -1))
    return (values + 1) / 2, vectors[0] ** 2


def _run(job: ExplainJob, settings: IntegratedGradientsSettings) -> RawMaps:
    baseline = baseline_image(settings.baseline, job.classifier, job.images)
    with job.classifier.folded(job.images[:1]) as network:
        attributions = integrated_gradients(network, job.images, job.targets, baseline, settings.steps, job.batch, job.passes)
    return maps_of_signed(pixel_shares(attributions))


INTEGRATED_GRADIENTS = Method(
    id="integrated_gradients",
    title="Integrated Gradients",
    source="Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks, ICML 2017, arXiv 1703.01365",
    settings=IntegratedGradientsSettings,
    presets={"standard": IntegratedGradientsSettings(steps=50)},
    default="standard",
    run=_run,
    passes=lambda settings, height, width: int(settings.steps),
    family="gradient",
    sign="absolute values",
    signed=True,
)

"""iGOS++: a deletion and an insertion mask, descended along integrated gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from hdm_core.device import LAYOUT
from hdm_core.draws import method_generator
from hdm_core.masking.baselines import baseline_image
from hdm_core.masking.ops import Upsampling
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.methods.job_loss import job_loss
from hdm_core.methods.mask import DeletionLoss
from hdm_core.settings import Baseline, Settings


class IGOSPlusPlusSettings(Settings):
    """Settings of iGOS++: the authors' constants, but for the step."""

    steps: int = Field(20, ge=1, description="Nesterov steps of both masks")
    points: int = Field(15, ge=1, description="S: points of each integrated gradient")
    learning_rate: float = Field(3.0, gt=0, description="of masks of 28 x 28 cells; for other numbers of cells in proportion")
    cells: int = Field(28, ge=2, description="cells of a mask along the shorter side of the image, at most as many as pixels")
    l1: float = Field(1.0, ge=0, description="lambda_1, weight of the mean of |1 - M|")
    tv: float = Field(20.0, ge=0, description="lambda_2, weight of the bilateral total variation of M")
    sigma: float = Field(0.01, gt=0, description="how fast an edge of the image frees the mask from that variation")
    noise: float = Field(
        0.2, ge=0, description="standard deviation of the noise on every masked image, in units of the preprocessing's std"
    )
    baseline: Baseline = Field("blur", description="value of a masked pixel: the blurred image, the normalisation mean, black, or noise")


def igos_pp(deletion: DeletionLoss, edges: tuple[Tensor, Tensor], noise: float, settings: IGOSPlusPlusSettings) -> Tensor:
    """Return 1 - M_d M_i for the masks that minimise the loss of iGOS++.

    The loss is (D(M_d M_i) - I(M_d M_i) + D(M_d) - I(M_i)) / 2 + R(M_d M_i). D(M) is the mean over s of f_p where s / S of M keeps the
    image and the rest is the baseline, I(M) where s / S of M is the baseline and the rest the image, so that its derivative is the
    integrated gradient of M; s = 1 .. S. f_p is the probability. A step adds i / (i + 3) of the last one, and masks are clamped to [0, 1].

    Args:
        deletion: holds the images X.
        edges: of X, see `edge_weights`.
        noise: standard deviation of the noise, in units of X.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    height, width = deletion.contrast.shape[-2:]
    scale = settings.cells / min(height, width)
    size = min(height, max(2, round(height * scale))), min(width, max(2, round(width * scale)))
    upsampling = Upsampling(size, height, width, deletion.contrast)
    masks = [deletion.contrast.new_ones(len(deletion), 1, *size) for _ in range(2)]
    descended = [torch.zeros_like(mask) for mask in masks]
    # A cell's gradient is in inverse proportion to the number of cells: every term of the loss is a mean over the mask.
    rate = settings.learning_rate * size[0] * size[1] / 28**2
    for step, noises in enumerate(_noises(deletion, settings, noise)):
        gradients = _integrated_gradients(deletion, [upsampling(mask) for mask in masks], noises)
        product = masks[0] * masks[1]
        to_product = regularisation_gradient(product, upsampling, edges, settings)
        momentum = step / (step + 3)
        for i, other in ((0, masks[1]), (1, masks[0])):
            gradient = upsampling.adjoint(gradients[i]) / 2 + to_product * other
            before, descended[i] = descended[i], masks[i] - rate * gradient
            masks[i] = (descended[i] + momentum * (descended[i] - before)).clamp_(0, 1)
    return upsampling(1 - masks[0] * masks[1]).clamp(0, 1)


def edge_weights(images: Tensor, unit: float, sigma: float) -> tuple[Tensor, Tensor]:
    """Return exp(-d^2 / sigma) for the differences d of neighbouring pixels.

    d is the mean over the channels, in units of the preprocessing's standard deviation.

    Args:
        images: (B, C, H, W).
        unit: that standard deviation.

    Returns:
        (B, 1, H - 1, W) of pixels below each other, (B, 1, H, W - 1) of pixels beside each other.
    """
    grey = (images / unit).mean(1, keepdim=True)
    return torch.exp(-(grey.diff(dim=2) ** 2) / sigma), torch.exp(-(grey.diff(dim=3) ** 2) / sigma)


@torch.enable_grad()
def regularisation_gradient(
    product: Tensor, upsampling: Upsampling, edges: tuple[Tensor, Tensor], settings: IGOSPlusPlusSettings
) -> Tensor:
    """Return the gradient of R(M) = l1 mean |1 - M| + tv BTV(M), (B, 1, a, b).

    BTV is half of the mean squared differences of neighbouring cells of M, plus half of those of neighbouring pixels of g(M), which
    `edges` weighs: M may change where the image does. Where M is 1 the derivative of |1 - M| is taken to be 0, as the authors' program
    does: otherwise the masks, which start from 1, would not leave it where the class loses little.
    """
    m = product.detach().requires_grad_()
    variation = torch.stack([m.diff(dim=axis).square().mean((1, 2, 3)).sum() for axis in (2, 3)]).sum()
    (to_cells,) = torch.autograd.grad(settings.l1 * (1 - m).abs().mean((1, 2, 3)).sum() + settings.tv * variation / 2, m)
    enlarged = upsampling(product).detach().requires_grad_()
    differences = [weight * enlarged.diff(dim=axis).square() for weight, axis in zip(edges, (2, 3), strict=True)]
    bilateral = torch.stack([each.mean((1, 2, 3)).sum() for each in differences]).sum()
    (to_pixels,) = torch.autograd.grad(settings.tv * bilateral / 2, enlarged)
    return to_cells + upsampling.adjoint(to_pixels)


def _integrated_gradients(deletion: DeletionLoss, masks: list[Tensor], noises: list[Tensor]) -> list[Tensor]:
    """Return the gradients to the pixels of M_d and M_i, (B, 1, H, W) each.

    They are those of D(M_d M_i) - I(M_d M_i) + D(M_d) - I(M_i).
    """
    images = torch.arange(len(deletion), device=deletion.contrast.device)
    product, points = masks[0] * masks[1], len(noises)
    totals = [torch.zeros_like(product) for _ in range(2)]
    clean = deletion.baseline
    for number, added in enumerate(noises, 1):
        share = number / points
        tried = [share * product, 1 - share * product, share * masks[0], 1 - share * masks[1]]
        # Image and baseline have the same noise, so that every masked image has it.
        deletion.baseline = clean + added
        # The derivative of I has the sign of that of D: its mask removes what D's mask keeps, and I is maximised.
        kept, removed, alone, inserted = deletion.gradient(torch.cat(tried), images.repeat(4)).chunk(4)
        together = share / points * (kept + removed)
        totals[0] += together * masks[1] + share / points * alone
        totals[1] += together * masks[0] + share / points * inserted
    deletion.baseline = clean
    return totals


def _noises(deletion: DeletionLoss, settings: IGOSPlusPlusSettings, noise: float) -> Iterator[list[Tensor]]:
    """Yield the noise of every step: one image (1, C, H, W) per point.

    It is drawn on the CPU with a fixed seed, the same for all images: maps depend neither on the device nor on the batch. Every step has
    the numbers of the first, shifted in a circle by a random number of pixels: a copy in every step would make the host wait for the
    device, and the numbers of all steps have 180 MB.
    """
    generator = method_generator()
    height, width = deletion.contrast.shape[-2:]
    first = (noise * torch.randn(settings.points, 1, *deletion.contrast.shape[1:], generator=generator)).to(deletion.contrast)
    shifts = torch.stack([torch.randint(side, (settings.steps,), generator=generator) for side in (height, width)], 1)
    for shift in shifts.tolist():
        yield [each.contiguous(memory_format=LAYOUT) for each in first.roll(shift, (-2, -1))]


def _run(job: ExplainJob, settings: IGOSPlusPlusSettings) -> RawMaps:
    baseline = baseline_image(settings.baseline, job.classifier, job.images).expand_as(job.images)
    spread = 1.0 if job.classifier.preprocess is None else job.classifier.preprocess.spread
    edges = edge_weights(job.images, spread, settings.sigma)
    with job.classifier.folded(job.images[:1]) as network, torch.no_grad():
        # In float32 whatever the precision, as Mask.
        deletion = job_loss(DeletionLoss, replace(job, precision="float32"), network, baseline, "probability")
        return RawMaps(igos_pp(deletion, edges, settings.noise * spread, settings)[:, 0])


IGOS_PP = Method(
    id="igos_pp",
    title="iGOS++",
    source="Khorram, Lawson, Li: iGOS++: Integrated Gradient Optimized Saliency by Bilateral Perturbations, CHIL 2021, arXiv 2012.15783; "
    "Nesterov's steps: Jiang, Khorram, Li, BMVC 2023",
    settings=IGOSPlusPlusSettings,
    presets={"paper": IGOSPlusPlusSettings(steps=20)},
    default="paper",
    run=_run,
    pairs_images=True,
    passes=lambda settings, height, width: int(4 * settings.points * settings.steps),
    family="mask optimisation",
    sign="only evidence for the class",
)

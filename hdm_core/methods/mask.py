"""Mask: the smallest smooth region whose blurring removes the class."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from hdm_core.draws import method_generator
from hdm_core.masking.baselines import baseline_image
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.ops import Upsampling
from hdm_core.masking.optimizer import MaskBank
from hdm_core.masking.passes import PassInputs
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.methods.job_loss import job_loss
from hdm_core.settings import Baseline, Settings

# A circle suffices when at most this share of the probability that blurring the whole image removes remains.
_REMAINING = 0.01


class MaskSettings(Settings):
    """Settings of Mask: the authors' constants for images of 224 pixels.

    l1 and tv weigh sums over the mask's cells, not means.
    """

    steps: int = Field(300, ge=1, description="Adam steps")
    learning_rate: float = Field(0.1, gt=0)
    cell: int = Field(8, ge=1, description="pixels along a side of one value of the mask")
    blur: float = Field(5.0, ge=0, description="sigma, in pixels, of the Gaussian over the upsampled mask")
    l1: float = Field(1e-4, ge=0, description="lambda_1, weight of the sum of |1 - m|")
    tv: float = Field(1e-2, ge=0, description="lambda_2, weight of the sum of |grad m|^beta")
    beta: float = Field(3.0, ge=2, description="power of the mask's gradient")
    jitter: int = Field(4, ge=0, description="the image shifts under the mask in every step, by up to half of this many pixels each way")
    circles: int = Field(33, ge=2, description="circles tried for the start: the smallest that removes the class")
    baseline: Baseline = Field("blur", description="value of a masked pixel: the blurred image, the normalisation mean, black, or noise")


class DeletionLoss(ConsistencyLoss):
    """ConsistencyLoss that minimises f_p itself instead of J."""

    def loss(self, activation: Tensor, inputs: PassInputs) -> Tensor:
        """Return f_p of masked images, (N,)."""
        return activation


def translate(images: Tensor, down: int, right: int) -> Tensor:
    """Shift images (B, C, H, W) by `down` and `right` pixels; edges are repeated."""
    for axis, pixels in ((-2, down), (-1, right)):
        side = images.shape[axis]
        images = images.index_select(axis, (torch.arange(side, device=images.device) - pixels).clamp(0, side - 1))
    return images


@torch.no_grad()
def deletion_mask(deletion: DeletionLoss, settings: MaskSettings) -> Tensor:
    """Return 1 - m for the m that minimises the paper's deletion loss.

    The loss is l1 sum |1 - m| + tv sum |grad m|^beta + E[f_p(Phi(X, g(m)))], where g upsamples the grid of m bilinearly and blurs it, Phi
    blends X with the baseline, and E is over small shifts of the image. Sums are over the cells of m, 28 x 28 for 224 pixels; f_p is the
    probability. After every step m is clamped to [0, 1].

    Args:
        deletion: holds the images X.

    Returns:
        (B, 1, H, W) in [0, 1].
    """
    height, width = deletion.contrast.shape[-2:]
    size = -(-height // settings.cell), -(-width // settings.cell)
    upsampling = Upsampling(size, height, width, deletion.contrast, settings.blur)
    images = torch.arange(len(deletion), device=deletion.contrast.device)
    bank = MaskBank([_first_circle(deletion, upsampling, size, images, settings.circles)])
    (masks,), (gradients,) = bank.masks, bank.gradients
    optimiser = torch.optim.Adam([bank.values], lr=settings.learning_rate, fused=True)
    bank.values.grad = bank.flat_gradients
    unshifted = deletion.contrast, deletion.baseline
    # On the CPU with a fixed seed: masks depend neither on the device nor on earlier random draws.
    generator = method_generator()
    shifts = torch.randint(2 * (settings.jitter // 2) + 1, (settings.steps, 2), generator=generator) - settings.jitter // 2
    for down, right in shifts.tolist():
        deletion.contrast, deletion.baseline = (translate(image, down, right) for image in unshifted)
        gradients.copy_(upsampling.adjoint(deletion.gradient(upsampling(masks), images)))
        gradients.add_(_regularisation_gradient(masks, settings))
        optimiser.step()
        bank.values.clamp_(0, 1)
    return upsampling(1 - masks).clamp(0, 1)


def _first_circle(deletion: DeletionLoss, upsampling: Upsampling, size: tuple[int, int], images: Tensor, circles: int) -> Tensor:
    """Return the smallest centred circle that removes the class, (B, 1, a, b).

    Candidates range from an empty circle to the whole image.
    """
    rows, columns = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in size)
    distance = torch.hypot(rows[:, None], columns[None])
    radii = torch.linspace(0, math.hypot(*size) / 2, circles, dtype=torch.float64)
    starts = (distance >= radii[:, None, None]).to(deletion.contrast)[:, None]
    scores = torch.stack([deletion.scores(upsampling(start[None]).expand(len(images), -1, -1, -1), images) for start in starts])
    remaining = scores - scores[-1]
    return starts[(remaining <= _REMAINING * remaining[0]).int().argmax(0)]


@torch.enable_grad()
def _regularisation_gradient(masks: Tensor, settings: MaskSettings) -> Tensor:
    """Return the gradient of l1 sum |1 - m| + tv sum |grad m|^beta.

    Masks are in [0, 1], so that |1 - m| = 1 - m, also where m = 1.
    """
    m = masks.detach().requires_grad_()
    down = torch.diff(m, dim=2, append=m[:, :, -1:])
    right = torch.diff(m, dim=3, append=m[:, :, :, -1:])
    variation = (down**2 + right**2).pow(settings.beta / 2).sum()
    (gradient,) = torch.autograd.grad(settings.l1 * (1 - m).sum() + settings.tv * variation, m)
    return gradient


def _run(job: ExplainJob, settings: MaskSettings) -> RawMaps:
    baseline = baseline_image(settings.baseline, job.classifier, job.images).expand_as(job.images)
    with job.classifier.folded(job.images[:1]) as network:
        # Not in bfloat16, which moves the start circle and Adam's steps: maps of two photographs correlated with those of float32 by
        # 0.65 and 0.85.
        deletion = job_loss(DeletionLoss, replace(job, precision="float32"), network, baseline, "probability")
        return RawMaps(deletion_mask(deletion, settings)[:, 0])


MASK = Method(
    id="mask",
    title="Mask",
    source="Fong, Vedaldi: Interpretable Explanations of Black Boxes by Meaningful Perturbation, ICCV 2017, arXiv 1704.03296",
    settings=MaskSettings,
    presets={"paper": MaskSettings(steps=300)},
    default="paper",
    run=_run,
    pairs_images=True,
    passes=lambda settings, height, width: int(settings.circles + settings.steps),
    family="mask optimisation",
    sign="only evidence for the class",
)

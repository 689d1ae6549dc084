"""Expected Gradients: Integrated Gradients averaged over random references."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from hdm_core.draws import method_generator
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.methods.attribution import maps_of_signed, pixel_shares, sum_gradients
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.settings import Settings


class ExpectedGradientsSettings(Settings):
    """Settings of Expected Gradients: number of samples."""

    samples: int = Field(200, ge=1, description="references, each with one random point between it and the image, the same for all images")


def expected_gradients(
    network: nn.Module, images: Tensor, targets: Tensor, references: Tensor, positions: Tensor, batch: int, passes: PassCounter
) -> Tensor:
    """Compute the paper's mean of (x - x') df_p / dx at x' + a (x - x').

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W).
        targets: (B,) int64.
        references: x', one per sample, (N, C, H, W) or (N, 1, H, W) for all channels.
        positions: a in [0, 1], one per sample, (N,).
        batch: at most this many points go through the network at once.
        passes: counter of the passes.

    Returns:
        Attributions (B, C, H, W) in logits. An image's sum is f_p(x) - mean f_p(x'), up to the error of the samples.
    """
    positions = positions[:, None, None, None]
    share = 1 / len(references)

    def at(image: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        reference = references[sample]
        path = images[image] - reference
        return reference + positions[sample] * path, share * path

    return sum_gradients(network, images, targets, len(references), at, batch, passes)


def random_references(samples: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Draw grey images with the spectrum of photographs, and positions on paths.

    The amplitude of a spatial frequency f is proportional to 1 / f, as in photographs on average, down to one period per side; the mean
    brightness varies as the lowest frequencies do. All samples together have the root mean square 1. They are drawn on the CPU with a
    fixed seed, so that they depend neither on the device nor on earlier random draws.

    Returns:
        (samples, 1, H, W) and (samples,) in [0, 1), float64.
    """
    generator = method_generator()
    white = torch.randn(samples, 1, height, width, generator=generator, dtype=torch.float64)
    positions = torch.rand(samples, generator=generator, dtype=torch.float64)
    frequency = torch.hypot(torch.fft.fftfreq(height, dtype=torch.float64)[:, None], torch.fft.rfftfreq(width, dtype=torch.float64))
    amplitude = 1 / frequency.clamp_min(1 / max(height, width))
    references = torch.fft.irfft2(torch.fft.rfft2(white) * amplitude, s=(height, width))
    return references / references.square().mean().sqrt(), positions


def _run(job: ExplainJob, settings: ExpectedGradientsSettings) -> RawMaps:
    height, width = job.images.shape[-2:]
    references, positions = random_references(settings.samples, height, width)
    spread = 1.0 if job.classifier.preprocess is None else job.classifier.preprocess.spread
    references, positions = (values.to(job.images) for values in (spread * references, positions))
    with job.classifier.folded(job.images[:1]) as network:
        attributions = expected_gradients(network, job.images, job.targets, references, positions, job.batch, job.passes)
    return maps_of_signed(pixel_shares(attributions))


EXPECTED_GRADIENTS = Method(
    id="expected_gradients",
    title="Expected Gradients",
    source="Erion, Janizek, Sturmfels, Lundberg, Lee: Improving performance of deep learning models with axiomatic attribution priors and "
    "expected gradients, Nature Machine Intelligence 2021, arXiv 1906.10670",
    settings=ExpectedGradientsSettings,
    presets={"standard": ExpectedGradientsSettings(samples=200)},
    default="standard",
    run=_run,
    passes=lambda settings, height, width: int(settings.samples),
    family="gradient",
    sign="absolute values",
    signed=True,
)

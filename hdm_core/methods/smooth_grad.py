"""SmoothGrad: gradients averaged over noisy copies of the image."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from hdm_core.draws import method_generator
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.methods.attribution import maps_of_signed, strongest_channel, sum_gradients
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.settings import Settings


class SmoothGradSettings(Settings):
    """Settings of SmoothGrad: number of noisy copies, and their noise."""

    samples: int = Field(50, ge=1, description="n: noisy copies of each image, with the same noise for all images up to its scale")
    noise: float = Field(
        0.15,
        ge=0,
        allow_inf_nan=False,
        description="standard deviation of the noise, as a share of the image's largest minus smallest value",
    )


def smooth_grad(
    network: nn.Module, images: Tensor, targets: Tensor, noise: Tensor, level: float, batch: int, passes: PassCounter
) -> Tensor:
    """Compute the paper's mean gradient 1 / n sum_k df_p / dx at x + sigma e_k.

    sigma = level (max x - min x) of each image.

    Args:
        network: frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W).
        targets: (B,) int64.
        noise: e, standard normal, (n, C, H, W).
        level: the paper's noise level.
        batch: at most this many noisy images go through the network at once.
        passes: counter of the passes.

    Returns:
        (B, C, H, W), signed, in logits per unit of the images.
    """
    spread = images.flatten(1).amax(1) - images.flatten(1).amin(1)
    sigma = (level * spread)[:, None, None, None]
    weight = torch.full((1, 1, 1, 1), 1 / len(noise), dtype=images.dtype, device=images.device)

    def at(image: Tensor, sample: Tensor) -> tuple[Tensor, Tensor]:
        return images[image] + sigma[image] * noise[sample], weight

    return sum_gradients(network, images, targets, len(noise), at, batch, passes)


def standard_noise(samples: int, like: Tensor) -> Tensor:
    """Return standard normal values for images, (samples, C, H, W).

    They are drawn in float32 on the CPU with a fixed seed, so that they depend neither on the device nor on earlier random draws, and
    copied to the device at once.
    """
    generator = method_generator()
    return torch.randn(samples, *like.shape[1:], generator=generator, dtype=torch.float32).to(like)


def _run(job: ExplainJob, settings: SmoothGradSettings) -> RawMaps:
    noise = standard_noise(settings.samples, job.images)
    with job.classifier.folded(job.images[:1]) as network:
        gradients = smooth_grad(network, job.images, job.targets, noise, settings.noise, job.batch, job.passes)
    return maps_of_signed(strongest_channel(gradients))


SMOOTH_GRAD = Method(
    id="smooth_grad",
    title="SmoothGrad",
    source="Smilkov, Thorat, Kim, Viégas, Wattenberg: SmoothGrad: removing noise by adding noise, arXiv 1706.03825",
    settings=SmoothGradSettings,
    presets={"paper": SmoothGradSettings(samples=50, noise=0.15)},
    default="paper",
    run=_run,
    passes=lambda settings, height, width: int(settings.samples),
    family="gradient",
    sign="absolute values",
    signed=True,
)

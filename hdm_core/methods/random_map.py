"""Random map: smooth random values that differ from image to image."""

from __future__ import annotations

import hashlib

import torch
from pydantic import Field
from torch import Tensor

from hdm_core.masking.ops import upsample
from hdm_core.methods.base import ExplainJob
from hdm_core.methods.control import control_method
from hdm_core.settings import Settings


class RandomMapSettings(Settings):
    """Settings of the random map: its grid and its seed."""

    cells: int = Field(7, ge=2, description="random values along each side, upsampled bilinearly to the image; 7 as in the masks of RISE")
    seed: int = Field(0, ge=0, description="another seed gives other maps")


def random_values(image: Tensor, settings: RandomMapSettings) -> Tensor:
    """Return the image's random numbers in [0, 1), (1, cells, cells) float32.

    Their seed is the SHA-256 of the image's bytes in float32 and of the setting `seed`: an image has the same map in every batch, shard and
    order, after a resume, and on every device.

    Args:
        image: (C, H, W), on the CPU.
    """
    content = hashlib.sha256(image.float().contiguous().view(torch.uint8).numpy().data)
    content.update(str(settings.seed).encode())
    generator = torch.Generator().manual_seed(int.from_bytes(content.digest()[:8], "big") >> 1)  # a seed has 63 bits
    return torch.rand(1, settings.cells, settings.cells, generator=generator, dtype=torch.float32)


def _maps(job: ExplainJob, settings: RandomMapSettings) -> Tensor:
    height, width = job.images.shape[-2:]
    values = torch.stack([random_values(image, settings) for image in job.images.cpu()])  # one wait for the device
    return upsample(values.to(job.images), height, width)[:, 0]


RANDOM_MAP = control_method(
    id="random_map",
    title="Random map",
    source="the random attribution of Samek et al.: Evaluating the Visualization of What a Deep Neural Network Has Learned, TNNLS 2017",
    settings=RandomMapSettings(cells=7),
    maps=_maps,
)

"""RISE: random masks weighted by the class's probability on the masked image."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from hdm_core.draws import method_generator
from hdm_core.masking.baselines import baseline_image
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.ops import normalise, upsample
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.methods.job_loss import job_loss
from hdm_core.settings import Baseline, Settings


class RiseSettings(Settings):
    """Settings of RISE: number and kind of the random masks."""

    masks: int = Field(4000, ge=1, description="N: random masks, the same for all images")
    cells: int = Field(7, ge=1, description="s: cells along a side of the grid that a mask is upsampled from")
    keep_probability: float = Field(0.5, gt=0, lt=1, description="p: the probability that a cell is shown")
    baseline: Baseline = Field("mean", description="value of a masked pixel: the normalisation mean, black, the blurred image, or noise")


class RandomMasks:
    """N random masks (Section 3.2): grids of s x s bits, upsampled and cropped.

    A grid is upsampled to (s + 1) cells a side and cropped at a random offset. Grids and offsets are drawn on the CPU with a fixed seed,
    so that mask n is the same for every image, batch and device. They are drawn at once and stored as bits; masks are computed when they
    are indexed.
    """

    def __init__(self, settings: RiseSettings, height: int, width: int, like: Tensor) -> None:
        generator = method_generator()
        count, cells = settings.masks, settings.cells
        uniform = torch.rand(count, 1, cells, cells, generator=generator, dtype=torch.float32)
        self._grids = (uniform < settings.keep_probability).to(like.device)
        self._sides = (height, width)
        self._cell = (-(-height // cells), -(-width // cells))
        self._cells = cells
        self._offsets = [torch.randint(cell, (count, 1), generator=generator).to(like.device) for cell in self._cell]
        self._like = like

    def __len__(self) -> int:
        """Return N."""
        return len(self._grids)

    def __getitem__(self, part: slice) -> Tensor:
        """Return a slice of the masks, (n, 1, H, W) in [0, 1]."""
        upsampled = upsample(self._grids[part].to(self._like), *((self._cells + 1) * cell for cell in self._cell))[:, 0]
        rows, columns = (
            offset[part] + torch.arange(side, device=offset.device) for offset, side in zip(self._offsets, self._sides, strict=True)
        )
        mask = torch.arange(len(upsampled), device=upsampled.device)
        return upsampled[mask[:, None, None], rows[:, :, None], columns[:, None, :]][:, None]


def rise(consistency: ConsistencyLoss, masks: RandomMasks, keep_probability: float) -> Tensor:
    """Compute the paper's Monte Carlo estimate S = 1 / (N p) sum_n f_p(M_n X) M_n.

    Args:
        consistency: holds the images X.

    Returns:
        (B, H, W).
    """
    images = torch.arange(len(consistency), device=consistency.contrast.device)
    masks_per_batch = max(1, consistency.batch // len(images))
    total = torch.zeros_like(consistency.contrast[:, 0])
    for start in range(0, len(masks), masks_per_batch):
        part = masks[start : start + masks_per_batch]
        scores = consistency.scores(part.repeat_interleave(len(images), 0), images.repeat(len(part)))
        total += torch.einsum("nb,nhw->bhw", scores.view(-1, len(images)), part[:, 0])
    return total / (len(masks) * keep_probability)


def _run(job: ExplainJob, settings: RiseSettings) -> RawMaps:
    baseline = baseline_image(settings.baseline, job.classifier, job.images)
    height, width = job.images.shape[-2:]
    masks = RandomMasks(settings, height, width, job.images)
    with job.classifier.folded(job.images[:1], job.precision) as network:
        consistency = job_loss(ConsistencyLoss, job, network, baseline, "probability")
        return RawMaps(normalise(rise(consistency, masks, settings.keep_probability)))


RISE = Method(
    id="rise",
    title="RISE",
    source="Petsiuk, Das, Saenko: RISE: Randomized Input Sampling for Explanation of Black-box Models, BMVC 2018, arXiv 1806.07421",
    settings=RiseSettings,
    presets={"paper": RiseSettings(masks=4000)},
    default="paper",
    run=_run,
    passes=lambda settings, height, width: int(settings.masks),
    backward=False,
    family="random masks",
    sign="mean probability, no sign",
)

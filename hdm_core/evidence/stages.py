"""Stages of the search for evidence: rank what is left, find a piece, remove it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdm_core.evidence.result import Evidence, EvidenceStatus, Piece
from hdm_core.evidence.search import Sufficient, cell_numbers, run_searches, smallest_set
from hdm_core.evidence.settings import EvidenceSettings
from hdm_core.masking.baselines import baseline_image
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.dynamic import dm_passes, ensemble_mask
from hdm_core.methods.base import ExplainJob
from hdm_core.methods.dm import consistency_losses
from hdm_core.methods.job_loss import job_loss
from hdm_core.methods.start import starting_maps


class EvidenceSearch:
    """Search for the pieces of evidence of a job's images.

    Args:
        job: images and classes.
        trained: the job's classifier, folded, in the job's precision; masks are trained on it.
        tried: the same in float32; sets of pixels are tried on it.
    """

    def __init__(self, job: ExplainJob, trained: nn.Module, tried: nn.Module, settings: EvidenceSettings) -> None:
        self._job, self._network, self._settings, self._blocks = job, trained, settings, settings.blocks
        self._baseline = baseline_image(settings.baseline, job.classifier, job.images)
        self._size = (job.images.shape[-2], job.images.shape[-1])
        self._cells = cell_numbers(*self._size, settings.cells, job.images.device)
        self._passes_per_mask = dm_passes(self._blocks, *self._size)
        self._probe = job_loss(ConsistencyLoss, replace(job, precision="float32"), tried, self._baseline, settings.score)
        self._scores, self._blank = self._probe.reference.tolist(), self._probe.baseline_scores.tolist()
        count = len(job.images)
        self._is_share_of_probability = settings.score == "probability" and job.classifier.problem_type != "regression"
        self._left = torch.ones(count, len(self._cells), dtype=torch.bool, device=job.images.device)
        self._kept_by_rest = [1.0] * count  # sufficiency of what is left
        self._found: list[list[Sufficient]] = [[] for _ in range(count)]
        self._passes = [0] * count

    def run(self) -> Evidence:
        """Find all pieces; images that are done leave the batch."""
        status = [self._refusal(image) for image in range(len(self._left))]
        open_images = [image for image, each in enumerate(status) if each is None]
        while open_images:
            self._find_next(open_images)
            rest = self._sufficiency(self._left[open_images], open_images)
            for image, kept in zip(open_images, rest, strict=True):
                self._kept_by_rest[image] = kept
                if not kept >= self._settings.kept:
                    status[image] = "complete"
                elif len(self._found[image]) == self._settings.max_pieces:
                    status[image] = "max_pieces"
            open_images = [image for image in open_images if status[image] is None]
        return Evidence(
            pieces=self._pieces(),
            status=[each for each in status if each is not None],
            comprehensiveness=[1 - rest if found else math.nan for rest, found in zip(self._kept_by_rest, self._found, strict=True)],
            targets=self._job.targets,
            contrasts=None,
            scores=self._scores,
            baseline_scores=self._blank,
            passes=self._passes,
            size=self._size,
        )

    def _refusal(self, image: int) -> EvidenceStatus | None:
        """Return the reason for which an image has no pieces, or None."""
        score, blank = self._scores[image], self._blank[image]
        if not (math.isfinite(score) and math.isfinite(blank)):
            return "nan"
        unit = self._unit(image)
        # A regression's output may fall from the baseline to the image; the score of a class must rise.
        if unit == 0 or (unit < 0 and self._job.classifier.problem_type != "regression"):
            return "no_contrast"
        return "no_contrast" if self._share(blank, image) >= self._settings.kept else None

    def _unit(self, image: int) -> float:
        score: float = self._scores[image]
        return score - self._origin(image)

    def _origin(self, image: int) -> float:
        """Return the score that counts as 0."""
        return 0.0 if self._is_share_of_probability else self._blank[image]

    def _share(self, score: float, image: int) -> float:
        """Return a score as a share of the image's."""
        return (score - self._origin(image)) / self._unit(image)

    def _sufficiency(self, sets: Tensor, images: Sequence[int]) -> list[float]:
        """Return the sufficiency of sets (N, P) of some images, each shown alone."""
        masks = sets.view(len(sets), 1, *self._size).to(self._job.images.dtype)
        scores = self._probe.scores(masks, torch.tensor(images, device=masks.device)).tolist()
        for image in images:
            self._passes[image] += 1
        return [self._share(score, image) for score, image in zip(scores, images, strict=True)]

    def _find_next(self, images: Sequence[int]) -> None:
        """Find the next piece of each of some images, and remove it from what is left."""
        masks = self._masks(images).flatten(1).nan_to_num()
        searches = []
        for image, mask in zip(images, masks, strict=True):
            ranked = mask.argsort(descending=True, stable=True)
            order = ranked[self._left[image][ranked]]
            searches.append(smallest_set(order, self._kept_by_rest[image], self._cells, self._settings))

        def measure(sets: Tensor, numbers: list[int]) -> list[float]:
            return self._sufficiency(sets, [images[number] for number in numbers])

        for image, found in zip(images, run_searches(searches, measure), strict=True):
            self._found[image].append(found)
            self._left[image] &= ~self._with_margin(found.pixels)

    def _with_margin(self, pixels: Tensor) -> Tensor:
        """Return a piece with the square neighbourhood of each of its pixels, (P,) bool."""
        margin = round(self._settings.margin * min(self._size))
        widened: Tensor = F.max_pool2d(pixels.view(1, 1, *self._size).float(), 2 * margin + 1, 1, margin)
        return widened.flatten() > 0

    def _masks(self, images: Sequence[int]) -> Tensor:
        """Train the masks of what is left of some images, (N, H, W)."""
        index = torch.tensor(images, device=self._left.device)
        part = replace(self._job, images=self._job.images[index], targets=self._job.targets[index])
        members, remaining = consistency_losses(part, self._network, self._blocks), part.images
        if self._found[images[0]]:
            baseline = self._baseline if len(self._baseline) == 1 else self._baseline[index]
            left = self._left[index].view(len(index), 1, *self._size)
            remaining = torch.where(left, part.images, baseline)
            # In units of the evidence that is left, which is what has to be ranked now.
            members = [(loss.for_images(remaining, own_unit=True), member) for loss, member in members]
        start = starting_maps(replace(part, images=remaining), self._blocks)
        for image in images:
            self._passes[image] += self._passes_per_mask + (start is not None)
        return ensemble_mask(members, start)[:, 0]

    def _pieces(self) -> list[tuple[Piece, ...]]:
        """Return the pieces of all images, with the necessity of each."""
        numbered = [(image, found) for image, pieces in enumerate(self._found) for found in pieces]
        pieces: list[list[Piece]] = [[] for _ in self._found]
        if numbered:
            without = ~torch.stack([found.pixels for _, found in numbered])
            rests = self._sufficiency(without, [image for image, _ in numbered])
            for (image, found), rest in zip(numbered, rests, strict=True):
                area = int(found.pixels.sum()) / len(self._cells)
                pieces[image].append(Piece(found.pixels.view(self._size), area, found.sufficiency, 1 - rest))
        return [tuple(each) for each in pieces]

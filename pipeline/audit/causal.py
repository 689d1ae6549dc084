"""Causal test of a suspected place: swap its pixels, measure the class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hdm_core import Classifier
from pipeline.audit.finding import Box
from pipeline.tables.student import Interval

_DONORS = 2  # images of other classes that a place is taken from, per image
_KEPT = 0.8  # share of the rise that a smaller box keeps
_PLACES = 2  # random places per image, as large as the suspected one


def shows(change: Interval, sign: int, least: float) -> bool:
    """Return whether a mean change is large enough, its interval beyond 0.

    Args:
        change: mean with its interval; too few images show nothing.
        sign: direction, 1 or -1.
        least: smallest mean, in that direction.
    """
    if change.mean is None or change.low is None or change.high is None:
        return False
    beyond = change.low > 0 if sign > 0 else change.high < 0
    return beyond and sign * change.mean >= least


@dataclass(frozen=True)
class CausalTest:
    """Changes when a place is removed from a class, and inserted into others."""

    removal: Interval
    insertion: Interval

    def confirms(self, least: float) -> bool:
        """Return whether the class's probability depends on the place."""
        return shows(self.removal, -1, least) or shows(self.insertion, 1, least)

    @property
    def larger(self) -> Interval:
        """The change that is larger in its own direction."""
        return self.insertion if (self.insertion.mean or 0.0) >= -(self.removal.mean or 0.0) else self.removal


def swap_place(
    classifier: Classifier, own: Tensor, others: Tensor, target: int, place: Tensor, seed: int, batch: int, removed: Tensor | None = None
) -> CausalTest:
    """Swap a place between images of a class and others; compare random places.

    Removal: the place of an image of the class shows the pixels of an image of another class. Insertion: the place of an image of another
    class shows those of an image of the class. Either is compared with the same swap, between the same two images, at random places of the
    same form that overlap the suspected one by less than half: what remains is not due to a seam or to the number of pixels.

    Args:
        own: images of the class, (A, C, H, W), A at least 1.
        others: images of other classes, (B, C, H, W), B at least 1.
        target: the class.
        place: (H, W) bool.
        seed: of the pairs and random places.
        batch: images per forward pass.
        removed: what the place of each image of the class shows when it is removed, (A, C, H, W), such as the image blurred, instead of
            the pixels of images of other classes.
    """
    rng = np.random.default_rng(seed)
    places = torch.from_numpy(random_places(place.cpu().numpy(), max(len(own), len(others)) * _PLACES, rng)).to(own.device)
    removal = _changes(classifier, own, others if removed is None else removed, target, place, places, rng, batch, removed is not None)
    insertion = _changes(classifier, others, own, target, place, places, rng, batch)
    return CausalTest(Interval.of(np.array(removal)), Interval.of(np.array(insertion)))


def box_pixels(box: Box, size: Sequence[int]) -> Tensor:
    """Return the pixels of a box, (H, W) bool."""
    pixels = torch.zeros(size[0], size[1], dtype=torch.bool)
    pixels[box[1] : box[3], box[0] : box[2]] = True
    return pixels


@torch.no_grad()
def tightened(classifier: Classifier, own: Tensor, others: Tensor, target: int, box: Box, batch: int) -> Box:
    """Return a smaller box that keeps the effect of inserting the place.

    Each side in turn moves inwards by an eighth of the box's first size, as long as the class's mean probability on images of other
    classes, each with the box of an image of the class, keeps four fifths of its rise. Maps are coarser than marks.
    """
    donors = own[torch.arange(len(others), device=own.device) % len(own)]

    def rise(tried: Box) -> float:
        mask = box_pixels(tried, own.shape[-2:]).to(own.device)
        return float(_probabilities(classifier, torch.where(mask, donors, others), target, batch).mean()) - before

    before = float(_probabilities(classifier, others, target, batch).mean())
    least = _KEPT * rise(box)
    steps = [max(1, (box[2 + axis] - box[axis]) // 8) for axis in (0, 1)]
    moving = [0, 1, 2, 3]
    while moving:
        for side in list(moving):
            tried = list(box)
            tried[side] += steps[side % 2] if side < 2 else -steps[side % 2]
            new = tried[0], tried[1], tried[2], tried[3]
            if new[0] < new[2] and new[1] < new[3] and rise(new) >= least:
                box = new
            else:
                moving.remove(side)
    return box


def swap_background(classifier: Classifier, own: Tensor, regions: Tensor, others: Tensor, target: int, seed: int, batch: int) -> Interval:
    """Swap the background of images of a class; compare a swap of the object.

    The change is that of the class's probability when everything outside the region shows an image of another class, minus that when the
    region does: it is below 0 where the background counts for more than the object.

    Args:
        own: images of the class, (A, C, H, W).
        regions: (A, H, W) bool; images without a region, or with one that covers all, are left out.
        others: images of other classes, (B, C, H, W), B at least 1.
    """
    rng = np.random.default_rng(seed)
    changes: list[float] = []
    for image, region in zip(own, regions, strict=True):
        if region.any() and not region.all():
            changes += _changes(classifier, image[None], others, target, ~region, region[None], rng, batch)
    return Interval.of(np.array(changes))


def random_places(place: NDArray[np.bool_], count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Return places of the same form elsewhere, (count, H, W).

    They are shifted in a circle, by distances at which less than half of them overlaps the place; where there is none, as for a frame,
    by those with the least overlap.
    """
    spectrum = np.fft.rfft2(place.astype(np.float64))
    overlap = np.fft.irfft2(spectrum * spectrum.conj(), s=place.shape) / max(place.sum(), 1)
    allowed = np.argwhere(overlap <= max(0.5, np.quantile(overlap, 0.1)))
    chosen = allowed[rng.integers(len(allowed), size=count)]
    return np.stack([np.roll(place, (int(down), int(right)), (0, 1)) for down, right in chosen])


@torch.no_grad()
def _changes(
    classifier: Classifier,
    images: Tensor,
    donors: Tensor,
    target: int,
    place: Tensor,
    places: Tensor,
    rng: np.random.Generator,
    batch: int,
    paired: bool = False,
) -> list[float]:
    """Return each image's mean change of the probability, place minus random places.

    Args:
        paired: donor i is that of image i, instead of random ones.
    """
    changes = []
    for number, image in enumerate(images):
        numbers = np.array([number]) if paired else rng.choice(len(donors), min(_DONORS, len(donors)), replace=False)
        chosen = torch.from_numpy(numbers).to(images.device)
        masks = torch.cat([place[None], places[number * _PLACES : (number + 1) * _PLACES]])  # fewer places for a background
        swapped = [torch.where(mask, donor, image) for donor in donors[chosen] for mask in masks]
        probabilities = _probabilities(classifier, torch.stack(swapped), target, batch).view(len(chosen), len(masks))
        changes.append(float((probabilities[:, 0] - probabilities[:, 1:].mean(1)).mean()))
    return changes


def _probabilities(classifier: Classifier, images: Tensor, target: int, batch: int) -> Tensor:
    with classifier.frozen() as network:
        logits = torch.cat([network(part) for part in torch.split(images, batch)])
    return classifier.probabilities(logits)[:, target].double().cpu()

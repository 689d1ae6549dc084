"""Causal test of a suspected place: swap its pixels, measure the class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from hdm_core import Classifier
from pipeline.audit.finding import Box
from pipeline.tables.student import Interval

_LEAST = 3  # changes from which a mean is compared
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
    """Changes when a place is removed from a class, and inserted into others.

    Attributes:
        removed, inserted: of each image.
    """

    removed: NDArray[np.float64]
    inserted: NDArray[np.float64]

    @property
    def removal(self) -> Interval:
        """Mean change of removal."""
        return Interval.of(self.removed)

    @property
    def insertion(self) -> Interval:
        """Mean change of insertion."""
        return Interval.of(self.inserted)

    def confirms(self, least: float, reference: NDArray[np.float64] | None = None) -> bool:
        """Return whether the place raises the class's probability in other images.

        Removal alone confirms nothing: the images are those that look at the place, and so often those whose object is there.

        Args:
            least: smallest mean rise.
            reference: the same changes of other classes, from their own images; the rise must be larger.
        """
        return shows(self.insertion, 1, least) and (reference is None or larger_than(self.inserted, reference))

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
    return CausalTest(np.array(removal), np.array(insertion))


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


@torch.no_grad()
def pasted(classifier: Classifier, images: Tensor, donors: Tensor, target: int, place: Tensor, batch: int) -> NDArray[np.float64]:
    """Return how a class's probability changes if images show donors at a place, (N,).

    Args:
        images: (N, C, H, W).
        donors: (M, C, H, W), which take turns.
        place: (H, W) or (N, 1, H, W) bool.
    """
    turns = donors[torch.arange(len(images), device=donors.device) % len(donors)]
    after = _probabilities(classifier, torch.where(place, turns, images), target, batch)
    return (after - _probabilities(classifier, images, target, batch)).numpy()


def insert_background(
    classifier: Classifier, own: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor], target: int, batch: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Show the background, and the object, of a class in images of other classes.

    The background covers neither the other image's object nor shows that of the class.

    Args:
        own: images of the class, (A, C, H, W), and their regions, (A, H, W) bool.
        others: those of other classes.

    Returns:
        Changes of the class's probability with its background, and with its object; empty if no pair has both.
    """
    count = len(others[0])
    turn = torch.arange(count, device=own[0].device) % len(own[0])
    regions, other_regions = own[1][turn], others[1]
    usable = (regions.flatten(1).any(1) & other_regions.flatten(1).any(1) & ~(regions | other_regions).flatten(1).all(1)).cpu()
    if not usable.any():
        return np.empty(0), np.empty(0)
    images, donors = others[0][usable], own[0][turn][usable]
    behind, objects = ~(regions | other_regions)[usable, None], regions[usable, None]
    behind_changes, object_changes = (pasted(classifier, images, donors, target, place, batch) for place in (behind, objects))
    return behind_changes, object_changes


def one_sided(values: NDArray[np.float64]) -> float:
    """Return the p-value of a mean above 0 (Student's t); 1 for fewer than three."""
    if len(values) < _LEAST:
        return 1.0
    spread = values.std(ddof=1)
    return float(stats.ttest_1samp(values, 0.0, alternative="greater").pvalue) if spread > 0 else float(values.mean() <= 0)


def larger_than(values: NDArray[np.float64], reference: NDArray[np.float64]) -> bool:
    """Return whether a mean is above another one at the 2.5% level (Welch's t)."""
    if len(reference) < _LEAST:
        return True
    if values.std() == 0 and reference.std() == 0:
        return bool(values.mean() > reference.mean())
    return bool(stats.ttest_ind(values, reference, equal_var=False, alternative="greater").pvalue <= 0.025)


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

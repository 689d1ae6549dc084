"""Minimal sufficient sets of patches by beam search, as a slow, obvious version.

The definition is that of structured attention graphs (Shitole, Li, Kahng, Tadepalli, Fern: One Explanation is Not Enough, NeurIPS 2021): an
image is cut into 7 x 7 patches; a set of patches is sufficient if the class keeps 90% of its probability where these alone are shown, and
minimal if no patch of it can be left out. Here the other patches take the baseline of the method that is compared, not a blurred image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from hdm_core.evidence.search import cell_numbers

Patches = frozenset[int]


class PatchScores:
    """Sufficiency of sets of patches of one image; each set is tried once.

    Args:
        probability: images (N, C, H, W) -> probabilities of the class, (N,).
        image: (C, H, W).
        baseline: values of hidden pixels, broadcastable to the image.
        side: patches along each side.
        batch: images per forward.

    Attributes:
        forwards: forward passes so far, of which one is for the whole image.
    """

    def __init__(self, probability: Callable[[Tensor], Tensor], image: Tensor, baseline: Tensor, side: int = 7, batch: int = 16) -> None:
        self._probability, self._image, self._baseline, self._batch = probability, image, baseline, batch
        self._cells = cell_numbers(image.shape[-2], image.shape[-1], side, image.device).view(image.shape[-2:])
        self.all: Patches = frozenset(range(side * side))
        self._known: dict[Patches, float] = {}
        self.forwards = 1
        self._whole = float(probability(image[None])[0])

    def __call__(self, sets: Sequence[Patches]) -> list[float]:
        """Return the share of the image's probability that each set keeps."""
        unknown = [each for each in dict.fromkeys(sets) if each not in self._known]
        for start in range(0, len(unknown), self._batch):
            part = unknown[start : start + self._batch]
            shown = torch.stack([torch.where(self.pixels(each), self._image, self._baseline) for each in part])
            probabilities = (self._probability(shown) / self._whole).tolist()
            self._known |= dict(zip(part, probabilities, strict=True))
            self.forwards += len(part)
        return [self._known[each] for each in sets]

    def pixels(self, patches: Patches) -> Tensor:
        """Return the pixels of a set, (H, W) bool."""
        return torch.isin(self._cells, self._cells.new_tensor(sorted(patches)))


def beam_search(scores: PatchScores, patches: Patches, kept: float, width: int, enough: int) -> list[Patches]:
    """Return minimal sufficient sets of the given patches, the smallest first.

    Sets grow by one patch at a time; of each size the `width` best that do not suffice yet are grown further. Those that suffice are
    reduced until no patch can be left out. The search ends with the size at which `enough` different sets were found.
    """
    beam: list[Patches] = [frozenset()]
    found: list[Patches] = []
    while beam and len(found) < enough:
        grown = sorted({each | {patch} for each in beam for patch in patches - each}, key=sorted)
        ranked = sorted(zip(scores(grown), grown, strict=True), key=lambda pair: -pair[0])
        for sufficiency, each in ranked:
            if sufficiency >= kept and len(found) < enough:
                minimal = reduce_set(scores, each, kept)
                if minimal not in found:
                    found.append(minimal)
        beam = [each for sufficiency, each in ranked if sufficiency < kept][:width]
    return sorted(found, key=lambda each: (len(each), sorted(each)))


def reduce_set(scores: PatchScores, patches: Patches, kept: float) -> Patches:
    """Leave out patches, one by one, until every patch of the set is needed."""
    smaller = True
    while smaller:
        smaller = False
        for patch in sorted(patches):
            if len(patches) > 1 and scores([patches - {patch}])[0] >= kept:
                patches, smaller = patches - {patch}, True
    return patches


def largest_collection(sets: Sequence[Patches], overlap: int) -> list[Patches]:
    """Return as many of the sets as share at most `overlap` patches pairwise."""

    def extend(chosen: list[Patches], rest: Sequence[Patches]) -> list[Patches]:
        best = chosen
        for place, each in enumerate(rest):
            if len(chosen) + len(rest) - place <= len(best):
                break  # even all that follow would be no more
            compatible = [other for other in rest[place + 1 :] if len(each & other) <= overlap]
            longer = extend([*chosen, each], compatible)
            if len(longer) > len(best):
                best = longer
        return best

    return extend([], sets)


def disjoint_sets(scores: PatchScores, kept: float, width: int, most: int) -> list[Patches]:
    """Find disjoint minimal sets: search, remove the smallest set, search again.

    It ends, as `find_evidence` does, where what is left no longer suffices, or with `most` sets. This is not part of structured attention
    graphs; a single beam holds much the same patches in all its sets.
    """
    left, found = scores.all, list[Patches]()
    while len(found) < most and scores([left])[0] >= kept:
        found.append(beam_search(scores, left, kept, width, 1)[0])
        left -= found[-1]
    return found

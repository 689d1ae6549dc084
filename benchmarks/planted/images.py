"""Synthetic images whose class only small planted patterns at known places decide."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE, PATCH = 64, 12

# The patterns that must all be present for each class; an image with none of these sets belongs to class 0. Patterns 0 and 1 suffice alone.
# Each of 2, 3 and 4 belongs to two classes, so that one alone decides nothing: then the class is 0, and only two together decide.
NEEDS = ((), (0,), (1,), (2, 3), (3, 4), (2, 4))
DISTRACTORS = (5, 6, 7)  # in images of all classes

Kind = Literal["single", "redundant", "joint", "half", "bare"]
KINDS: tuple[Kind, ...] = ("single", "redundant", "joint")  # those with evidence
EVERY_KIND: tuple[Kind, ...] = (*KINDS, "half", "bare")

_EMPTY = -1
_MARGIN = 4  # from a patch to the border of its quadrant: two patches are at least 8 pixels apart


@dataclass(frozen=True)
class PlantedImages:
    """N images, with and without the patches that decide their class.

    Attributes:
        images: (N, 3, 64, 64) float32, roughly centred at 0, as a network takes them.
        labels: (N,) int64, the `rule` applied to the patterns.
        patterns: (N, 2) int64, the pattern of each planted patch; -1 where there is no patch.
        regions: (N, 2, 64, 64) bool, the pixels of each planted patch.
        bare: (N, 3, 64, 64), the same images without the planted patches: background and distractors.
    """

    images: Tensor
    labels: Tensor
    patterns: Tensor
    regions: Tensor
    bare: Tensor

    def __len__(self) -> int:
        """Return N."""
        return len(self.images)

    def __getitem__(self, chosen: Tensor | slice) -> PlantedImages:
        """Return a selection of the images."""
        return PlantedImages(*(getattr(self, field.name)[chosen] for field in fields(self)))

    @property
    def evidence(self) -> Tensor:
        """Pixels of all planted patches, (N, 64, 64) bool."""
        return self.regions.any(1)

    def without(self, patches: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Return the images without these of the patches 0 and 1, and their labels."""
        removed = self.regions[:, list(patches)].any(1)
        patterns = self.patterns.index_fill(1, torch.tensor(patches, dtype=torch.int64), _EMPTY)
        return torch.where(removed[:, None], self.bare, self.images), rule(patterns)


def rule(patterns: Tensor) -> Tensor:
    """Return the class of images that show these patterns, (N, any) -> (N,) int64."""
    labels = torch.zeros(len(patterns), dtype=torch.int64)
    for label, needs in enumerate(NEEDS[1:], 1):
        labels[torch.stack([(patterns == need).any(1) for need in needs]).all(0)] = label
    return labels


def plant(kind: Kind, count: int, generator: torch.Generator) -> PlantedImages:
    """Draw images of one kind.

    Args:
        kind: "single": one patch decides; "redundant": two of the same pattern, either is enough; "joint": two patterns that
            decide only together; "half": one of such two, class 0; "bare": distractors alone, class 0.
        count: N.
        generator: on the CPU; the same state gives the same images.
    """

    def draw(*options: int, columns: int = 1) -> Tensor:
        return torch.tensor(options)[torch.randint(len(options), (count, columns), generator=generator)]

    patterns = torch.full((count, 2), _EMPTY)
    if kind in ("single", "redundant"):
        patterns[:] = draw(0, 1)
    elif kind in ("joint", "half"):
        patterns = torch.tensor([pair for pair in NEEDS if len(pair) == 2])[draw(0, 1, 2)[:, 0]]
        patterns = torch.where(draw(0, 1) == 0, patterns, patterns.flip(1))
    if kind in ("single", "half"):
        patterns[:, 1] = _EMPTY

    distractors = draw(*DISTRACTORS, *DISTRACTORS, _EMPTY, columns=4)
    distractors[:, :2] = distractors[:, :2].where(patterns == _EMPTY, _EMPTY)
    first = draw(0, 1, 2, 3)
    quadrants = torch.cat([first, 3 - first, first ^ 1, first ^ 2], 1)  # the first two are in opposite quadrants
    shift = torch.randint(_MARGIN, SIDE // 2 - PATCH - _MARGIN + 1, (count, 4, 2), generator=generator)
    corners = torch.stack([quadrants // 2, quadrants % 2], 2) * (SIDE // 2) + shift
    colours = 0.8 + 0.4 * torch.rand(count, 4, 3, generator=generator)

    bare, _ = _paint(_background(count, generator), distractors, corners, colours)
    images, regions = _paint(bare, patterns, corners[:, :2], colours[:, :2])
    return PlantedImages(images, rule(patterns), patterns, regions, bare)


def _background(count: int, generator: torch.Generator) -> Tensor:
    """Draw smooth coloured noise, coarse and weaker fine, (N, 3, 64, 64)."""
    coarse, fine = (torch.randn(count, 3, cells, cells, generator=generator) for cells in (6, 16))
    return _enlarge(coarse, 0.5) + _enlarge(fine, 0.2)


def _enlarge(noise: Tensor, spread: float) -> Tensor:
    return spread * F.interpolate(noise, size=(SIDE, SIDE), mode="bicubic", align_corners=False)


def _paint(canvas: Tensor, patterns: Tensor, corners: Tensor, colours: Tensor) -> tuple[Tensor, Tensor]:
    """Paint patches over a copy of images; return it and the pixels of each patch.

    Args:
        canvas: (N, 3, 64, 64).
        patterns: (N, patches), -1 for no patch.
        corners: (N, patches, 2), first row and column of each patch.
        colours: (N, patches, 3), strength of each colour.

    Returns:
        Images (N, 3, 64, 64) and regions (N, patches, 64, 64).
    """
    canvas = canvas.clone()
    regions = torch.zeros(*patterns.shape, SIDE, SIDE, dtype=torch.bool)
    for patch in range(patterns.shape[1]):
        image = (patterns[:, patch] != _EMPTY).nonzero()[:, :, None]
        rows, columns = corners[image[:, 0, 0], patch, :, None].add(torch.arange(PATCH)).unbind(1)
        pixels = rows[:, :, None], columns[:, None, :]
        drawn = _PATTERNS[patterns[image[:, 0, 0], patch]]
        canvas[image, :, *pixels] = drawn[..., None] * colours[image, patch]
        regions[image, patch, *pixels] = True
    return canvas, regions


def _make_patterns() -> Tensor:
    """Build eight patterns of -1 and 1, (8, 12, 12).

    They have the same strength and similar coarseness, so that only their shapes differ.
    """
    row, column = torch.arange(PATCH)[:, None].expand(PATCH, PATCH), torch.arange(PATCH).expand(PATCH, PATCH)
    down, right = (2 * row - PATCH + 1).abs(), (2 * column - PATCH + 1).abs()
    light = (
        row // 3 % 2,
        column // 3 % 2,
        (row // 3 + column // 3) % 2,
        (row + column) // 3 % 2,
        torch.maximum(down, right) // 4 % 2,
        (row - column) // 3 % 2,
        (down < 4) | (right < 4),
        (down - right).abs() < 5,
    )
    return 2.0 * torch.stack([shape.float() for shape in light]) - 1


_PATTERNS = _make_patterns()

"""`Evidence`: the pieces of evidence of a batch of images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

EvidenceStatus = Literal["complete", "max_pieces", "no_contrast", "nan"]

REASONS: dict[EvidenceStatus, str] = {
    "complete": "what is left of the image no longer keeps the class",
    "max_pieces": "what is left of the image still keeps the class: there may be more pieces than max_pieces",
    "no_contrast": "the baseline itself keeps the class: no set of pixels is needed for it",
    "nan": "the network's output is not finite",
}


@dataclass(frozen=True)
class Piece:
    """A set of pixels that suffices for the class.

    It may consist of several parts that do not touch: pixels that only suffice together are one piece.

    Attributes:
        pixels: (H, W) bool.
        area: share of the image's pixels.
        sufficiency: score of the class when the piece is shown alone, as a share of the image's.
        necessity: share of the image's score that is lost when the piece alone is removed.
    """

    pixels: Tensor
    area: float
    sufficiency: float
    necessity: float

    def as_dict(self) -> dict[str, float]:
        """Return the numbers, without the pixels."""
        return {"area": self.area, "sufficiency": self.sufficiency, "necessity": self.necessity}


@dataclass(frozen=True)
class Evidence:
    """Result of `find_evidence` for B images.

    Attributes:
        pieces: of each image, disjoint, in the order in which they were found; none if the status is "no_contrast" or "nan".
        status: end of each image's search: "complete", what is left no longer suffices; "max_pieces", it still does; "no_contrast", the
            baseline itself keeps the class; "nan", the output is not finite.
        comprehensiveness: share of the image's score that is lost when all pieces and their margins are removed: the share of the evidence
            that was found. NaN where there are no pieces.
        targets: (B,) int64, the class of each image.
        contrasts: (B,) int64, the class that each target is compared with, else None.
        scores: score of the class for each image.
        baseline_scores: score of the class for each image's baseline.
        passes: passes spent on each image.
        size: height and width of the images.
    """

    pieces: list[tuple[Piece, ...]]
    status: list[EvidenceStatus]
    comprehensiveness: list[float]
    targets: Tensor
    contrasts: Tensor | None
    scores: list[float]
    baseline_scores: list[float]
    passes: list[int]
    size: tuple[int, int]

    def area(self, image: int) -> float:
        """Return the share of an image's pixels that belong to a piece."""
        return sum(piece.area for piece in self.pieces[image])

    def masks(self, count: int) -> Tensor:
        """Return the first `count` pieces of every image, (B, count, H, W) bool.

        Missing pieces are empty.
        """
        masks = torch.zeros(len(self.pieces), count, *self.size, dtype=torch.bool, device=self.targets.device)
        for image, pieces in enumerate(self.pieces):
            for number, piece in enumerate(pieces[:count]):
                masks[image, number] = piece.pixels
        return masks

    def as_dict(self, image: int) -> dict[str, Any]:
        """Return the numbers of one image; None for one that is not finite."""
        return {
            "status": self.status[image],
            "reason": REASONS[self.status[image]],
            "count": len(self.pieces[image]),
            "area": self.area(image),
            "comprehensiveness": _finite(self.comprehensiveness[image]),
            "score": _finite(self.scores[image]),
            "baseline_score": _finite(self.baseline_scores[image]),
            "passes": self.passes[image],
            "pieces": [piece.as_dict() for piece in self.pieces[image]],
        }


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None

"""Scores of maps against several pieces of evidence, one number per image."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.planted.scores import pointing
from hdm_core.metrics.localisation import proportion

FOUND = 0.5  # recall from which a piece counts as found

# All are better the larger they are.
SCORES = ("average_precision", "energy", "pointing", "recall", "found", "all_found", "strongest", "weakest")


def piece_scores(maps: Tensor, regions: Tensor, strengths: Tensor) -> dict[str, Tensor]:
    """Compute all scores, (B,) float64 each.

    They are: average_precision of the evidence's pixels; energy, the share of the map's sum inside the evidence; pointing; recall, the
    mean over the pieces of `piece_recalls`; found, the share of the pieces whose recall is at least a half; all_found, 1 if every piece is;
    strongest and weakest, the recall of the piece of that strength, or the mean of several of the same strength.

    Args:
        maps: (B, H, W).
        regions: (B, P, H, W) bool, the pixels of each piece; none for a piece that is not there.
        strengths: (B, P).
    """
    evidence, present = regions.any(1), regions.flatten(2).any(2)
    recalls = piece_recalls(maps, regions)
    found = (recalls >= FOUND) & present
    strongest = strengths == strengths.masked_fill(~present, -torch.inf).amax(1, keepdim=True)
    weakest = strengths == strengths.masked_fill(~present, torch.inf).amin(1, keepdim=True)
    return {
        "average_precision": average_precision(maps, evidence),
        "energy": proportion(maps, evidence).double(),
        "pointing": pointing(maps, evidence).double(),
        "recall": _mean(recalls, present),
        "found": _mean(found.double(), present),
        "all_found": (found | ~present).all(1).double(),
        "strongest": _mean(recalls, strongest & present),
        "weakest": _mean(recalls, weakest & present),
    }


def average_precision(maps: Tensor, evidence: Tensor) -> Tensor:
    """Return the average precision of the evidence's pixels, (B,) float64.

    It is the sum over the map's values, from the largest on, of the recall won by a value times the precision of all pixels from it on. Of
    a flat map it is the evidence's share of the image. No transform that keeps ranks changes it.

    Args:
        maps, evidence: (B, H, W), evidence bool.
    """
    values, order = maps.flatten(1).sort(dim=1, descending=True)
    hits = evidence.flatten(1).gather(1, order).double().cumsum(1)
    precision = hits / torch.arange(1, values.shape[1] + 1, device=maps.device)
    # Pixels of the same value count together: the precision of the last of them holds for all.
    last = torch.ones_like(values, dtype=torch.bool)
    last[:, :-1] = values[:, :-1] != values[:, 1:]
    position = torch.arange(values.shape[1], device=maps.device).expand_as(values)
    end = position.masked_fill(~last, values.shape[1]).flip(1).cummin(1).values.flip(1)
    won = torch.diff(hits, dim=1, prepend=torch.zeros_like(hits[:, :1]))
    return (won * precision.gather(1, end)).sum(1) / hits[:, -1]


def piece_recalls(maps: Tensor, regions: Tensor) -> Tensor:
    """Return the share of each piece that is among the map's top pixels, (B, P).

    The top pixels are as many as the evidence has. Pixels that are equal at the border of the top share what is left of it evenly, so that
    the order of pixels does not count. It is 0 for a piece that is not there.

    Args:
        maps: (B, H, W).
        regions: (B, P, H, W) bool.
    """
    pixels, pieces = maps.flatten(1), regions.flatten(2)
    count = pieces.any(1).sum(1, keepdim=True)
    border = pixels.sort(dim=1, descending=True).values.gather(1, count - 1)
    above, equal = pixels > border, pixels == border
    share = (count - above.sum(1, keepdim=True)).double() / equal.sum(1, keepdim=True)
    top = above.double() + share * equal
    return torch.einsum("bpn,bn->bp", pieces.double(), top) / pieces.sum(2).clamp(min=1)


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    """Return the mean of the values (B, P) that are counted, (B,)."""
    return torch.where(counted, values, 0.0).sum(1) / counted.sum(1)

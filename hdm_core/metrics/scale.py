"""Scale of the metrics: probabilities, or a regression's change of its output."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hdm_core.problem_type import ProblemType


@dataclass(frozen=True)
class Scale:
    """Affine scale of the scores of B images: (score - origin) / unit.

    Attributes:
        origin: (B,).
        unit: (B,); NaN where the scores have no scale.
    """

    origin: Tensor
    unit: Tensor

    @classmethod
    def of(cls, problem_type: ProblemType, clean: Tensor, blank: Tensor) -> Scale:
        """Return the scale of a problem type.

        Probabilities are taken as they are. A regression's output f(x) becomes (f(x) - f(baseline)) / (f(X) - f(baseline)): 1 for the whole
        image X and 0 for the baseline, whatever the unit and the sign. It has no scale where both are equal.

        Args:
            clean: f(X), (B,).
            blank: f(baseline), (B,).
        """
        if problem_type != "regression":
            return cls(torch.zeros_like(clean), torch.ones_like(clean))
        change = clean - blank
        return cls(blank, torch.where(change == 0, torch.nan, change))

    def apply(self, scores: Tensor, index: Tensor) -> Tensor:
        """Return scores (N, ...) on the scale of the image of each row.

        Args:
            index: (N,), the image of each row.
        """
        origin, unit = (each[index].view(-1, *[1] * (scores.ndim - 1)) for each in (self.origin, self.unit))
        return (scores - origin) / unit

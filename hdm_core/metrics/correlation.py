"""Correlations of rows: Pearson's, and Spearman's of their ranks."""

from __future__ import annotations

import torch
from torch import Tensor


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Return the correlation of each row, (N, S) twice -> (N,) float64.

    It is NaN where a row is constant or has a NaN.
    """
    x, y = (each.double() - each.double().mean(1, keepdim=True) for each in (x, y))
    covariance, product = (x * y).sum(1), x.square().sum(1) * y.square().sum(1)
    return (covariance / product.sqrt()).clamp(-1, 1)


def average_ranks(values: Tensor) -> Tensor:
    """Return the rank of every value in its row, (N, S) float64, from 0.

    Equal values have the mean of their ranks.
    """
    lower = (values[:, None] < values[:, :, None]).sum(2)
    equal = (values[:, None] == values[:, :, None]).sum(2)
    return torch.where(values.isnan(), torch.nan, lower + (equal - 1) / 2).double()


def spearman(x: Tensor, y: Tensor) -> Tensor:
    """Return the rank correlation of each row, (N, S) twice -> (N,) float64."""
    return pearson(average_ranks(x), average_ranks(y))

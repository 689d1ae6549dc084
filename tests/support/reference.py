"""Reference implementation of Eq. 1-10 of the paper.

It works on one image and one mask at a time, in loops that follow the paper line by line. It imports nothing from hdm_core, and computes
in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]  # f_p: an image (C, H, W) -> a number


def interpolation(small: int, large: int) -> Tensor:
    """Return the matrix (large, small) of linear interpolation between pixel centres.

    Beyond the outer pixel centres the values are constant.
    """
    matrix = torch.zeros(large, small, dtype=torch.float64)
    for row in range(large):
        centre = (row + 0.5) * small / large - 0.5
        centre = min(max(centre, 0.0), small - 1.0)
        left = math.floor(centre)
        right = min(left + 1, small - 1)
        matrix[row, left] += 1 - (centre - left)
        matrix[row, right] += centre - left
    return matrix


def g(v: Tensor, height: int, width: int) -> Tensor:
    """Interpolate (a, b) to (height, width)."""
    return interpolation(v.shape[0], height) @ v @ interpolation(v.shape[1], width).T


def N(x: Tensor) -> Tensor:  # noqa: N802
    low, high = x.min(), x.max()
    return torch.zeros_like(x) if low == high else (x - low) / (high - low)


class Adam:
    """Kingma and Ba, Algorithm 1, with the authors' constants."""

    def __init__(self, rate: float) -> None:
        self.rate, self.t, self.first, self.second = rate, 0, 0.0, 0.0

    def step(self, value: Tensor, gradient: Tensor) -> Tensor:
        self.t += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first = self.first / (1 - 0.9**self.t)
        second = self.second / (1 - 0.999**self.t)
        return value - self.rate * first / (second**0.5 + 1e-8)


@dataclass
class Slow:
    """DM or HDM with its settings.

    Where a mask is 0, an image is replaced by `muted`, (C, 1, 1) or (C, H, W).
    """

    sizes: tuple[int, ...]
    ratios: tuple[int, ...]
    steps: int
    learning_rate: float
    eta: float
    tau: float
    keep_fraction: float
    stages: int = 1
    mix_steps: int = 1
    mix_learning_rate: float = 0.1
    mix_weight: float = 1e-4
    relative: bool = False
    removal: float = 0.0
    backdrops: Sequence[Tensor] = ()  # (C, H, W), one per step; empty without noise

    def train(self, score: Score, image: Tensor, muted: Tensor, mask: Tensor, guide: Tensor | None, unit: Tensor | None = None) -> Tensor:
        """Train a mask: Eq. 6 without a guide, Eq. 8 with one.

        `unit` is computed from the image unless it is given.
        """
        height, width = image.shape[1:]
        clean, blank = score(image).detach(), score(muted.expand_as(image)).detach()
        unit = self.unit(score, image, muted) if unit is None else unit
        adam = Adam(self.learning_rate)
        for step in range(self.steps):
            mask = mask.clone().requires_grad_()
            applied = g(mask if guide is None else mask * guide, height, width)
            ground = muted + self.backdrops[step] if self.backdrops else muted
            kept = (score(ground + applied * (image - ground)) - clean) / unit
            gone = (score(ground + (1 - applied) * (image - ground)) - blank) / unit
            # mean |m| is mean m: masks are in [0, 1], and at 0 only the right derivative matters.
            loss = kept**2 + self.removal * gone**2 + self.eta * g(mask, height, width).mean()
            (gradient,) = torch.autograd.grad(loss, mask)
            mask = adam.step(mask.detach(), gradient).clamp(0, 1)
        return mask.detach()

    def unit(self, score: Score, image: Tensor, muted: Tensor) -> Tensor:
        """Return the divisor of the activations."""
        return abs(score(image) - score(muted.expand_as(image))).detach() if self.relative else torch.ones((), dtype=torch.float64)

    def dm(self, score: Score, image: Tensor, muted: Tensor, unit: Tensor | None = None) -> Tensor:
        """Compute M_b of one image, (H, W)."""
        height, width = image.shape[1:]
        total = torch.zeros(height, width, dtype=torch.float64)
        for size in self.sizes:
            benchmark = self.train(score, image, muted, torch.full((size, size), self.tau, dtype=torch.float64), None, unit)
            for ratio in self.ratios:
                previous = benchmark
                total = total + g(previous, height, width)  # k = 0
                k = 1
                while ratio**k * size <= height and ratio**k * size <= width:
                    side = ratio**k * size
                    previous = self.train(score, image, muted, g(benchmark, side, side), g(previous, side, side), unit)
                    total = total + g(previous, height, width)
                    k += 1
        return self.top(total)

    def top(self, total: Tensor) -> Tensor:
        """Apply Eq. 10."""
        values = sorted(total.flatten().tolist(), reverse=True)
        gamma = values[round(self.keep_fraction * len(values)) - 1]
        return N((total - gamma) * (total >= gamma))

    def hdm(self, score: Score, image: Tensor, muted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute M_h (H, W), the stages (S, H, W) and their weights (S,)."""
        masks: list[Tensor] = []
        seen = image
        unit = self.unit(score, image, muted)  # of X_0, also for stages that see only a part of it
        for _ in range(self.stages):
            masks.append(self.dm(score, seen, muted, unit))  # Eq. 1
            found = N(sum(masks))
            seen = muted + (1 - found) * (image - muted)  # Eq. 2
        v = torch.ones(self.stages, dtype=torch.float64)
        if self.stages > 1:
            adam = Adam(self.mix_learning_rate)
            for _ in range(self.mix_steps):
                v = v.clone().requires_grad_()
                (gradient,) = torch.autograd.grad(self.mixing_loss(score, image, muted, masks, v), v)
                v = adam.step(v.detach(), gradient)
        w = self.w(v)
        return sum(w[j] * masks[j] for j in range(self.stages)) / sum(w), torch.stack(masks), torch.stack(w) / sum(w)

    def w(self, v: Tensor) -> list[Tensor]:
        """Compute w_j = sum_{k >= j} v_k^2 of Eq. 3."""
        return [sum(v[k] ** 2 for k in range(j, self.stages)) for j in range(self.stages)]

    def mixing_loss(self, score: Score, image: Tensor, muted: Tensor, masks: list[Tensor], v: Tensor) -> Tensor:
        """Compute Eq. 4 for M_h."""
        w = self.w(v)
        fused = sum(w[j] * masks[j] for j in range(self.stages)) / sum(w)
        kept = (score(muted + fused * (image - muted)) - score(image)) / self.unit(score, image, muted)
        return kept**2 + self.mix_weight * fused.abs().mean()

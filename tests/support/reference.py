"""Reference implementation of HDM: Eq. 1 to 10 for one image, in plain loops.

The loops follow the paper line by line, one mask after another.
Nothing here comes from hdm_core. Everything is float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Score = Callable[[Tensor], Tensor]  # f_p: an image (C, H, W) -> a number


def interpolation(small: int, large: int) -> Tensor:
    """Return the matrix (large, small) of linear interpolation of pixel centres, clamped."""
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
    """Upsample (a, b) to (height, width)."""
    return interpolation(v.shape[0], height) @ v @ interpolation(v.shape[1], width).T


def averaging(small: int, large: int) -> Tensor:
    """Return the matrix (small, large) of linear interpolation to fewer pixels, each a mean with the weights of a triangle."""
    matrix, scale = torch.zeros(small, large, dtype=torch.float64), large / small
    for row in range(small):
        weights = [max(0.0, 1 - abs((column + 0.5) / scale - (row + 0.5))) for column in range(large)]
        for column in range(large):
            matrix[row, column] = weights[column] / sum(weights)
    return matrix


def gaussian(size: int, sigma: float) -> Tensor:
    """Return the matrix (size, size) that averages a line with the weights of a Gaussian, which sum to 1 also at the edges."""
    matrix = torch.eye(size, dtype=torch.float64)
    for row in range(size if sigma else 0):
        weights = [math.exp(-((row - column) ** 2) / (2 * sigma**2)) for column in range(size)]
        for column in range(size):
            matrix[row, column] = weights[column] / sum(weights)
    return matrix


def square_cells(size: int, height: int, width: int) -> tuple[int, int]:
    """Return rows and columns of a mask with `size` cells along the shorter side, whose cells are about square."""
    cell = min(height, width) / size
    return math.floor(height / cell + 0.5), math.floor(width / cell + 0.5)


def N(x: Tensor) -> Tensor:  # noqa: N802
    low, high = x.min(), x.max()
    return torch.zeros_like(x) if low == high else (x - low) / (high - low)


class Adam:
    """Adam: Kingma and Ba, Algorithm 1, with the authors' constants."""

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
class HDM:
    """DM or HDM with its settings.

    The methods' `baseline`, (C, 1, 1) or (C, H, W), is shown where a mask is 0.
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
    backgrounds: Sequence[Sequence[Tensor]] = ()  # (C, H, W), by level and step; none without noise
    loss: str = "square"
    views: Sequence[str] = ("soft",)
    areas: tuple[float, float] = (0.05, 0.7)
    edge: float = 0.25
    max_size: int | None = None
    blur: float = 0.0
    schedule: str = "constant"
    average: float = 0.0
    stage_unit: str = "image"
    mixing: str = "optimised"

    def g(self, v: Tensor, height: int, width: int) -> Tensor:
        """Upsample (a, b) to (height, width), and blur."""
        sigma = self.blur * min(height, width)
        return gaussian(height, sigma) @ g(v, height, width) @ gaussian(width, sigma).T

    def j(self, missing: Tensor) -> Tensor:
        """Return J for what is missing of the class, or is left of it."""
        if self.loss == "square":
            return missing**2
        if self.loss == "squared_hinge":
            return max(missing, 0 * missing) ** 2
        return max(missing, 0 * missing) if self.loss == "hinge" else missing

    def shown(self, mask: Tensor, step: int, place: int) -> tuple[Tensor, bool]:
        """Return what a step shows of M (H, W), and whether it is the rest."""
        view = self.views[(step + place) % len(self.views)]
        if view == "soft":
            return mask, False
        share = self.areas[0] + (self.areas[1] - self.areas[0]) * math.modf(0.5 + (math.sqrt(5) - 1) / 2 * (step + 1) + 0.37 * place)[0]
        values = sorted(mask.detach().flatten().tolist(), reverse=True)
        top = ((mask - values[int(share * (len(values) - 1))]) / self.edge + 0.5).clamp(0, 1)
        return (1 - top, True) if view == "rest" else (top, False)

    def train(
        self,
        score: Score,
        image: Tensor,
        baseline: Tensor,
        mask: Tensor,
        guide: Tensor | None,
        scale: Tensor | None = None,
        level: int = 0,
        place: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Minimise Eq. 6 without a guide, Eq. 8 with one; return the mask, and its average over the last steps.

        `scale` is the image's own unless given; the mask is number `place` of its level, k of Eq. 7.
        """
        height, width = image.shape[1:]
        image_score, baseline_score = score(image).detach(), score(baseline.expand_as(image)).detach()
        scale = self.scale(score, image, baseline) if scale is None else scale
        adam = Adam(self.learning_rate)
        history = []
        for step in range(self.steps):
            if self.schedule == "cosine":
                adam.rate = self.learning_rate * (0.05 + 0.95 * (0.5 + 0.5 * math.cos(math.pi * step / self.steps)))
            mask = mask.clone().requires_grad_()
            applied, is_rest = self.shown(self.g(mask if guide is None else mask * guide, height, width), step, place)
            background = baseline + self.backgrounds[level][step] if self.backgrounds else baseline
            activation = score(background + applied * (image - background))
            missing = (activation - baseline_score if is_rest else image_score - activation) / scale
            removal = (score(background + (1 - applied) * (image - background)) - baseline_score) / scale
            # mean |m| is mean m: masks are in [0, 1], and at 0 the derivative from above is taken.
            loss = self.j(missing) + self.removal * self.j(removal) + self.eta * self.g(mask, height, width).mean()
            (gradient,) = torch.autograd.grad(loss, mask)
            mask = adam.step(mask.detach(), gradient).clamp(0, 1)
            history.append(mask.detach())
        last = max(1, round(self.average * self.steps))
        return history[-1], sum(history[-last:]) / last

    def scale(self, score: Score, image: Tensor, baseline: Tensor) -> Tensor:
        """Return the divisor of activation differences."""
        return abs(score(image) - score(baseline.expand_as(image))).detach() if self.relative else torch.ones((), dtype=torch.float64)

    def dm(self, score: Score, image: Tensor, baseline: Tensor, scale: Tensor | None = None, cam: Tensor | None = None) -> Tensor:
        """Compute M_b of one image, (H, W); `cam` (H, W) is the map that benchmark masks start from."""
        height, width = image.shape[1:]
        limit = min(height, width, self.max_size or height)
        total = torch.zeros(height, width, dtype=torch.float64)
        for i, size in enumerate(self.sizes):
            shape = square_cells(size, height, width)
            start = torch.full(shape, self.tau, dtype=torch.float64)
            if cam is not None and cam.min() != cam.max():
                start = averaging(shape[0], height) @ (0.15 + 0.7 * cam) @ averaging(shape[1], width).T
            benchmark, average = self.train(score, image, baseline, start, None, scale, place=i)
            for ratio in self.ratios:
                previous = benchmark
                total = total + g(average, height, width)  # k = 0
                k = 1
                while ratio**k * size <= limit:
                    shape = square_cells(ratio**k * size, height, width)
                    place = [(other, t) for other in self.sizes for t in self.ratios if t**k * other <= limit].index((size, ratio))
                    start, guide = g(benchmark, *shape), g(previous, *shape)
                    previous, last = self.train(score, image, baseline, start, guide, scale, level=k, place=place)
                    total = total + g(last, height, width)
                    k += 1
        sigma = self.blur * min(height, width)
        return self.top(gaussian(height, sigma) @ total @ gaussian(width, sigma).T)

    def top(self, total: Tensor) -> Tensor:
        """Apply the threshold of Eq. 10."""
        values = sorted(total.flatten().tolist(), reverse=True)
        gamma = values[round(self.keep_fraction * len(values)) - 1]
        return N((total - gamma) * (total >= gamma))

    def hdm(self, score: Score, image: Tensor, baseline: Tensor, cam: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Compute M_h (H, W), the stages (S, H, W) and their weights (S,)."""
        masks: list[Tensor] = []
        remaining = image
        scale = self.scale(score, image, baseline)  # of X_0 in every stage
        explained = torch.zeros(image.shape[1:], dtype=torch.float64)
        for _ in range(self.stages):
            unit = self.scale(score, remaining, baseline) if self.stage_unit == "remaining" else scale
            masks.append(self.dm(score, remaining, baseline, unit, None if cam is None else cam * (1 - explained)))  # Eq. 1
            explained = N(sum(masks))
            remaining = baseline + (1 - explained) * (image - baseline)  # Eq. 2
        if self.mixing == "sum" and self.stages > 1:
            return N(sum(masks)), torch.stack(masks), torch.full((self.stages,), 1 / self.stages, dtype=torch.float64)
        v = torch.ones(self.stages, dtype=torch.float64)
        if self.stages > 1:
            adam = Adam(self.mix_learning_rate)
            for _ in range(self.mix_steps):
                v = v.clone().requires_grad_()
                (gradient,) = torch.autograd.grad(self.mixing_loss(score, image, baseline, masks, v), v)
                v = adam.step(v.detach(), gradient)
        w = self.w(v)
        return sum(w[j] * masks[j] for j in range(self.stages)) / sum(w), torch.stack(masks), torch.stack(w) / sum(w)

    def w(self, v: Tensor) -> list[Tensor]:
        """Return w_j = sum_{k >= j} v_k^2 of Eq. 3."""
        return [sum(v[k] ** 2 for k in range(j, self.stages)) for j in range(self.stages)]

    def mixing_loss(self, score: Score, image: Tensor, baseline: Tensor, masks: list[Tensor], v: Tensor) -> Tensor:
        """Return the loss of Eq. 4 for M_h."""
        w = self.w(v)
        mixed = sum(w[j] * masks[j] for j in range(self.stages)) / sum(w)
        consistency = (score(baseline + mixed * (image - baseline)) - score(image)) / self.scale(score, image, baseline)
        return consistency**2 + self.mix_weight * mixed.abs().mean()

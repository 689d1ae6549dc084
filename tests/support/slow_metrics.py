"""The metrics a second time: one map and one pixel after another, on a linear network."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import torch
from torch import Tensor

from hdm_core import Classifier
from hdm_core.preprocess import Preprocess
from tests.support.tiny_networks import Linear

HEIGHT, WIDTH = 7, 9  # 63 pixels, which 100 does not divide

WEIGHT = torch.linspace(-0.05, 0.09, 3 * HEIGHT * WIDTH).reshape(3, HEIGHT, WIDTH)

REGION = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
REGION[:, 2:5, 3:7] = True  # 12 of 63 pixels


def half_up(share: Fraction, pixels: int) -> int:
    return math.floor(share * pixels + Fraction(1, 2))


def descending(saliency: Tensor) -> list[int]:
    """Sort pixels by falling saliency, the first in row order where it is equal."""
    values = saliency.flatten().tolist()
    return sorted(range(len(values)), key=lambda pixel: (-values[pixel], pixel))


def probability(image: Tensor, target: int, bias: float) -> float:
    """Return the softmax of logits 0 and w . x + bias, written as a logistic function."""
    score = float((image.double() * WEIGHT.double()).sum()) + bias
    return 1 / (1 + math.exp(-score if target == 1 else score))


def slow_metrics(
    image: Tensor, saliency: Tensor, target: int, baseline: Tensor, bias: float
) -> tuple[dict[str, float], list[float], list[float]]:
    order, pixels = descending(saliency), HEIGHT * WIDTH

    def shown(count: int, first: Tensor, rest: Tensor) -> float:
        """Take the first `count` pixels from one image and all others from another."""
        mixed = rest.clone().flatten(1)
        for pixel in order[:count]:
            mixed[:, pixel] = first.flatten(1)[:, pixel]
        return probability(mixed.reshape(image.shape), target, bias)

    removed = baseline.expand_as(image)
    clean = probability(image, target, bias)
    values = {}
    for share in (80, 70):
        kept = shown(half_up(1 - Fraction(share, 100), pixels), image, removed)
        values[f"average_drop_{share}"] = max(0.0, clean - kept) / clean
        values[f"increase_{share}"] = float(clean < kept)
    counts = [half_up(Fraction(i, 100), pixels) for i in range(101)]
    deletion = [shown(count, removed, image) for count in counts]
    insertion = [shown(count, image, removed) for count in counts]
    for name, curve in (("deletion_auc", deletion), ("insertion_auc", insertion)):
        values[name] = sum((left + right) / 2 for left, right in pairwise(curve)) / 100
    return values, deletion, insertion


def linear(bias: float = 0.3) -> Classifier:
    return Classifier.from_module(Linear(WEIGHT, bias), Preprocess(resize=9, crop=9))


def maps_for(images: Tensor, seed: int = 0) -> Tensor:
    return torch.rand(len(images), HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed))

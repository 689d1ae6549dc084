from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, explain
from hdm_core.methods.mask import MaskSettings, translate
from tests.support import reference
from tests.support.tiny_networks import pictures, smooth

pytestmark = pytest.mark.usefixtures("double")
# Large weights, so that the gradients of the terms matter beside the probability's.
SETTINGS = MaskSettings(steps=8, cell=3, blur=1.5, l1=0.01, tv=0.1, jitter=3, circles=5, baseline="mean")


def blur(size: int, sigma: float) -> Tensor:
    matrix = torch.tensor([[math.exp(-((i - j) ** 2) / (2 * sigma**2)) for j in range(size)] for i in range(size)])
    return matrix / matrix.sum(1, keepdim=True)


class ReferenceMask:
    """Mask for one image, in loops, with the mean as baseline."""

    def __init__(self, network: nn.Module, image: Tensor, target: int) -> None:
        self.network, self.image, self.target = network, image, target
        self.height, self.width = image.shape[1:]

    def shown(self, m: Tensor) -> Tensor:
        return blur(self.height, 1.5) @ reference.g(m, self.height, self.width) @ blur(self.width, 1.5).T

    def probability(self, m: Tensor, image: Tensor) -> Tensor:
        return self.network((self.shown(m) * image)[None]).softmax(1)[0, self.target]

    def start(self) -> Tensor:
        rows, columns = math.ceil(self.height / 3), math.ceil(self.width / 3)
        circles = []
        for k in range(5):
            radius = k / 4 * math.hypot(rows, columns) / 2
            circle = torch.ones(rows, columns)
            for i in range(rows):
                for j in range(columns):
                    if math.hypot(i - (rows - 1) / 2, j - (columns - 1) / 2) < radius:
                        circle[i, j] = 0
            circles.append(circle)
        scores = [float(self.probability(circle, self.image)) for circle in circles]
        for circle, score in zip(circles, scores, strict=True):
            if score - scores[-1] <= 0.01 * (scores[0] - scores[-1]):
                return circle
        raise AssertionError("the last circle is always enough")

    def shifted(self, down: int, right: int) -> Tensor:
        image = torch.zeros_like(self.image)
        for i in range(self.height):
            for j in range(self.width):
                image[:, i, j] = self.image[:, min(max(i - down, 0), self.height - 1), min(max(j - right, 0), self.width - 1)]
        return image

    def variation(self, m: Tensor) -> Tensor:
        rows, columns = m.shape
        total = torch.zeros(())
        for i in range(rows):
            for j in range(columns):
                down = m[i + 1, j] - m[i, j] if i + 1 < rows else 0 * m[i, j]
                right = m[i, j + 1] - m[i, j] if j + 1 < columns else 0 * m[i, j]
                total = total + (down**2 + right**2) ** 1.5
        return total

    def map(self) -> Tensor:
        m, adam = self.start(), reference.Adam(0.1)
        shifts = torch.randint(3, (8, 2), generator=torch.Generator().manual_seed(0)) - 1
        for down, right in shifts.tolist():
            m = m.clone().requires_grad_()
            objective = 0.01 * (1 - m).sum() + 0.1 * self.variation(m) + self.probability(m, self.shifted(down, right))
            (gradient,) = torch.autograd.grad(objective, m)
            m = adam.step(m.detach(), gradient).clamp(0, 1)
        return 1 - self.shown(m)


@pytest.mark.parametrize("batch", [1, 8])
def test_mask_equals_the_reference(batch: int) -> None:
    network, images, targets = smooth().requires_grad_(False), pictures(3, 13, 9), [2, 0, 1]
    result = explain(Classifier.from_module(network), images, "mask", targets=targets, batch=batch, **SETTINGS.model_dump())
    assert result.passes == 8 + 5
    starts = []
    for b, image in enumerate(images):
        one = ReferenceMask(network, image, targets[b])
        starts.append(float(one.start().mean()))
        torch.testing.assert_close(result.maps[b].double(), one.map(), rtol=0, atol=1e-6)
    assert len(set(starts)) > 1  # else the test would not cover the choice of the circle


def test_the_map_shows_where_the_class_is() -> None:
    class Centre(nn.Module):
        """Network whose class 1 is a bright centre."""

        def forward(self, images: Tensor) -> Tensor:
            score = 8 * images[:, :, 10:14, 4:8].mean((1, 2, 3)) - 4
            return torch.stack([torch.zeros_like(score), score], 1)

    settings = {"steps": 60, "cell": 2, "blur": 1.0, "jitter": 0, "l1": 1e-2, "tv": 1e-3, "baseline": "mean"}
    result = explain(Classifier.from_module(Centre()), torch.ones(1, 3, 24, 24), "mask", targets=1, **settings)
    (map_,) = result.maps
    assert map_[10:14, 4:8].mean() > 0.5
    assert map_[:, 14:].mean() < 0.1


def test_translated_images_repeat_their_edges() -> None:
    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert translate(image, 0, 0).tolist() == image.tolist()
    assert translate(image, 1, 0).tolist() == [[[[0, 1, 2], [0, 1, 2]]]]
    assert translate(image, 0, -1).tolist() == [[[[1, 2, 2], [4, 5, 5]]]]

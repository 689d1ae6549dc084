"""The protocol `rise`: steps of a row's width, insertion from the blurred image."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from hdm_core import Classifier, MetricSettings, evaluate
from hdm_core.metrics.curves import rise_blur
from hdm_core.metrics.registry import chosen_metrics
from tests.support.tiny_networks import Linear, pictures

RISE = MetricSettings(protocol="rise")


def logistic(score: float) -> float:
    return 1 / (1 + math.exp(-score))


def programs_blur(image: Tensor) -> Tensor:
    """As RISE's program: a unit impulse in 11 x 11 cells is blurred by SciPy, and the image by that; zeros beyond the edges."""
    ndimage = pytest.importorskip("scipy.ndimage")
    impulse = torch.zeros(11, 11, dtype=torch.float64)
    impulse[5, 5] = 1
    kernel = torch.from_numpy(ndimage.gaussian_filter(impulse.numpy(), 5))
    return torch.nn.functional.conv2d(image.double()[:, None], kernel[None, None], padding=5)[:, 0]


def test_the_blur_is_that_of_rises_program() -> None:
    (image,) = pictures(1, 16, 13)
    torch.testing.assert_close(rise_blur(image[None])[0].double(), programs_blur(image), rtol=0, atol=1e-6)


def test_the_blur_keeps_what_is_far_from_the_edges() -> None:
    blurred = rise_blur(torch.full((2, 3, 21, 23), 0.7))
    assert blurred.shape == (2, 3, 21, 23)
    torch.testing.assert_close(blurred[:, :, 5:-5, 5:-5], torch.full((2, 3, 11, 13), 0.7))
    assert float(blurred[0, 0, 0, 0]) < 0.5, "beyond the edges there are zeros"


def test_deletion_by_hand() -> None:
    # Two columns, three rows: points after 0, 2, 4, 6 pixels. The pixels hold ln 2 each and class 1 has the logit of their sum.
    ln2 = math.log(2)
    classifier = Classifier.from_module(Linear(torch.ones(1, 3, 2)))
    saliency = torch.tensor([[[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]])
    found = evaluate(classifier, torch.full((1, 1, 3, 2), ln2), saliency, torch.tensor([1]), settings=RISE)
    curve = [64 / 65, 16 / 17, 4 / 5, 1 / 2]
    assert found.deletion[0].tolist() == pytest.approx(curve)
    # RISE's own formula: (sum - first / 2 - last / 2) / (n - 1).
    assert float(found.values["deletion_auc"]) == pytest.approx((sum(curve) - curve[0] / 2 - curve[-1] / 2) / 3)


def test_insertion_starts_from_the_blurred_image_and_all_else_from_the_baseline() -> None:
    height, width = 7, 5
    image, saliency = pictures(1, height, width), torch.rand(1, height, width, generator=torch.Generator().manual_seed(0))
    weight = torch.linspace(-0.1, 0.2, image[0].numel()).reshape(image[0].shape)
    found = evaluate(Classifier.from_module(Linear(weight)), image, saliency, torch.tensor([1]), settings=RISE)
    order = saliency.flatten().argsort(descending=True).tolist()

    def shown(count: int, rest: Tensor) -> float:
        mixed = rest.clone().flatten(1)
        mixed[:, order[:count]] = image[0].flatten(1)[:, order[:count]]
        return logistic(float((mixed.reshape(weight.shape) * weight).sum()))

    counts = range(0, height * width + 1, width)
    insertion = [shown(count, rise_blur(image)[0]) for count in counts]
    assert found.insertion[0].tolist() == pytest.approx(insertion, abs=1e-6)
    assert float(found.values["insertion_auc"]) == pytest.approx(sum((a + b) / 2 for a, b in pairwise(insertion)) / height, abs=1e-6)
    clean, kept = shown(height * width, 0 * image[0]), shown(7, 0 * image[0])  # a fifth of 35 pixels
    assert float(found.values["average_drop_80"]) == pytest.approx(max(0, clean - kept) / clean, abs=1e-6)


@pytest.mark.parametrize(("height", "width"), [(7, 9), (9, 7), (1, 4), (4, 1)])
def test_a_point_is_a_row_of_pixels(height: int, width: int) -> None:
    """A network that counts the pixels shown, and another that sees no difference between image and blurred image."""
    classifier = Classifier.from_module(Linear(torch.full((1, height, width), 1e-2)))
    found = evaluate(classifier, torch.ones(1, 1, height, width), torch.rand(1, height, width), torch.tensor([1]), settings=RISE)
    assert found.deletion.shape == found.insertion.shape == (1, height + 1)
    left = (100 * torch.logit(found.deletion[0].double())).round().int().tolist()
    assert left == list(range(height * width, -1, -width))


def test_the_protocols_differ_in_the_curves_alone() -> None:
    images, targets = pictures(2, 7, 9), torch.tensor([0, 1])
    maps = torch.rand(2, 7, 9, generator=torch.Generator().manual_seed(0))
    classifier = Classifier.from_module(Linear(torch.linspace(-0.05, 0.09, 189).reshape(3, 7, 9)))
    paper, rise = (evaluate(classifier, images, maps, targets, maps > 0.5, MetricSettings(protocol=name)) for name in ("paper", "rise"))
    for name in chosen_metrics(None):
        assert torch.equal(paper.values[name], rise.values[name]) == ("auc" not in name), name

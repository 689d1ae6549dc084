from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, explain
from hdm_core.masking.baselines import baseline_image
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.methods.integrated_gradients import gauss_legendre, integrated_gradients
from hdm_core.preprocess import Preprocess
from hdm_core.settings import Baseline
from tests.support import reference
from tests.support.tiny_networks import Linear, pictures, smooth

pytestmark = pytest.mark.usefixtures("double")
TARGETS = torch.tensor([2, 0, 1])


def run(network: nn.Module, images: Tensor, baseline: Tensor, steps: int = 20, batch: int = 8) -> Tensor:
    return integrated_gradients(network.requires_grad_(False), images, TARGETS[: len(images)], baseline, steps, batch, PassCounter())


def test_the_quadrature_of_two_and_three_points_is_that_of_the_tables() -> None:
    nodes, weights = gauss_legendre(2)
    torch.testing.assert_close(nodes, torch.tensor([0.5 - 3**-0.5 / 2, 0.5 + 3**-0.5 / 2]))
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.5]))
    nodes, weights = gauss_legendre(3)
    torch.testing.assert_close(nodes, torch.tensor([0.5 - 0.6**0.5 / 2, 0.5, 0.5 + 0.6**0.5 / 2]))
    torch.testing.assert_close(weights, torch.tensor([5 / 18, 4 / 9, 5 / 18]))


@pytest.mark.parametrize("points", [1, 2, 5, 50])
def test_it_is_exact_for_polynomials(points: int) -> None:
    nodes, weights = gauss_legendre(points)
    for degree in range(2 * points):
        assert float((weights * nodes**degree).sum()) == pytest.approx(1 / (degree + 1), abs=1e-12)


@pytest.mark.parametrize("batch", [1, 7, 100])
@pytest.mark.parametrize("baseline", [torch.zeros(1, 3, 1, 1), pictures(3, 6, 5, seed=1).double()], ids=["grey", "one an image"])
def test_it_equals_the_integral(batch: int, baseline: Tensor) -> None:
    network, images = smooth().requires_grad_(False), pictures(3, 6, 5)
    found = run(network, images, baseline, batch=batch)
    for b, image in enumerate(images):
        start = baseline[b % len(baseline)].expand_as(image)
        mean = torch.zeros_like(image)
        for k in range(1000):  # the midpoint rule
            point = (start + (k + 0.5) / 1000 * (image - start)).requires_grad_()
            (slope,) = torch.autograd.grad(network(point[None])[0, TARGETS[b]], point)
            mean += slope / 1000
        torch.testing.assert_close(found[b], mean * (image - start), rtol=0, atol=1e-6)


def test_attributions_sum_to_the_difference_from_the_baseline() -> None:
    network, images, baseline = smooth(), pictures(3, 8), torch.full((1, 3, 1, 1), 0.3)
    found = run(network, images, baseline, steps=50).sum((1, 2, 3))
    difference = network(images) - network(baseline.expand_as(images))
    torch.testing.assert_close(found, difference.gather(1, TARGETS[:, None])[:, 0], rtol=0, atol=1e-8)


def test_no_more_images_than_a_batch_go_through_the_network_at_once() -> None:
    network, seen = smooth(), []
    network.register_forward_pre_hook(lambda _module, inputs: seen.append(len(inputs[0])))
    run(network, pictures(3, 8), torch.zeros(1, 3, 1, 1), steps=5, batch=4)
    assert seen == [4, 4, 4, 3]


def test_the_map_is_the_size_of_a_pixels_share_over_all_channels() -> None:
    weight = torch.tensor([[[1.0, 2.0, 3.0]], [[-1.0, 2.0, -5.0]]])
    result = explain(Classifier.from_module(Linear(weight)), torch.ones(1, 2, 1, 3), "integrated_gradients", targets=1, steps=3)
    torch.testing.assert_close(result.maps[0].double(), reference.N(torch.tensor([[0.0, 4.0, 2.0]])))
    assert result.passes == 3


@pytest.mark.parametrize("kind", ["mean", "black", "blur"])
def test_the_baseline_is_the_named_one(kind: Baseline) -> None:
    classifier = Classifier.from_module(Linear(torch.ones(3, 24, 24)), Preprocess(resize=24, crop=24))
    images = pictures(1, 24)
    result = explain(classifier, images, "integrated_gradients", targets=1, baseline=kind)
    expected = reference.N((images - baseline_image(kind, classifier, images)).sum(1).abs()[0])
    torch.testing.assert_close(result.maps[0].double(), expected, rtol=0, atol=1e-6)

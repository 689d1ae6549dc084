from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from hdm_core import Classifier, explain
from hdm_core.methods.full_grad import full_gradient
from tests.support import reference
from tests.support.tiny_networks import pictures
from tests.support.tricky_networks import Dense, Pooled, Residual, seeded

pytestmark = pytest.mark.usefixtures("double")
TARGETS = torch.tensor([2, 0, 1])


@pytest.mark.parametrize("make", [Residual, Dense, Pooled])
def test_all_terms_sum_to_the_logit(make: Callable[[], nn.Module]) -> None:
    network, images = seeded(make), pictures(3, 12)
    full = full_gradient(network, images, TARGETS)
    total = sum(term.flatten(1).sum(1) for term in (full.pixels, *full.layers, *full.heads))
    torch.testing.assert_close(total, network(images).gather(1, TARGETS[:, None])[:, 0], rtol=0, atol=1e-10)


def test_a_layer_that_is_called_twice_has_two_terms() -> None:
    full = full_gradient(seeded(Residual), pictures(3, 12), TARGETS)
    assert len(full.layers) == 1 + 2 * 2  # the stem's normalisation, and two calls of a convolution and its normalisation
    assert len(full.heads) == 1


def test_full_grad_equals_the_reference() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 12, 3))
    with torch.no_grad():
        network[1].running_mean.copy_(torch.linspace(-1, 1, 4))
        network[1].running_var.copy_(torch.linspace(0.5, 2, 4))
        network[1].bias.copy_(torch.linspace(0, 1, 4))
        network[1].weight.copy_(torch.linspace(2, 1, 4))
    network.eval().requires_grad_(False)
    conv, norm, _, _, head = network
    images = pictures(3, 9, 7)
    result = explain(Classifier.from_module(network), images, "full_grad", targets=TARGETS.tolist(), batch=2)
    for b, image in enumerate(images):
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        convolved = conv(image[None])[0]
        normal = scale[:, None, None] * (convolved - norm.running_mean[:, None, None]) + norm.bias[:, None, None]
        to_normal = head.weight[TARGETS[b]].reshape(normal.shape) * (normal > 0)
        to_conv = to_normal * scale[:, None, None]
        to_image = torch.nn.grad.conv2d_input((1, 3, 9, 7), conv.weight, to_conv[None], stride=2)[0]
        effective = norm.bias - norm.running_mean * scale
        total = torch.zeros(9, 7)
        for term in (image * to_image, conv.bias[:, None, None] * to_conv, effective[:, None, None] * to_normal):
            for channel in reference.N(term.abs()):
                total += reference.g(channel, 9, 7)
        torch.testing.assert_close(result.maps[b].double(), reference.N(total), rtol=0, atol=1e-6)
    assert result.passes == 1


def test_normalisation_without_statistics_of_its_own_is_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.LazyLinear(2))
    network(pictures(1, 6))
    with pytest.raises(ValueError, match="running statistics"):
        explain(Classifier.from_module(network), pictures(2, 6), "full_grad")


def test_normalisation_without_weights_has_a_bias_all_the_same() -> None:
    network = nn.Sequential(nn.BatchNorm2d(3, affine=False), nn.Flatten(), nn.Linear(27, 3, bias=False)).eval().requires_grad_(False)
    network[0].running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    images = pictures(3, 3)
    full = full_gradient(network, images, TARGETS)
    torch.testing.assert_close(
        full.pixels.sum((1, 2, 3)) + full.layers[0].sum((1, 2, 3)), network(images).gather(1, TARGETS[:, None])[:, 0]
    )

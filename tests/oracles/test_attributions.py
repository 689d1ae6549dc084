"""Gradient, Integrated Gradients and DeepLIFT against captum.

Where captum's DeepLIFT differs, ours still sums to the difference of the logits.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hdm_core import Classifier, explain
from hdm_core.masking.ops import normalise
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.methods.attribution import maps_of_signed, pixel_shares
from hdm_core.methods.deeplift import deeplift
from hdm_core.methods.integrated_gradients import integrated_gradients
from tests.support.tiny_networks import pictures, smooth
from tests.support.tricky_networks import Dense, Residual, seeded

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # raised by captum's imports
    from captum.attr import DeepLift, IntegratedGradients, Saliency

pytestmark = pytest.mark.usefixtures("double")
TARGETS = torch.tensor([2, 0, 1])


class Simple(nn.Module):
    """Network that captum's DeepLIFT handles: each non-linearity is a module used once."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3, stride=2), nn.Sigmoid(), nn.Flatten(), nn.Linear(6 * 16, 8), nn.ELU()
        )
        self.head = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.net(images))


def maps_of(network: nn.Module, images: Tensor, method: str) -> Tensor:
    return explain(Classifier.from_module(network), images, method, targets=TARGETS).maps.double()


def alike(found: Tensor, expected: Tensor) -> None:
    """Assert that each pair of maps correlates."""
    for one, other in zip(found, expected, strict=True):
        assert torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1] > 0.999


def of_captum(network: nn.Module, images: Tensor, baseline: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # captum warns about its hooks
        return DeepLift(network).attribute(images, baseline.expand_as(images), target=TARGETS).detach()


def test_gradient_is_captums_saliency() -> None:
    network, images = smooth(), pictures(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # captum sets requires_grad and warns
        expected = Saliency(network).attribute(images.clone(), target=TARGETS)
    alike(maps_of(network, images, "gradient"), normalise(expected.amax(1)))


def test_integrated_gradients_are_captums() -> None:
    network, images, baseline = smooth(), pictures(3), torch.zeros(1, 3, 1, 1)
    expected = IntegratedGradients(network).attribute(images, baseline.expand_as(images), target=TARGETS, n_steps=50).detach()
    found = integrated_gradients(network, images, TARGETS, baseline, 50, 64, PassCounter())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    alike(maps_of(network, images, "integrated_gradients"), maps_of_signed(pixel_shares(expected)).maps)


@pytest.mark.parametrize("make", [Simple, smooth])
def test_deeplift_is_captums_where_every_activation_is_a_module_used_once(make: Callable[[], nn.Module]) -> None:
    network, images, baseline = seeded(make), pictures(3, 12), torch.zeros(1, 3, 1, 1)
    expected = of_captum(network, images, baseline)
    torch.testing.assert_close(deeplift(network, images, TARGETS, baseline), expected, rtol=0, atol=1e-8)
    alike(maps_of(network, images, "deeplift"), maps_of_signed(pixel_shares(expected)).maps)


def test_captums_deeplift_refuses_an_activation_that_is_used_twice() -> None:
    with pytest.raises(RuntimeError, match="used more than once"):
        of_captum(seeded(Residual), pictures(3, 12), torch.zeros(1, 3, 1, 1))


def test_captums_deeplift_treats_functions_as_linear() -> None:
    network, images, baseline = seeded(Dense), pictures(3, 12), torch.zeros(1, 3, 1, 1)
    difference = (network(images) - network(baseline.expand_as(images))).gather(1, TARGETS[:, None])[:, 0]
    ours, theirs = (
        method.sum((1, 2, 3)) for method in (deeplift(network, images, TARGETS, baseline), of_captum(network, images, baseline))
    )
    torch.testing.assert_close(ours, difference, rtol=0, atol=1e-5)
    assert (theirs - difference).abs().max() > 1e-2

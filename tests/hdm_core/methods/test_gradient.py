from __future__ import annotations

import pytest
import torch

from hdm_core import Classifier, explain
from tests.support import reference
from tests.support.tiny_networks import Linear, pictures, smooth


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_gradient_equals_the_reference(batch: int) -> None:
    network, images, targets = smooth(), pictures(3, 8, 6), [2, 0, 1]
    result = explain(Classifier.from_module(network), images, "gradient", targets=targets, batch=batch)
    for b, image in enumerate(images):
        slopes = torch.zeros(3, 8, 6)
        for place in torch.cartesian_prod(torch.arange(3), torch.arange(8), torch.arange(6)).tolist():
            step = torch.zeros_like(image)
            step[tuple(place)] = 1e-5
            up, down = (network(picture[None])[0, targets[b]] for picture in (image + step, image - step))
            slopes[tuple(place)] = (up - down) / 2e-5
        expected = reference.N(slopes.abs().max(0).values)
        torch.testing.assert_close(result.maps[b].double(), expected.detach(), rtol=0, atol=1e-6)
    assert result.passes == 1


def test_the_largest_channel_counts_whatever_its_sign() -> None:
    weight = torch.tensor([[[1.0, 0.0]], [[-4.0, 1.0]], [[0.0, -2.0]]])
    result = explain(Classifier.from_module(Linear(weight)), torch.rand(1, 3, 1, 2), "gradient", targets=1)
    assert result.maps.tolist() == [[[1.0, 0.0]]]  # 4 and 2, scaled

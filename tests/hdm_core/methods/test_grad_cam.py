from __future__ import annotations

import pytest
import torch
from torch import nn

from hdm_core import Classifier, explain
from tests.support import reference
from tests.support.tiny_networks import pictures, smooth


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("layer", [None, "1", "3"])
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_grad_cam_equals_the_reference(layer: str | None, batch: int) -> None:
    network, images, targets = smooth(), pictures(3, 16, 12), [2, 0, 1]
    result = explain(Classifier.from_module(network), images, "grad_cam", targets=targets, layer=layer, batch=batch)
    end = int(layer or 3) + 1
    for b, image in enumerate(images):
        maps = network[:end](image[None]).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(network[end:](maps)[0, targets[b]], maps)
        cam = torch.zeros(maps.shape[2:])
        for k in range(maps.shape[1]):
            cam += gradient[0, k].mean() * maps[0, k].detach()
        expected = reference.N(reference.g(cam.clamp(min=0), 16, 12))
        torch.testing.assert_close(result.maps[b].double(), expected, rtol=0, atol=1e-6)  # maps are float32
    assert result.passes == 1


def test_an_unknown_layer_is_refused_with_the_parts_to_choose_from() -> None:
    network = smooth()
    with pytest.raises(ValueError, match="no layer 'layer4'; its parts are 0, 1, 2"):
        explain(Classifier.from_module(network), pictures(1), "grad_cam", layer="layer4")


def test_evidence_against_the_class_alone_gives_a_flat_map() -> None:
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        network[-1].weight.copy_(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))
    result = explain(Classifier.from_module(network), pictures(2), "grad_cam", targets=[0, 1])
    assert result.status == ["flat", "ok"]
    assert torch.equal(result.maps[0], torch.zeros(16, 16))

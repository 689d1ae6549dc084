"""Opti-CAM against one graph of autograd, and Finer-CAM against torch-cam."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdm_core import Classifier, check, explain
from hdm_core.masking.ops import normalise
from hdm_core.methods.finer_cam import class_weights
from hdm_core.testing.families import FAMILIES
from tests.support.tiny_networks import pictures, smooth

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torchcam.methods import FinerCAM

TARGETS = [2, 0, 1]


# Opti-CAM


def slow_opti_cam(network: nn.Module, layer: nn.Module, image: Tensor, target: int, steps: int, rate: float) -> Tensor:
    """Optimise one image's weights by one graph from the weights to the logit, with torch's interpolation and Adam."""
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output.detach()))
    network(image[None])
    handle.remove()
    activations = outputs[0].clamp_min(0)
    u = torch.full((1, activations.shape[1], 1, 1), 0.5, dtype=image.dtype, requires_grad=True)
    optimiser = torch.optim.Adam([u], lr=rate)

    def mask() -> Tensor:
        combined = (u.softmax(1) * activations).sum(1, keepdim=True)
        enlarged = F.interpolate(combined, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return (enlarged - enlarged.min()) / (enlarged.max() - enlarged.min())

    for _ in range(steps):
        optimiser.zero_grad()
        loss = -network(mask() * image[None])[0, target]
        loss.backward()
        optimiser.step()
    return mask()[0, 0].detach()


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("size", [(16, 16), (16, 24)])
def test_opti_cam_is_one_graph_of_autograd(size: tuple[int, int]) -> None:
    network, images = smooth(), pictures(3, *size)
    settings = {"layer": "0", "steps": 12, "learning_rate": 0.2}
    found = explain(Classifier.from_module(network), images, "opti_cam", targets=TARGETS, batch=2, **settings)
    slow = smooth().requires_grad_(False)
    expected = [slow_opti_cam(slow, slow[0], image, target, 12, 0.2) for image, target in zip(images, TARGETS, strict=True)]
    torch.testing.assert_close(found.maps.double(), torch.stack(expected), rtol=0, atol=1e-5)
    assert found.passes == 13


def test_opti_cam_raises_the_logit_of_the_masked_image() -> None:
    network, images = FAMILIES["resnet"](), pictures(4, 32)
    layer = "layer2"
    few, many = (explain(network, images, "opti_cam", targets=1, layer=layer, steps=steps).maps[:, None] for steps in (1, 60))
    with torch.no_grad():
        before, after = (network(maps * images)[:, 1] for maps in (few, many))
    assert (after > before).all()


def test_the_scale_of_the_logits_does_not_change_opti_cam() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = smooth()

        def forward(self, images: Tensor) -> Tensor:
            return 16 * self.network(images)

    plain = explain(smooth(), pictures(2), "opti_cam", targets=1, layer="0", steps=20).maps
    scaled = explain(Scaled(), pictures(2), "opti_cam", targets=1, layer="network.0", steps=20).maps
    torch.testing.assert_close(scaled, plain, rtol=0, atol=1e-3)


def test_opti_cam_has_the_same_bits_alone_and_in_a_batch() -> None:
    network, images = FAMILIES["resnet"](), pictures(5, 32)
    together = explain(network, images, "opti_cam", targets=1, layer="layer2", steps=20).maps
    for count in (1, 2, 3):
        assert torch.equal(explain(network, images[:count], "opti_cam", targets=1, layer="layer2", steps=20).maps, together[:count])


# Finer-CAM


@pytest.mark.parametrize("family", ["resnet", "densenet", "vgg"])
@pytest.mark.parametrize(("strength", "classes"), [(0.6, 3), (1.0, 1), (0.3, 4), (0.0, 2)])
def test_finer_cam_is_torchcams(family: str, strength: float, classes: int) -> None:
    layer = {"resnet": "layer3", "densenet": "features.denseblock1", "vgg": "features.4"}[family]
    network, images = FAMILIES[family](), pictures(3, 32)
    found = explain(Classifier.from_module(network), images, "finer_cam", targets=TARGETS, layer=layer, strength=strength, classes=classes)
    with FinerCAM(network, layer, (3, 32, 32), gamma=strength, num_references=classes) as extractor:
        (cams,) = extractor(TARGETS, network(images))
    expected = normalise(F.interpolate(cams[:, None].detach(), size=(32, 32), mode="bilinear", align_corners=False))[:, 0]
    torch.testing.assert_close(found.maps, expected, rtol=0, atol=1e-4)


def test_finer_cam_of_strength_zero_is_grad_cam() -> None:
    found, expected = (
        explain(FAMILIES["resnet"](), pictures(3, 32), method, targets=TARGETS, **settings).maps
        for method, settings in (("finer_cam", {"strength": 0.0}), ("grad_cam", {}))
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_classes_nearest_to_the_target_are_compared() -> None:
    logits = torch.tensor([[1.0, 5.0, 4.5, 6.0, -9.0], [0.0, 1.0, 1.0, 1.0, 1.0]])
    weights = class_weights(logits, torch.tensor([1, 0]), 0.5, 2)
    assert weights.tolist() == [[0, 1, -0.25, -0.25, 0], [1, -0.25, -0.25, 0, 0]]
    assert class_weights(logits[:, :2], torch.tensor([1, 0]), 0.5, 3).tolist() == [[-0.5, 1], [1, -0.5]]


def test_a_network_with_one_output_has_no_class_to_compare_with() -> None:
    classifier = Classifier.from_module(smooth(1), problem_type="regression")
    message = "finer_cam compares a class with others, and the network has one output: use grad_cam"
    with pytest.raises(ValueError, match=message):
        explain(classifier, pictures(2), "finer_cam")
    result = check(classifier, pictures(2), ["finer_cam", "grad_cam"])
    assert result.usable == ("grad_cam",)
    assert message in result.refused


def test_beside_a_contrast_finer_cam_is_grad_cam_of_the_difference() -> None:
    images = pictures(4, 32)
    options = {"target": [0, 1, 2, 3], "contrast": [1, 2, 3, 4]}
    found, expected = (explain(FAMILIES["resnet"](), images, method, **options).maps for method in ("finer_cam", "grad_cam"))
    assert torch.equal(found, expected)

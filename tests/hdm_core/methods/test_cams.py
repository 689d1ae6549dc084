"""CAMs against their papers' formulas, in loops over images, channels and pixels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hdm_core import METHODS, Classifier, explain
from hdm_core.methods.cam import CAMSettings
from hdm_core.methods.eigen_cam import first_projection
from hdm_core.methods.xgrad_cam import _cam as weighted
from hdm_core.testing.families import FAMILIES, transformer
from tests.support import reference
from tests.support.tiny_networks import Untraceable, pictures, smooth

CAMS = [method for method, entry in METHODS.items() if entry.settings is CAMSettings]
TARGETS = [2, 0, 1]


def relu_network(classes: int = 3) -> nn.Sequential:
    """Build `smooth` with maps that are positive and partly zero, as after a ReLU."""
    network = smooth(classes)
    network[3] = nn.ReLU()
    return network


def grad_cam_pp(A: Tensor, g: Tensor, network: nn.Module, image: Tensor, c: int) -> Tensor:
    cam = torch.zeros(A.shape[1:])
    for k in range(len(A)):
        weight = 0.0
        for i in range(A.shape[1]):
            for j in range(A.shape[2]):
                if g[k, i, j] != 0:
                    weight += g[k, i, j] ** 2 / (2 * g[k, i, j] ** 2 + A[k].sum() * g[k, i, j] ** 3) * max(g[k, i, j], 0)
        cam += weight * A[k]
    return cam


def xgrad_cam(A: Tensor, g: Tensor, network: nn.Module, image: Tensor, c: int) -> Tensor:
    return sum((A[k] * g[k] / A[k].sum()).sum() * A[k] for k in range(len(A)) if A[k].any())


def layer_cam(A: Tensor, g: Tensor, network: nn.Module, image: Tensor, c: int) -> Tensor:
    cam = torch.zeros(A.shape[1:])
    for k in range(len(A)):
        for i in range(A.shape[1]):
            for j in range(A.shape[2]):
                cam[i, j] += max(g[k, i, j], 0) * A[k, i, j]
    return cam


def eigen_cam(A: Tensor, g: Tensor, network: nn.Module, image: Tensor, c: int) -> Tensor:
    pixels = A.flatten(1).T
    _, _, right = torch.linalg.svd(pixels, full_matrices=False)
    projection = pixels @ right[0]
    return (projection * (1 if projection @ pixels.abs().sum(1) > 0 else -1)).view(A.shape[1:])


def score_cam(A: Tensor, g: Tensor, network: nn.Module, image: Tensor, c: int) -> Tensor:
    def probability(shown: Tensor) -> Tensor:
        return network(shown[None]).softmax(1)[0, c].detach()

    cam = torch.zeros(A.shape[1:])
    for k in range(len(A)):
        if A[k].max() > A[k].min():
            mask = reference.N(reference.g(A[k], *image.shape[1:]))
            cam += (probability(image * mask) - probability(torch.zeros_like(image))) * A[k]
    return cam


def ablation_cam(A: Tensor, g: Tensor, network: nn.Module, image: Tensor, c: int) -> Tensor:
    end = list(network)[list(map(type, network)).index(nn.AdaptiveAvgPool2d) :]
    cam = torch.zeros(A.shape[1:])
    y = nn.Sequential(*end)(A[None])[0, c]
    for k in range(len(A)):
        ablated = A.clone()
        ablated[k] = 0
        cam += ((y - nn.Sequential(*end)(ablated[None])[0, c]) / y.abs()).detach() * A[k]
    return cam


SLOW = {function.__name__: function for function in (grad_cam_pp, xgrad_cam, layer_cam, eigen_cam, score_cam, ablation_cam)}


def activations_and_gradient(network: nn.Sequential, end: int, image: Tensor, c: int) -> tuple[Tensor, Tensor]:
    maps = network[:end](image[None]).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network[end:](maps)[0, c], maps)
    return maps.detach()[0], gradient[0]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("build", [smooth, relu_network])
@pytest.mark.parametrize("method", SLOW)
def test_the_map_equals_the_reference(method: str, build: Callable[[], nn.Sequential]) -> None:
    network, images = build(), pictures(3, 16, 12)
    result = explain(Classifier.from_module(network), images, method, targets=TARGETS, batch=2)
    for b, image in enumerate(images):
        A, g = activations_and_gradient(network, 4, image, TARGETS[b])
        cam = SLOW[method](A, g, network, image, TARGETS[b])
        expected = reference.N(reference.g(cam.clamp(min=0), 16, 12))
        torch.testing.assert_close(result.maps[b].double(), expected, rtol=0, atol=1e-6)  # maps are float32
        assert expected.any() or method != "eigen_cam"


def test_every_cam_has_a_reference() -> None:
    assert {*SLOW, "grad_cam"} == set(CAMS)


# All CAMs


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize("value", [0.3, -1.7])
def test_a_constant_cam_is_flat(method: str, value: float) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softplus(), nn.AvgPool2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    result = explain(Classifier.from_module(network), torch.full((2, 3, 16, 17), value), method, layer="2")
    assert result.status == ["flat", "flat"]


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_torchvisions_families_give_maps_that_are_not_flat(method: str, family: str) -> None:
    result = explain(Classifier.from_module(FAMILIES[family]()), pictures(2, 32), method)
    assert result.status == ["ok", "ok"] or method not in ("layer_cam", "eigen_cam")


@pytest.mark.parametrize("method", CAMS)
def test_a_vision_transformer_is_explained_at_tokens_and_at_maps(method: str) -> None:
    classifier = Classifier.from_module(transformer())
    default = explain(classifier, pictures(1, 32), method)
    named = explain(classifier, pictures(1, 32), method, layer="encoder.layers.encoder_layer_0.ln_1")
    assert torch.equal(default.maps, named.maps)
    assert explain(classifier, pictures(1, 32), method, layer="conv_proj").maps.shape == (1, 32, 32)
    with pytest.raises(TypeError, match=r"must return a tensor \(B, K, h, w\) or tokens \(B, N, K\); MultiheadAttention does not"):
        explain(classifier, pictures(1, 32), method, layer="encoder.layers.encoder_layer_0.self_attention")


# Grad-CAM++


def test_small_gradients_do_not_vanish_in_grad_cam_pp() -> None:
    network = relu_network()
    expected = explain(Classifier.from_module(network), pictures(2), "grad_cam_pp", targets=0).maps
    with torch.no_grad():
        network[-1].weight.mul_(1e-20)  # their cubes underflow in float32
    found = explain(Classifier.from_module(network), pictures(2), "grad_cam_pp", targets=0)
    assert found.status == ["ok", "ok"]
    A, g = activations_and_gradient(network, 4, pictures(2)[0], 0)
    cam = (torch.relu(g).sum((1, 2), keepdim=True) / 2 * A).sum(0)  # the limit of Eq. 19
    torch.testing.assert_close(found.maps[0].double(), reference.N(reference.g(cam.double(), 16, 16)), rtol=0, atol=1e-5)
    assert not torch.equal(found.maps, expected)


# XGrad-CAM


def test_xgrad_cams_weights_add_up_to_the_sensitivity() -> None:
    """Check sum_k w_k sum A_k = sum A g, from which the paper derives its weights."""
    A, g = activations_and_gradient(relu_network(), 4, pictures(1)[0], 0)
    A[1] = 0
    A, g = A[None].double(), g[None].double()
    torch.testing.assert_close(weighted(A, g).sum(), (A * g).sum())


# Eigen-CAM


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 5, 4), (30, 5, 4), (20, 5, 4), (4, 1, 7), (1, 3, 3)])
@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_the_projection_is_that_of_the_singular_value_decomposition(channels: int, height: int, width: int, shift: float) -> None:
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(3, channels, height, width, generator=generator, dtype=torch.float64) + shift
    for found, image in zip(first_projection(A), A, strict=True):
        expected = eigen_cam(image, image, nn.Identity(), image, 0)
        # O v_1, or O v_1 / sigma_1: maps do not depend on the scale.
        torch.testing.assert_close(found / found.norm(), expected / expected.norm())


@pytest.mark.parametrize("channels", [2, 40])
def test_strong_activations_are_bright(channels: int) -> None:
    A = 0.01 * torch.rand(2, channels, 4, 4, generator=torch.Generator().manual_seed(0))
    A[0, :, 1, 2] += 5
    A[1, :, 3, 0] -= 5
    found = first_projection(A)
    assert found[0].argmax() == 1 * 4 + 2
    assert found[1].argmax() == 3 * 4 + 0
    assert torch.equal(first_projection(-A), found)


# Ablation-CAM


class Residual(nn.Module):
    """Network with a bypassed layer, and activations that reach the head through a ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.act, self.head = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.act(self.stem(images))
        return self.head(self.act(self.inner(maps) + maps).mean((2, 3)))


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("family", ["resnet", "mobilenet", "efficientnet", "densenet", "convnext", "vgg"])
def test_the_closed_form_and_the_tail_are_the_whole_network_ablated(family: str) -> None:
    network, images = FAMILIES[family](), pictures(2, 32)
    found = explain(Classifier.from_module(network), images, "ablation_cam", targets=[1, 3])
    brute = explain(Classifier.from_module(Untraceable(network)), images, "ablation_cam", targets=[1, 3])
    torch.testing.assert_close(found.maps, brute.maps, rtol=0, atol=1e-6)
    assert brute.passes == 1 + 16
    assert found.passes == (1 if family in ("resnet", "mobilenet", "efficientnet") else 2)


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("layer", ["stem", "inner", "act"])
def test_ablation_by_hand_where_a_layer_is_bypassed_or_used_twice(layer: str) -> None:
    torch.manual_seed(3)
    network, images = Residual(), pictures(2)
    result = explain(Classifier.from_module(network), images, "ablation_cam", targets=[1, 2], layer=layer)
    for b, c in enumerate([1, 2]):
        stem = network.stem(images[b : b + 1]).detach()
        inner = network.inner(stem.relu()).detach()
        act = (inner + stem.relu()).relu()

        def logits_of(stem: Tensor = stem, inner: Tensor | None = None, act: Tensor | None = None) -> Tensor:
            maps = stem.relu()
            inner = network.inner(maps) if inner is None else inner
            return network.head(((inner + maps).relu() if act is None else act).mean((2, 3)))

        A = {"stem": stem, "inner": inner, "act": act}[layer]
        cam = torch.zeros(A.shape[2:])
        for k in range(4):
            ablated = A.clone()
            ablated[:, k] = 0
            cam += (logits_of()[0, c] - logits_of(**{layer: ablated})[0, c]).detach() * A[0, k]
        torch.testing.assert_close(result.maps[b].double(), reference.N(reference.g(cam.clamp(min=0), 16, 16)), rtol=0, atol=1e-6)
    # The tail of `act` is affine; `inner` is bypassed; 4 runs of the tail of `stem` have half of the network's multiplications.
    assert result.passes == {"act": 1, "inner": 1 + 4, "stem": 1 + 1}[layer]


def test_a_negative_logit_does_not_invert_the_map() -> None:
    """Channel 0 is evidence for class 0 and against class 1; both logits are negative."""
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        network[0].weight.copy_(torch.eye(2, 3)[:, :, None, None])
        network[0].bias.zero_()
        network[-1].weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        network[-1].bias.fill_(-10)
    image = torch.zeros(1, 3, 8, 8)
    image[0, 0, :4], image[0, 1, 4:] = 1, 1
    maps = explain(Classifier.from_module(network), image.expand(2, -1, -1, -1), "ablation_cam", targets=[0, 1]).maps
    assert maps[0, 0, 0] == maps[1, -1, 0] == 1
    assert maps[0, -1, 0] == maps[1, 0, 0] == 0


# Score-CAM


def test_a_constant_channel_weighs_nothing_in_score_cam() -> None:
    network = relu_network()
    with torch.no_grad():
        network[2].weight[1] = network[2].bias[1] = 0
        network[-1].weight[:, 1] = 0  # the logits do not depend on it
    expected = explain(Classifier.from_module(network), pictures(2), "score_cam", targets=0)
    with torch.no_grad():
        network[2].bias[1] = 1e6
    found = explain(Classifier.from_module(network), pictures(2), "score_cam", targets=0)
    assert found.status == ["ok", "ok"]
    assert torch.equal(found.maps, expected.maps)


@pytest.mark.parametrize("batch", [1, 5])
def test_score_cam_never_shows_more_than_a_batch(batch: int) -> None:
    seen: list[int] = []
    network = Untraceable(relu_network())
    network.register_forward_hook(lambda _module, images, _output: seen.append(len(images[0])))
    result = explain(Classifier.from_module(network), pictures(2), "score_cam", batch=batch)
    assert max(seen) <= batch
    assert result.passes == 1 + 6

"""Which axes of a layer's output are channels, rows and columns."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hdm_core import METHODS, Classifier, explain
from hdm_core.methods.cam import CAMSettings
from hdm_core.network.axes import locate
from hdm_core.network.default_layer import default_layer
from hdm_core.network.hooks import activations_and_logits
from hdm_core.network.target_layer import TargetLayer
from hdm_core.testing.families import FAMILIES
from tests.support.tiny_networks import Untraceable, assert_unchanged, pictures, snapshot

CAMS = [method for method, entry in METHODS.items() if entry.settings is CAMSettings]


class Permute(nn.Module):
    def __init__(self, *axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, *self.axes)


def permuted(*axes: int) -> nn.Module:
    """Build a network whose last spatial layer has its axes in another order; the logits do not depend on the order."""

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.act = nn.Conv2d(3, 7, 3, stride=2, padding=1), nn.Softplus()
            self.mix, self.permute, self.head = nn.Conv2d(7, 7, 1), Permute(*axes), nn.Linear(7, 3)

        def forward(self, images: Tensor) -> Tensor:
            x = self.permute(self.act(self.mix(self.act(self.stem(images)))))
            positions = [axis for axis in (1, 2, 3) if axes[axis - 1] != 1]
            return self.head(x.mean(positions))

    torch.manual_seed(4)
    return Network().eval()


@pytest.mark.parametrize("axes", [(1, 2, 3), (2, 3, 1), (1, 3, 2), (3, 2, 1), (2, 1, 3), (3, 1, 2)])
def test_any_order_of_the_axes_is_measured(axes: tuple[int, int, int]) -> None:
    network, images = permuted(*axes), pictures(2, 24, 16)
    located = locate(network, network.permute, images)
    assert [axes[axis - 1] for axis in located.axes] == [1, 2, 3]
    output = network.permute(network.act(network.mix(network.act(network.stem(images)))))
    maps = located.to_maps(output)
    assert maps.shape == (2, 7, 12, 8)
    assert torch.equal(located.from_maps(maps, output), output)
    assert torch.equal(activations_and_logits(network, network.permute, images)[0], maps)


@pytest.mark.parametrize("wrap", [lambda network: network, Untraceable], ids=["traceable", "untraceable"])
@pytest.mark.parametrize("axes", [(2, 3, 1), (1, 3, 2)])
@pytest.mark.parametrize("method", CAMS)
def test_a_cam_does_not_depend_on_the_order_of_the_axes(method: str, axes: tuple[int, int, int], wrap: Callable[..., nn.Module]) -> None:
    images = pictures(2, 24, 16)
    layer = "permute" if wrap is not Untraceable else "network.permute"
    expected = explain(Classifier.from_module(wrap(permuted(1, 2, 3))), images, method, targets=[0, 2], layer=layer)
    found = explain(Classifier.from_module(wrap(permuted(*axes))), images, method, targets=[0, 2], layer=layer)
    assert found.status == expected.status
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-4)
    assert found.passes == expected.passes


@pytest.mark.parametrize(("method", "passes"), [("score_cam", 7), ("ablation_cam", 0)])
def test_the_cost_counts_the_channels_and_not_the_columns(method: str, passes: int) -> None:
    entry, classifier = METHODS[method], Classifier.from_module(permuted(2, 3, 1))
    assert entry.cost(entry.configure(), classifier, pictures(1, 24)) == 1 + passes


@pytest.mark.parametrize("family", FAMILIES)
def test_an_ordinary_network_has_its_channels_first(family: str) -> None:
    network, images = FAMILIES[family](), pictures(2, 32)
    before = snapshot(network)
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.BatchNorm2d)) or layer is default_layer(network, images).module:
            if layer(torch.zeros(1, *first_input(network, layer, images).shape[1:])).shape[2:] == (1, 1):
                continue  # squeeze-and-excitation
            assert locate(network, layer, images).axes == (1, 2, 3), name
    assert_unchanged(network, before)


def first_input(network: nn.Module, layer: nn.Module, images: Tensor) -> Tensor:
    inputs: list[Tensor] = []
    with layer.register_forward_pre_hook(lambda _module, given: inputs.append(given[0])):
        network(images)
    return inputs[0]


class Blocks(nn.Module):
    """Network with layers that return no map per image."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.tokens, self.weights, self.windows, self.several = nn.Identity(), nn.Identity(), nn.Identity(), Several()
        self.flipped, self.head = nn.Identity(), nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)
        x = self.tokens(maps.flatten(2).mT[:, :, None])  # (B, N, 1, K)
        x = x[:, :, 0]
        weights = self.weights((x @ x.mT)[:, None].expand(-1, 3, -1, -1))  # (B, heads, N, N)
        windows = self.windows(F.unfold(maps, 2, stride=2).mT.reshape(-1, 8, 2, 2))  # (B n, K, 2, 2)
        maps = self.flipped(self.several(maps)[0].flip(2))
        return self.head(maps.mean((2, 3))) + weights.mean((1, 2, 3))[:, None] + windows.reshape(len(images), -1).mean(1)[:, None]


class Several(nn.Module):
    def forward(self, maps: Tensor) -> list[Tensor]:
        return [maps, maps]


@pytest.mark.parametrize("method", ["grad_cam", "score_cam", "eigen_cam", "ablation_cam"])
@pytest.mark.parametrize(
    ("layer", "kind", "words"),
    [
        ("tokens", ValueError, r"output \(B, 64, 1, 8\) follow the rows and columns"),
        ("weights", ValueError, r"output \(B, 3, 64, 64\) follow the rows and columns"),
        ("flipped", ValueError, r"output \(B, 8, 8, 8\) follow the rows and columns"),
        ("windows", TypeError, "one map per image; Identity returns 16 for 1"),
        ("several", TypeError, r"must return a tensor \(B, K, h, w\) or tokens \(B, N, K\); Several does not"),
    ],
)
def test_what_is_no_map_of_the_image_is_refused(layer: str, kind: type[Exception], words: str, method: str) -> None:
    torch.manual_seed(0)
    with pytest.raises(kind, match=words) as caught:
        explain(Classifier.from_module(Blocks().eval()), pictures(2, 32), method, layer=layer)
    assert "\n" not in str(caught.value)


def test_an_activation_that_the_head_shares_is_captured_where_it_returns_maps() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.hidden, self.head = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Linear(6, 6), nn.Linear(6, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.act(self.hidden(self.act(self.conv(images)).mean((2, 3)))))

    torch.manual_seed(2)
    network, images = Shared().eval(), pictures(2)
    maps = network.act(network.conv(images)).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.head(network.act(network.hidden(maps.mean((2, 3)))))[:, 1].sum(), maps)
    cam = torch.relu((gradient.mean((2, 3), keepdim=True) * maps).sum(1)).detach()
    for method in ("grad_cam", "ablation_cam", "score_cam", "eigen_cam"):
        found = explain(Classifier.from_module(network), images, method, targets=1)
        assert found.maps.shape == (2, 16, 16)
        if method == "grad_cam":
            upsampled = F.interpolate(cam[:, None], size=(16, 16), mode="bilinear", align_corners=False)[:, 0].flatten(1)
            for one, other in zip(found.maps.flatten(1), upsampled, strict=True):
                assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.999


def test_the_kind_decides_where_nothing_moves() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 64, 3)).eval()
    nn.init.zeros_(network[0].weight)
    assert locate(network, network[0], pictures(1, 8)) == TargetLayer(network[0])
    last = nn.Sequential(Permute(2, 3, 1), nn.LayerNorm(3), nn.Flatten(), nn.Linear(3 * 64, 3)).eval()
    nn.init.zeros_(last[1].weight)
    assert locate(last, last[1], pictures(1, 8)).axes == (3, 1, 2)
    unknown = nn.Sequential(nn.Threshold(1e9, 0.0), nn.Flatten(), nn.Linear(3 * 64, 3)).eval()
    with pytest.raises(ValueError, match="no axes of the target layer's output"):
        locate(unknown, unknown[0], pictures(1, 8))


def test_the_axes_are_measured_once_for_a_size() -> None:
    calls: list[int] = []
    network = permuted(2, 3, 1)
    network.register_forward_hook(lambda _module, images, _output: calls.append(len(images[0])))
    first = locate(network, network.permute, pictures(2, 24))
    assert calls == [1] * 5
    assert locate(network, network.permute, pictures(3, 24)) == first
    assert len(calls) == 5
    locate(network, network.permute, pictures(3, 16))
    assert len(calls) == 10

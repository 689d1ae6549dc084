from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor, nn

from hdm_core.network.default_layer import default_layer, last_outputs
from hdm_core.network.hooks import activations_and_logits, capture, count_calls, logits_with_activations
from hdm_core.network.target_layer import TargetLayer
from hdm_core.testing.families import FAMILIES
from tests.support.tiny_networks import (
    InterruptionError,
    activations_and_gradients,
    assert_unchanged,
    normalised,
    pictures,
    smooth,
    snapshot,
)


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_activations_and_gradients_are_those_of_the_layer() -> None:
    network, images, targets = smooth(), pictures(3), torch.tensor([0, 2, 1])
    activations, gradients = activations_and_gradients(network, network[1], images, targets)
    expected = network[:2](images).detach().requires_grad_()
    network[2:](expected).gather(1, targets[:, None]).sum().backward()
    torch.testing.assert_close(activations, expected.detach())
    torch.testing.assert_close(gradients, expected.grad)
    assert not activations.requires_grad
    assert hooks(network) == 0
    assert network[0].weight.grad is None


def test_the_logits_are_the_networks_own() -> None:
    network, images = smooth(), pictures(2)
    expected = network(images)
    with capture(TargetLayer(network[1])):
        assert torch.equal(network(images), expected)


def test_a_later_operation_in_place_does_not_overwrite_what_was_captured() -> None:
    network, images = normalised(inplace=True).eval(), pictures(2)
    activations, gradients = activations_and_gradients(network, network.norm, images, torch.tensor([0, 1]))
    kept = normalised(inplace=False).eval()
    expected = activations_and_gradients(kept, kept.norm, images, torch.tensor([0, 1]))
    assert (activations < 0).any()
    torch.testing.assert_close((activations, gradients), expected)


def test_it_works_where_gradients_are_switched_off() -> None:
    network, images = smooth().requires_grad_(False), pictures(1)
    with torch.no_grad():
        _, gradients = activations_and_gradients(network, network[3], images, torch.tensor([0]))
    assert gradients.abs().sum() > 0


def test_the_hook_is_removed_after_an_exception() -> None:
    network = smooth()
    before = snapshot(network)
    with pytest.raises(InterruptionError), capture(TargetLayer(network[1])):
        raise InterruptionError
    assert_unchanged(network, before)


@pytest.mark.parametrize("layer", [-1, -2])
def test_a_layer_that_returns_no_map_is_refused(layer: int) -> None:
    network = smooth()
    with pytest.raises(TypeError, match=r"must return a tensor \(B, K, h, w\) or tokens \(B, N, K\); (Linear|Flatten) does not"):
        activations_and_gradients(network, network[layer], pictures(1), torch.tensor([0]))
    assert hooks(network) == 0


class Idle(nn.Module):
    """Network with a layer that is never called, and one whose output is unused."""

    def __init__(self) -> None:
        super().__init__()
        self.rest = smooth()
        self.uncalled, self.unused = nn.Conv2d(3, 2, 3), nn.Conv2d(3, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        self.unused(images)
        return self.rest(images)


@pytest.mark.parametrize(("name", "words"), [("uncalled", "does not call the"), ("unused", "do not depend on the")])
@pytest.mark.parametrize("trainable", [True, False])
def test_a_layer_without_effect_is_refused(name: str, words: str, trainable: bool) -> None:
    network = Idle().requires_grad_(trainable)
    with pytest.raises(ValueError, match=words):
        activations_and_gradients(network, network.get_submodule(name), pictures(1), torch.tensor([0]))
    assert hooks(network) == 0


def test_the_last_spatial_layer_is_the_last_in_order_of_execution() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.late, self.early = nn.Conv2d(4, 2, 3), nn.Conv2d(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.late(self.early(images)).mean((2, 3))

    network = Backwards()
    assert default_layer(network, pictures(1)).module is network.late


def test_pooling_dropout_and_single_pixels_are_skipped() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Dropout(),
        nn.Identity(),
        nn.AdaptiveAvgPool2d(1),
        nn.Conv2d(4, 3, 1),
        nn.Flatten(),
    ).eval()
    assert default_layer(network, pictures(1)).module is network[1]


def test_the_same_network_explained_twice_keeps_no_hook() -> None:
    network = normalised().eval()
    before = snapshot(network)
    assert default_layer(network, pictures(1)).module is network.features
    assert_unchanged(network, before)


@pytest.mark.parametrize(
    ("arch", "layer"),
    [
        ("resnet18", "layer4"),
        ("mobilenet_v2", "features"),
        ("densenet121", "features"),
        ("efficientnet_b0", "features"),
        ("convnext_tiny", "features"),
        ("shufflenet_v2_x0_5", "conv5"),
        ("squeezenet1_1", "classifier.2"),
        ("vgg11", "features.19"),  # the last ReLU: the pooling after it is skipped
        ("swin_t", "permute"),  # its features are (B, h, w, K) before
    ],
)
def test_the_end_of_the_last_convolutional_stage(arch: str, layer: str) -> None:
    with torch.device("meta"):
        network = torchvision.models.get_model(arch, weights=None).eval()
        found, _ = last_outputs(network, torch.zeros(1, 3, 96, 96))
    assert found is network.get_submodule(layer)


class Reused(nn.Module):
    """ResNet's block: one in-place ReLU is called in the middle and at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.ReLU(inplace=True), nn.Linear(4, 3)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.relu(self.first(images))
        return self.head(self.relu(self.second(maps) + maps).mean((2, 3)))


def test_the_last_output_of_a_layer_called_twice_is_captured() -> None:
    network, images = Reused(), pictures(2)
    expected, answer = [], network(images)
    with network.relu.register_forward_hook(lambda _module, _inputs, output: expected.append(output.detach().clone())):
        network(images)
    activations, gradients = activations_and_gradients(network, network.relu, images, torch.tensor([0, 2]))
    torch.testing.assert_close(activations, expected[1])
    by_hand = network.head.weight[[0, 2], :, None, None] / expected[1][0, 0].numel()
    torch.testing.assert_close(gradients, by_hand.expand_as(gradients).detach())
    assert default_layer(network, images).module is network.relu
    assert count_calls(network, TargetLayer(network.relu), images) == 2
    # Only the output of the last call is replaced.
    swapped = logits_with_activations(network, TargetLayer(network.relu), 2, 2 * expected[1], images)
    torch.testing.assert_close(swapped, network.head(2 * expected[1].mean((2, 3))))
    torch.testing.assert_close(logits_with_activations(network, TargetLayer(network.relu), 2, expected[1].clone(), images), answer)
    assert hooks(network) == 0


def test_densenets_in_place_relu_does_not_change_the_captured_output() -> None:
    network, images = FAMILIES["densenet"](), pictures(2, 32)
    activations, logits = activations_and_logits(network, network.features, images)
    assert torch.equal(activations, network.features(images))
    assert (activations < 0).any()
    assert torch.equal(logits, network(images))


def test_a_network_without_maps_is_refused() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 3))
    with pytest.raises(ValueError, match="name one with layer="):
        default_layer(network, pictures(1))

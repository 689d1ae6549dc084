from __future__ import annotations

import torch
from torch import Tensor, nn

from hdm_core.network.tail import Tail, extract_tail
from hdm_core.network.target_layer import TargetLayer
from hdm_core.testing.families import FAMILIES
from tests.support.tiny_networks import Untraceable, assert_unchanged, normalised, pictures, smooth, snapshot


def tail_after(network: nn.Module, layer: nn.Module) -> Tail | None:
    return extract_tail(network, TargetLayer(layer))


def test_a_tail_is_the_rest_of_the_network() -> None:
    network, images = normalised().eval(), pictures(2)
    before = snapshot(network)
    for end in range(len(network) - 1):
        tail = tail_after(network, network[end])
        assert tail is not None
        torch.testing.assert_close(tail.run(network[: end + 1](images)), network(images))
    assert_unchanged(network, before)


def test_the_last_call_of_a_layer_is_where_a_tail_begins() -> None:
    network, images = FAMILIES["resnet"](), pictures(2, 32)
    layer = network.layer4[0].relu
    outputs: list[Tensor] = []
    with layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output)):
        expected = network(images)
    assert len(outputs) == 2
    torch.testing.assert_close(tail_after(network, layer).run(outputs[-1]), expected)


def test_only_pooling_and_linear_layers_are_affine() -> None:
    network = smooth()
    assert [tail_after(network, layer).is_affine for layer in network[:4]] == [False, False, False, True]
    affine = {family: tail_after(network, network.get_submodule(layer)).is_affine for family, network, layer in built()}
    assert affine == {"resnet": True, "mobilenet": True, "efficientnet": True, "densenet": False, "convnext": False, "vgg": False}


def built() -> list[tuple[str, nn.Module, str]]:
    return [(family, build(), {"resnet": "layer4"}.get(family, "features")) for family, build in FAMILIES.items()]


def test_a_layer_that_is_bypassed_or_not_called_has_no_tail() -> None:
    resnet = FAMILIES["resnet"]()
    assert tail_after(resnet, resnet.layer4[0].conv2) is None
    assert tail_after(resnet, nn.ReLU()) is None
    untraceable = Untraceable(smooth())
    assert tail_after(untraceable, untraceable.network[3]) is None


class Ignored(nn.Module):
    """Network that calls a layer without using its output."""

    def __init__(self) -> None:
        super().__init__()
        self.ignored, self.rest = nn.Conv2d(3, 2, 3), smooth()

    def forward(self, images: Tensor) -> Tensor:
        self.ignored(images)
        return self.rest(images)


def test_a_layer_without_effect_has_no_tail() -> None:
    network = Ignored()
    assert tail_after(network, network.ignored) is None

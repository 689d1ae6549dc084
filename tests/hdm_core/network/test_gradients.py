"""One error, in words, where no gradient reaches what needs one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from hdm_core import METHODS, Classifier, check, explain
from hdm_core.testing.families import FAMILIES
from tests.support.tiny_networks import assert_unchanged, pictures, smooth, snapshot

QUICK = {
    "hdm": {"sizes": (4,), "steps": 1, "stages": 1, "start": "tau"},
    "dm": {"sizes": (4,), "steps": 1, "start": "tau"},
    "integrated_gradients": {"steps": 2},
    "mask": {"steps": 2, "cell": 2, "blur": 1.0, "circles": 2},
    "rise": {"masks": 8},
}
# Methods that need no gradient, and Ablation-CAM, which needs none unless it has a closed form.
WITHOUT = {"rise", "score_cam", "eigen_cam", "occlusion", "center", "edges", "random_map"}


class Cut(nn.Module):
    """Network without a gradient in its middle.

    Args:
        cut: "no_grad", "detach", "inference" or "quantised".
    """

    def __init__(self, cut: str) -> None:
        super().__init__()
        self.network, self.cut = smooth(), cut

    def forward(self, images: Tensor) -> Tensor:
        if self.cut == "detach":
            return self.network[4:](self.network[:4](images).detach())
        if self.cut == "quantised":
            maps = torch.quantize_per_tensor(self.network[:4](images), 1e-3, 0, torch.qint32).dequantize()
            return self.network[4:](maps)
        with torch.no_grad() if self.cut == "no_grad" else torch.inference_mode():
            maps = self.network[:4](images)
        return self.network[4:](maps.clone())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("cut", ["no_grad", "detach", "inference", "quantised"])
@pytest.mark.parametrize("method", [method for method, entry in METHODS.items() if not entry.needs_attention])
def test_a_gradient_that_does_not_arrive_is_one_line(method: str, cut: str) -> None:
    network = Cut(cut)
    before = snapshot(network)
    arguments = {**QUICK.get(method, {}), **({"layer": "network.0"} if METHODS[method].layer else {})}
    classifier = Classifier.from_module(network)
    if method in WITHOUT or method == "ablation_cam":
        assert explain(classifier, pictures(2), method, **arguments).status == ["ok", "ok"]
    else:
        with pytest.raises(ValueError, match=r"no gradient of the network's logits reaches the (images|target layer): ") as caught:
            explain(classifier, pictures(2), method, **arguments)
        assert "rise, score_cam or eigen_cam" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert_unchanged(network, before)


@pytest.mark.parametrize("method", ["grad_cam", "layer_cam", "ablation_cam"])
def test_a_layer_behind_the_cut_is_explained(method: str) -> None:
    expected = explain(Classifier.from_module(smooth()), pictures(2), method, layer="3")

    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = smooth()

        def forward(self, images: Tensor) -> Tensor:
            with torch.no_grad():
                maps = self.network[:3](images)
            return self.network[3:](maps)

    found = explain(Classifier.from_module(Late()), pictures(2), method, layer="network.3")
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-5)


# Compiled parts and TorchScript


@pytest.mark.parametrize("method", ["grad_cam", "eigen_cam", "ablation_cam", "deeplift", "full_grad", "gradient"])
@pytest.mark.parametrize("part", ["whole", "stage", "in place"])
def test_what_is_compiled_is_explained_as_in_python(method: str, part: str) -> None:
    images = pictures(2, 32)
    expected = explain(Classifier.from_module(FAMILIES["resnet"]()), images, method, targets=1)
    network = FAMILIES["resnet"]()
    if part == "whole":
        network = torch.compile(network, backend="eager")
    elif part == "stage":
        network.layer4 = torch.compile(network.layer4, backend="eager")
    else:
        network.layer4.compile(backend="eager")
    with torch.no_grad():
        network(images)  # compiled before hooks are there
    found = explain(Classifier.from_module(network), images, method, targets=1)
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-5)
    assert found.status == expected.status


@pytest.mark.filterwarnings("ignore:`torch.jit")
@pytest.mark.parametrize("part", ["whole", "stage", "traced", "frozen"])
@pytest.mark.parametrize("method", METHODS)
def test_torchscript_is_explained_or_refused(method: str, part: str) -> None:
    images = pictures(2)
    network: nn.Module = smooth().requires_grad_(False)
    if part == "stage":
        network[2] = torch.jit.script(network[2])
    elif part == "traced":
        network = torch.jit.trace(network, images)
    else:
        network = torch.jit.script(network)
        network = torch.jit.freeze(network) if part == "frozen" else network
    classifier = Classifier.from_module(network)
    if METHODS[method].layer or METHODS[method].needs_attention or method in ("full_grad", "deeplift"):
        with pytest.raises(ValueError, match="TorchScript gives no access to its layers, and this method needs them"):
            explain(classifier, images, method)
        result = check(classifier, images, [method])
        assert result.usable == ()
        assert f"{method}: TorchScript gives no access to its layers" in result.refused
    else:
        expected = explain(Classifier.from_module(smooth()), images, method, **QUICK.get(method, {}))
        found = explain(classifier, images, method, **QUICK.get(method, {}))
        torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-2)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_layer_in_python_of_a_network_with_a_scripted_part_can_be_named() -> None:
    network = smooth()
    network[0] = torch.jit.script(network[0])
    expected = explain(Classifier.from_module(smooth()), pictures(2), "grad_cam", layer="3")
    found = explain(Classifier.from_module(network), pictures(2), "grad_cam", layer="3")
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-5)

"""Arguments of the networks' builders, which no weight shows: a network answers as it was trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from hdm_core import Classifier, Preprocess
from hdm_core.sources.checkpoint import CARD, MODEL, Card, save_checkpoint

IMAGES = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def trained(arch: str, **arguments: Any) -> nn.Module:
    """Build a network with statistics that let the answer depend on the image, as a training does."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(arch, weights=None, init_weights=False, num_classes=3, **arguments)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    network.train()
    with torch.no_grad():
        network(torch.randn(4, 3, 96, 96))
    return network.eval()


def answers(network: nn.Module, images: Tensor = IMAGES) -> Tensor:
    with torch.no_grad():
        found: Tensor = network(images)
    return found


def without_auxiliary(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not key.lower().startswith("aux")}


def other_auxiliary(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give the auxiliary heads 1000 classes, as where only the main head was replaced."""
    sizes = {"AuxLogits.fc.weight": (1000, 768), "AuxLogits.fc.bias": (1000,)}
    sizes |= {f"aux{n}.fc2.{name}": (1000, *size) for n in (1, 2) for name, size in (("weight", (1024,)), ("bias", ()))}
    return {key: torch.zeros(sizes[key]) if key in sizes else value for key, value in state.items()}


@pytest.mark.parametrize("change", [dict, without_auxiliary, other_auxiliary], ids=["all", "no auxiliary heads", "other auxiliary heads"])
@pytest.mark.parametrize("arch", ["googlenet"])
def test_a_network_fine_tuned_from_torchvisions_weights(
    tmp_path: Path, arch: str, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> None:
    network = trained(arch, transform_input=True)
    torch.save({"state_dict": {f"model.{key}": value for key, value in change(network.state_dict()).items()}}, tmp_path / "mine.pth")
    found = Classifier.from_checkpoint(tmp_path / "mine.pth", arch, 3).module
    torch.testing.assert_close(answers(found), answers(network))


def test_inception_without_its_auxiliary_head(tmp_path: Path) -> None:
    network = trained("inception_v3", transform_input=True, aux_logits=False)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    torch.testing.assert_close(answers(Classifier.from_checkpoint(tmp_path / "mine.pth", "inception_v3", 3).module), answers(network))


def test_a_network_trained_from_random_weights_is_read_with_its_argument(tmp_path: Path) -> None:
    network = trained("googlenet")
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    found = Classifier.from_checkpoint(tmp_path / "mine.pth", "googlenet", 3, arguments={"transform_input": False}).module
    torch.testing.assert_close(answers(found), answers(network))


@pytest.mark.parametrize("transform", [False, True])
def test_a_folder_answers_as_the_network_that_it_was_made_of(tmp_path: Path, transform: bool) -> None:
    network = trained("googlenet", transform_input=transform)
    arguments = {"transform_input": True, "init_weights": False} if transform else {}
    save_checkpoint(network, Card(arch="googlenet", classes=("a", "b", "c"), arguments=arguments), tmp_path)
    card = json.loads((tmp_path / CARD).read_text())
    assert card.get("arguments") == (arguments or None), "without arguments the card is that of earlier versions"
    classifier = Classifier.from_checkpoint(tmp_path)
    torch.testing.assert_close(answers(classifier.module), answers(network))
    assert classifier.weights_digest() == Classifier.from_module(network).weights_digest()
    file = Classifier.from_checkpoint(tmp_path / MODEL, "googlenet", 3)
    torch.testing.assert_close(answers(file.module), answers(network))
    with pytest.raises(ValueError, match="a trained folder has its own in its card"):
        Classifier.from_checkpoint(tmp_path, arguments={"transform_input": True})


def test_a_transformer_has_the_size_of_its_position_embedding(tmp_path: Path) -> None:
    network = torchvision.models.vit_b_32(weights=None, num_classes=2, image_size=64, representation_size=8).eval()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    classifier = Classifier.from_checkpoint(tmp_path / "mine.pth", "vit_b_32", 2)
    assert classifier.preprocess == Preprocess(resize=73, crop=64)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(answers(classifier.module, images), answers(network, images))


def test_a_width_is_an_argument_and_its_lack_is_named(tmp_path: Path) -> None:
    network = torchvision.models.mobilenet_v2(weights=None, num_classes=2, width_mult=0.5).eval()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    with pytest.raises(ValueError, match=r"features\.0\.0\.weight is \(16, 3, 3, 3\) and should be \(32, 3, 3, 3\)"):
        Classifier.from_checkpoint(tmp_path / "mine.pth", "mobilenet_v2", 2)
    classifier = Classifier.from_checkpoint(tmp_path / "mine.pth", "mobilenet_v2", 2, arguments={"width_mult": 0.5})
    torch.testing.assert_close(answers(classifier.module), answers(network))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            {"transform_input": True},
            "mobilenet_v2 cannot be built with the arguments {'transform_input': True} (MobileNetV2",
        ),
        ({"width_mult": "wide"}, "mobilenet_v2 cannot be built with the arguments {'width_mult': 'wide'}"),
        ({"num_classes": 3}, "the arguments cannot hold num_classes"),
        ({"weights": "DEFAULT"}, "the arguments cannot hold weights"),
        ({"pretrained": True}, "the arguments cannot hold pretrained"),
    ],
    ids=str,
)
def test_arguments_that_the_builder_does_not_take(tmp_path: Path, arguments: dict[str, Any], words: str) -> None:
    torch.save(torchvision.models.mobilenet_v2(weights=None, num_classes=2).state_dict(), tmp_path / "mine.pth")
    with pytest.raises(ValueError) as caught:
        Classifier.from_checkpoint(tmp_path / "mine.pth", "mobilenet_v2", 2, arguments=arguments)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_card_with_a_wrong_argument_is_refused(tmp_path: Path) -> None:
    network = torchvision.models.squeezenet1_1(num_classes=2)
    save_checkpoint(network, Card(arch="squeezenet1_1", classes=("a", "b"), arguments={"width": 2}), tmp_path)
    with pytest.raises(ValueError, match=r"card\.json: squeezenet1_1 cannot be built with the arguments"):
        Classifier.from_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "arch", ["mnasnet0_5", "regnet_y_400mf", "shufflenet_v2_x0_5", "swin_t", "maxvit_t", "densenet121", "mobilenet_v3_small"]
)
def test_networks_of_every_kind_are_read(tmp_path: Path, arch: str) -> None:
    network = torchvision.models.get_model(arch, weights=None, num_classes=2).eval()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    images = torch.randn(1, 3, 224, 224)
    torch.testing.assert_close(answers(Classifier.from_checkpoint(tmp_path / "mine.pth", arch, 2).module, images), answers(network, images))


# Evaluation mode


def test_a_network_that_is_built_or_loaded_is_in_evaluation_mode(tmp_path: Path) -> None:
    network = torchvision.models.mobilenet_v2(weights=None, num_classes=2).train()
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    save_checkpoint(network, Card(arch="mobilenet_v2", classes=("a", "b")), tmp_path / "folder")
    for classifier in (
        Classifier.from_torchvision("mobilenet_v2"),
        Classifier.from_torchvision("mobilenet_v2", weights="IMAGENET1K_V1"),
        Classifier.from_checkpoint(tmp_path / "mine.pth", "mobilenet_v2", 2),
        Classifier.from_checkpoint(tmp_path / "folder"),
    ):
        assert not any(module.training for module in classifier.module.modules()), classifier.name


def test_a_network_of_the_users_stays_in_its_mode() -> None:
    network = nn.Sequential(nn.Dropout(), nn.Dropout().eval())
    Classifier.from_module(network)
    assert [module.training for module in network.modules()] == [True, True, False]

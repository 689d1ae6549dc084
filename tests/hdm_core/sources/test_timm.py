"""timm's networks: built by name, with timm's preprocessing, and explained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode

from hdm_core import METHODS, Classifier, Preprocess, explain
from hdm_core.sources.timm import follow_timm

timm = pytest.importorskip("timm", reason="the extra timm is not installed")

VIT, RESNET = "vit_tiny_patch16_224", "resnet10t"
CHEAP: dict[str, dict[str, Any]] = {
    "hdm": {"sizes": (4,), "steps": 1, "stages": 1},
    "dm": {"sizes": (4,), "steps": 1},
    "integrated_gradients": {"steps": 2},
    "rise": {"masks": 8},
    "mask": {"steps": 2},
}


@pytest.fixture(scope="module")
def vit() -> Classifier:
    return Classifier.from_timm(VIT, classes=4)


def test_a_network_comes_with_timms_preprocessing(vit: Classifier) -> None:
    half = (0.5, 0.5, 0.5)
    assert vit.preprocess == Preprocess(248, 224, half, half, InterpolationMode.BICUBIC)
    assert (vit.name, vit.class_names) == (VIT, None)
    assert Classifier.from_timm(VIT, classes=4).weights_digest() == vit.weights_digest()
    assert Classifier.from_timm(VIT, classes=4, seed=1).weights_digest() != vit.weights_digest()


@pytest.mark.parametrize("method", METHODS)
def test_a_vision_transformer_is_explained_by_every_method_that_can(method: str) -> None:
    vit = Classifier.from_timm(VIT, classes=4, arguments={"img_size": 64, "depth": 2})  # 192 channels are as many passes of Score-CAM
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    if method == "full_grad":  # its attention and layer normalisation are no sum of pixels and biases
        with pytest.raises(ValueError, match="pixels and biases do not sum to its logits"):
            explain(vit, images, method)
    else:
        result = explain(vit, images, method, **CHEAP.get(method, {}))
        assert result.status == ["ok"]
        assert result.maps.shape == (1, 64, 64)


def test_a_users_state_dict(tmp_path: Path) -> None:
    network = timm.create_model(RESNET, num_classes=3)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "mine.pth")
    classifier = Classifier.from_timm(RESNET, path=tmp_path / "mine.pth", classes=["ant", "bee", "cat"])
    assert classifier.weights_digest() == Classifier.from_module(network).weights_digest()
    assert (classifier.name, classifier.class_names) == (f"{RESNET} mine.pth", ("ant", "bee", "cat"))
    with pytest.raises(ValueError, match=rf"does not hold the weights of {RESNET} with 4 classes: fc.weight is \(3, 512\)"):
        Classifier.from_timm(RESNET, path=tmp_path / "mine.pth", classes=4)


def test_what_a_state_dict_shows_need_not_be_given(tmp_path: Path) -> None:
    network = timm.create_model(VIT, num_classes=3, img_size=96).eval()
    torch.save({f"model.{key}": value for key, value in network.state_dict().items()}, tmp_path / "mine.pth")
    classifier = Classifier.from_timm(VIT, path=tmp_path / "mine.pth")
    assert classifier.preprocess == Preprocess(106, 96, (0.5,) * 3, (0.5,) * 3, InterpolationMode.BICUBIC)
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(classifier.module(images), network(images))
    assert not any(module.training for module in classifier.module.modules())


def test_arguments_of_the_network(tmp_path: Path) -> None:
    network = timm.create_model(RESNET, num_classes=3, in_chans=1)
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    with pytest.raises(ValueError, match=r"conv1\.0\.weight is \(24, 1, 3, 3\) and should be \(24, 3, 3, 3\)"):
        Classifier.from_timm(RESNET, path=tmp_path / "mine.pth", classes=3)
    classifier = Classifier.from_timm(RESNET, path=tmp_path / "mine.pth", classes=3, arguments={"in_chans": 1})
    assert classifier.weights_digest() == Classifier.from_module(network).weights_digest()
    assert Classifier.from_timm(VIT, arguments={"img_size": 96}).preprocess.crop == 96


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"arch": RESNET, "arguments": {"img_size": 64}}, "timm cannot build resnet10t with the arguments"),
        ({"arch": RESNET, "arguments": {"num_classes": 2}}, "the arguments cannot hold num_classes"),
        ({"arch": RESNET, "arguments": {"checkpoint_path": "x.pth"}}, "the arguments cannot hold checkpoint_path"),
        ({"arch": VIT, "arguments": {"img_size": (96, 192)}}, "they must be square"),
        ({"arch": "vit_tinyy_patch16_224"}, "timm has no classification network 'vit_tinyy_patch16_224': choose from vit_tiny_patch16_224"),
        ({"arch": VIT, "weights": "nobodys"}, "Invalid pretrained tag"),
        ({"arch": VIT, "weights": "nobodys", "classes": 3}, "Invalid pretrained tag"),
        ({"arch": RESNET, "weights": "DEFAULT", "classes": 3}, "timm cannot build resnet10t: its weights have 1000 classes, not 3"),
        ({"arch": "vit_small_patch14_dinov2"}, "returns features, not logits, unless classes is given"),
        ({"arch": VIT, "weights": "augreg_in21k", "classes": ["ant", "bee"]}, "its weights have 21843 classes, not 2"),
    ],
    ids=str,
)
def test_names_and_arguments_that_timm_does_not_have(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Classifier.from_timm(**arguments)
    assert "\n" not in str(caught.value)


# timm's own transform


CONFIGS = [
    {"crop_mode": mode, "crop_pct": share, "input_size": (3, *size), "interpolation": interpolation}
    for mode, share, size, interpolation in (
        ("center", 0.875, (224, 224), "bilinear"),
        ("center", 0.9, (96, 96), "bicubic"),
        ("center", 1.0, (288, 288), "bicubic"),
        ("squash", 1.0, (224, 224), "bicubic"),
        ("squash", 0.95, (96, 96), "bicubic"),
        ("squash", 0.9, (96, 160), "bilinear"),
        ("border", 1.0, (96, 96), "bicubic"),
        ("border", 0.9, (96, 96), "bilinear"),
        ("border", 1.0, (96, 160), "bicubic"),
    )
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: " ".join(map(str, config.values())))
@pytest.mark.parametrize("size", [(301, 200), (200, 333), (251, 251), (60, 47), (97, 64), (64, 99)], ids=str)
def test_the_tensor_is_that_of_timms_transform(config: dict[str, Any], size: tuple[int, int]) -> None:
    config = {**config, "mean": (0.48, 0.46, 0.41), "std": (0.27, 0.26, 0.28)}
    width, height = size
    image = Image.fromarray(np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8))
    expected = timm.data.create_transform(**config, is_training=False)(image)
    torch.testing.assert_close(follow_timm(VIT, config)(image), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("is_test", [False, True])
@pytest.mark.parametrize(
    "arch", [RESNET, VIT, "convnext_atto", "vit_base_patch16_siglip_224", "eva02_tiny_patch14_224", "tf_efficientnet_b0"]
)
def test_the_configurations_of_networks_are_followed_at_the_size_of_training_and_of_test(arch: str, is_test: bool) -> None:
    config = timm.data.resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(arch).to_dict(), use_test_size=is_test)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (97, 131, 3), dtype=np.uint8))
    expected = timm.data.create_transform(**config, is_training=False)(image)
    torch.testing.assert_close(follow_timm(arch, config)(image), expected, rtol=0, atol=1e-5)


def test_timms_crop_of_inputs_that_are_not_square_is_refused_by_its_mode() -> None:
    config = {**CONFIGS[0], "input_size": (3, 96, 160), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    with pytest.raises(ValueError, match="takes images of 96 x 160; for timm's crop mode center they must be square"):
        follow_timm(VIT, config)

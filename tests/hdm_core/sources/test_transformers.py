"""Image classifiers of Hugging Face: tensors equal to the processor's, logits to the network's, and one line for what cannot be loaded."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from hdm_core import Classifier, Preprocess, check, explain
from hdm_core.sources.transformers import load_transformers
from tests.support.huggingface import CHECKPOINTS, LABELS, SIDE, labels, save, save_processor

transformers = pytest.importorskip("transformers", reason="the extra transformers is not installed")

# Landscape, portrait, square, smaller than the input, and with odd margins beside a crop.
SIZES = [(301, 200), (200, 333), (251, 251), (60, 47), (97, 64), (64, 99)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("huggingface")
    for name in CHECKPOINTS:
        save(name, folder / name)
    return folder


def photograph(size: tuple[int, int]) -> Image.Image:
    """A smooth photograph with noise on one half."""
    width, height = size
    draw = np.random.default_rng(width)
    pixels = np.array(Image.fromarray(draw.integers(0, 255, (7, 6, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC))
    pixels[: height // 2] = draw.integers(0, 255, (height // 2, width, 3))
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_the_tensor_is_the_processors(folders: Path, name: str) -> None:
    classifier = Classifier.from_transformers(folders / name)
    processor = transformers.AutoImageProcessor.from_pretrained(folders / name, backend="pil")
    for size in SIZES:
        expected = torch.as_tensor(np.asarray(processor(images=photograph(size), return_tensors="np")["pixel_values"]))
        torch.testing.assert_close(classifier.prepare([photograph(size)]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_logits_names_and_maps_are_those_of_the_network(folders: Path, name: str) -> None:
    classifier = Classifier.from_transformers(folders / name)
    network = transformers.AutoModelForImageClassification.from_pretrained(folders / name)
    images = classifier.prepare([photograph(SIZES[0])])
    with torch.no_grad():
        expected = network(pixel_values=images).logits
    found = explain(classifier, images, "gradient")
    torch.testing.assert_close(found.logits, expected)
    assert found.status == ["ok"]
    assert (classifier.class_names, classifier.name, classifier.dtype) == (LABELS, name, torch.float32)
    assert not any(module.training for module in classifier.module.modules())


def test_layers_of_the_network_are_found_by_its_own_names(folders: Path) -> None:
    classifier = Classifier.from_transformers(folders / "resnet")
    images = classifier.prepare([photograph(SIZES[0])])
    assert explain(classifier, images, "grad_cam", layer="resnet.encoder.stages.3").status == ["ok"]
    result = check(classifier, images)
    assert ("output", "handled") in [(each.subject, each.verdict) for each in result.findings]
    assert "its output 'logits' is taken as the logits" in str([each.text for each in result.findings])


def test_weights_in_half_precision_become_float32(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "vit", tmp_path / "half")
    transformers.AutoModelForImageClassification.from_pretrained(folders / "vit").half().save_pretrained(tmp_path / "half")
    classifier = Classifier.from_transformers(tmp_path / "half")
    assert classifier.dtype == torch.float32


def test_a_preprocess_replaces_the_processor_and_labels_without_names_are_none(folders: Path, tmp_path: Path) -> None:
    shutil.copytree(folders / "vit", tmp_path / "vit")
    (tmp_path / "vit/preprocessor_config.json").unlink()
    edit(tmp_path / "vit/config.json", id2label={number: f"LABEL_{number}" for number in range(4)}, label2id={})
    classifier = Classifier.from_transformers(tmp_path / "vit", Preprocess(SIDE, SIDE))
    assert classifier.preprocess == Preprocess(SIDE, SIDE)
    assert classifier.class_names is None


def test_the_problem_type_of_the_configuration_is_returned(folders: Path, tmp_path: Path) -> None:
    assert load_transformers(folders / "vit").problem_type is None
    shutil.copytree(folders / "vit", tmp_path / "vit")
    edit(tmp_path / "vit/config.json", problem_type="multi_label_classification")
    assert load_transformers(tmp_path / "vit").problem_type == "multi_label_classification"


def test_what_the_library_reports_is_not_switched_off_for_good(folders: Path) -> None:
    settings, hub = transformers.utils.logging, logging.getLogger("huggingface_hub")
    before = settings.get_verbosity(), settings.is_progress_bar_enabled(), hub.level
    Classifier.from_transformers(folders / "vit")
    assert (settings.get_verbosity(), settings.is_progress_bar_enabled(), hub.level) == before


# Processors


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("ViT", {"size": {"height": 48, "width": 80}}),
        ("ViT", {"do_rescale": False, "do_normalize": False, "size": {"height": SIDE, "width": SIDE}}),
        ("ViT", {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]}),
        ("CLIP", {"size": {"shortest_edge": 90}, "crop_size": {"height": 61, "width": 64}}),
        ("Bit", {"size": {"shortest_edge": 72}, "crop_size": {"height": SIDE, "width": SIDE}}),
        ("MobileNetV2", {"size": {"shortest_edge": 72}, "crop_size": {"height": SIDE, "width": SIDE}}),
    ],
)
def test_settings_of_processors_are_followed(folders: Path, tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    shutil.copytree(folders / "vit", tmp_path / "vit")
    save_processor(kind, tmp_path / "vit", settings)
    preprocess = load_transformers(tmp_path / "vit").preprocess
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "vit", backend="pil")
    for size in SIZES:
        expected = torch.as_tensor(np.asarray(processor(images=photograph(size), return_tensors="np")["pixel_values"][0])).float()
        torch.testing.assert_close(preprocess(photograph(size)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("ViT", {"size": {"shortest_edge": 64, "longest_edge": 100}}, "it resizes to {'longest_edge': 100, 'shortest_edge': 64}"),
        ("ViT", {"size": {"shortest_edge": 64}}, "without crop the inputs have no fixed size"),
        ("ViT", {"do_pad": True, "pad_size": {"height": 300, "width": 300}}, "an input of (3, 300, 300) instead of (3, 224, 224)"),
        ("CLIP", {"do_resize": False, "crop_size": {"height": 80, "width": 96}}, "values that differ"),  # it fills half a pixel elsewhere
        ("EfficientNet", {"size": {"height": SIDE, "width": SIDE}}, "values that differ by up to 1"),
        ("MobileViT", {"size": {"shortest_edge": 72}, "crop_size": {"height": SIDE, "width": SIDE}}, "values that differ"),
        ("Levit", {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}, "values that differ"),
    ],
)
def test_a_processor_that_does_more_is_one_line(folders: Path, tmp_path: Path, kind: str, settings: dict[str, Any], words: str) -> None:
    shutil.copytree(folders / "vit", tmp_path / "vit")
    save_processor(kind, tmp_path / "vit", settings)
    message = refused(ValueError, tmp_path / "vit")
    assert f"its processor {kind}ImageProcessorPil cannot be followed exactly" in message
    assert words in message
    assert message.endswith("give the preprocess, of the same values if that is enough (resize, crop, mean and std in a configuration)")


# What cannot be loaded


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refused(kind: type[Exception], source: str | Path) -> str:
    with pytest.raises(kind) as caught:
        Classifier.from_transformers(source)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


def backbone(folder: Path) -> None:
    config = transformers.AutoConfig.from_pretrained(folder)
    transformers.ViTModel(config).save_pretrained(folder)


def text_network(folder: Path) -> None:
    config = transformers.BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)


def own_code(folder: Path) -> None:
    edit(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config", "AutoModelForImageClassification": "mine.Net"})
    (folder / "mine.py").write_text(f"open({str(folder / 'harm')!r}, 'w')\n")


def own_processor(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", image_processor_type="Mine", auto_map={"AutoImageProcessor": "mine.Mine"})
    (folder / "mine.py").write_text(f"open({str(folder / 'harm')!r}, 'w')\n")


def sound_processor(folder: Path) -> None:
    edit(
        folder / "preprocessor_config.json",
        image_processor_type="Wav2Vec2FeatureExtractor",
        feature_extractor_type="Wav2Vec2FeatureExtractor",
    )


def odd_processor(folder: Path) -> None:
    save_processor("Pix2Struct", folder, {})


def other_weights(folder: Path) -> None:
    save("resnet", folder.parent / "other")
    shutil.copy(folder.parent / "other/model.safetensors", folder / "model.safetensors")


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (pickled, OSError, "has no model.safetensors; it has pytorch_model.bin, a pickle, which is not read: convert it"),
        (lambda folder: (folder / "model.safetensors").unlink(), OSError, "has no model.safetensors; give a folder that save_pretrained"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), OSError, "has no preprocessor_config.json: copy that of"),
        (lambda folder: (folder / "config.json").unlink(), OSError, "has no config.json: give a folder"),
        (lambda folder: (folder / "config.json").write_text("{"), OSError, "is not a valid JSON file"),
        (lambda folder: (folder / "preprocessor_config.json").write_text("{"), OSError, "is not a valid JSON file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), ValueError, "transformers cannot load"),
        (
            backbone,
            ValueError,
            "lacks weights of ViTForImageClassification, or has them in another shape (classifier.bias, classifier.weight)",
        ),
        (text_network, ValueError, "is of the type bert (BertForSequenceClassification), for which transformers has no image classifier"),
        (
            other_weights,
            ValueError,
            "(classifier.bias, classifier.weight, vit.embeddings.cls_token and 37 more); its config.json",
        ),
        (
            lambda folder: edit(folder / "config.json", **labels(("a", "b"))),
            ValueError,
            "(classifier.bias, classifier.weight); its",
        ),
        (own_code, ValueError, "needs code of its own, which is not run"),
        (own_processor, ValueError, "needs code of its own, which is not run"),
        (sound_processor, ValueError, "its processor Wav2Vec2FeatureExtractor cannot be followed exactly"),
        (odd_processor, ValueError, "its processor Pix2StructImageProcessorPil"),
    ],
    ids=range(15),
)
def test_what_cannot_be_loaded_is_one_line(
    folders: Path, tmp_path: Path, change: Callable[[Path], object], kind: type[Exception], words: str
) -> None:
    shutil.copytree(folders / "vit", tmp_path / "vit")
    change(tmp_path / "vit")
    assert words in refused(kind, tmp_path / "vit")
    assert not (tmp_path / "vit/harm").exists()


@pytest.mark.parametrize("source", ["./nowhere", Path("nowhere"), "~/nowhere/vit", "/nowhere", "a/b/c"], ids=str)
def test_a_folder_that_does_not_exist_is_no_repository(source: str | Path) -> None:
    assert "is no folder: give that of save_pretrained, or the name of a repository of the hub, ORG/NAME" in refused(OSError, source)


def test_a_repository_without_a_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refused(OSError, "hdm-tests/vit")
    assert message == "hdm-tests/vit is not in the local cache, and the hub cannot be reached: give a folder, or download it"


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(ImportError, match=r"transformers is not installed: pip install 'hdm-pipeline\[transformers\]'"):
        Classifier.from_transformers("hdm-tests/vit")


def test_a_plain_network_of_the_library_is_explained_too(folders: Path) -> None:
    network: nn.Module = transformers.AutoModelForImageClassification.from_pretrained(folders / "convnext").eval()
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    found = explain(network, images, "grad_cam")
    assert set(found.status) <= {"ok", "flat"}
    assert found.maps.shape == (2, SIDE, SIDE)

"""Keys of the preprocessing: what each combination makes of that of the weights, and what is refused before a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torchvision

from hdm_core import Preprocess
from hdm_core.sources.checkpoint import Card, load_checkpoint, save_checkpoint
from pipeline.classifiers.load import configure_preprocess, load_classifier, preprocess_identity
from pipeline.config.schema import ClassifierConfig
from pipeline.errors import InputError
from pipeline.training.config import NetworkConfig
from pipeline.training.network import make_network
from tests.support.plans import configuration, refused

NO_CHANGE = {"mean": (0.0,), "std": (1.0,)}


def configured(preprocess: Preprocess | None = None, **keys: Any) -> Preprocess:
    return configure_preprocess(preprocess or Preprocess(), ClassifierConfig(arch="resnet18", **keys))


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, Preprocess()),
        ({"resize": 300}, Preprocess(300, 224)),
        ({"resize": 300, "crop": [280, 200]}, Preprocess(300, (280, 200))),
        ({"resize": [320, 256]}, Preprocess((320, 256), None)),
        ({"resize": [320, 256], "crop": [300, 200]}, Preprocess((320, 256), (300, 200))),
        ({"pad": True}, Preprocess((224, 224), None, pad=True)),
        ({"pad": True, "resize": 320}, Preprocess(320, None, pad=True)),
        ({"pad": True, "resize": [320, 256], "fill": 0.5}, Preprocess((320, 256), None, pad=True, fill=0.5)),
        ({"fill": [0.1, 0.2, 0.3]}, Preprocess(fill=(0.1, 0.2, 0.3))),
        ({"pad": False}, Preprocess()),
        ({"channels": 3}, Preprocess()),
        ({"channels": 1, "mean": [0.5], "std": [0.25]}, Preprocess(mean=(0.5,), std=(0.25,))),
        ({"mean": [0.5], "std": [0.25]}, Preprocess(mean=(0.5,), std=(0.25,))),
        ({"channels": 1, "value_range": [-1024, 1024]}, Preprocess(mean=(0.0,), std=(1.0,), value_range=(-1024, 1024))),
        ({"value_range": [0, 255]}, Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3, value_range=(0, 255))),
        ({"value_range": [0, 255], "mean": [128] * 3}, Preprocess(mean=(128.0,) * 3, std=(1.0,) * 3, value_range=(0, 255))),
    ],
    ids=str,
)
def test_keys_replace_what_the_weights_define(keys: dict[str, Any], expected: Preprocess) -> None:
    assert configured(**keys) == expected


def test_a_card_with_an_exact_size_keeps_it() -> None:
    card = Preprocess((320, 256), None, (0.5,), (0.25,), "bicubic", value_range=(-1, 1))
    assert configured(card) == card
    assert configured(card, crop=[300, 200]).size == (300, 200)
    assert configured(card, resize=[64, 64]).size == (64, 64)
    assert configured(card, channels=1) == card


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"channels": 1}, "images of 1 channel need mean and std, and those of the weights are for 3: write mean: [0.0] and std: [1.0]"),
        ({"channels": 2, "mean": [0.5, 0.5]}, "images of 2 channels need mean and std"),
        ({"mean": [0.5]}, "images of 1 channel need mean and std"),
        ({"mean": [0.5] * 3, "std": [0.5] * 2}, "classifier.std has 2 values and mean 3: one value per channel is needed"),
        ({"channels": 1, "mean": [0.5] * 3}, "classifier.mean has 3 values and channels 1: one value per channel is needed"),
        ({"value_range": [5, 5]}, "value_range must be two numbers (low, high), low first"),
        ({"fill": [0.1, 0.2]}, "fill must be a value in 0 to 1, or one for each of the 3 channels"),
        ({"fill": 3}, "classifier.fill"),
        ({"resize": [224, 0]}, "classifier.resize"),
        ({"resize": [1, 2, 3]}, "classifier.resize"),
        ({"crop": "wide"}, "classifier.crop"),
        ({"std": [0.5, 0.0, 0.5]}, "classifier.std"),
        ({"mean": []}, "classifier.mean"),
        ({"pad": "maybe"}, "classifier.pad"),
    ],
    ids=str,
)
def test_what_is_refused_before_a_run(keys: dict[str, Any], message: str) -> None:
    def load() -> None:
        load_classifier(configuration(classifier={"arch": "squeezenet1_1", **keys}).classifier, 0)

    assert message in refused(load)


def test_an_exact_size_over_a_card_that_has_only_that() -> None:
    with pytest.raises(ValueError, match="without crop the inputs have no fixed size"):
        configured(Preprocess((320, 256), None), resize=256)


# Identity, and cards


def test_the_identity_of_an_old_preprocessing_is_unchanged_and_new_settings_enter() -> None:
    classifier = load_classifier(configuration().classifier, 0)
    old = preprocess_identity(classifier)
    assert set(old) == {"resize", "crop", "mean", "std", "interpolation", "classes_sha256"}
    assert (old["resize"], old["crop"]) == (32, 32)
    section = {"arch": "squeezenet1_1", "resize": [64, 48], "pad": True, "fill": 0.5, "value_range": [0, 255]}
    new = preprocess_identity(load_classifier(configuration(classifier=section).classifier, 0))
    assert json.loads(json.dumps(new)) == new
    assert {name: new[name] for name in ("resize", "crop", "pad", "fill", "value_range")} == {
        "resize": [64, 48],
        "crop": None,
        "pad": True,
        "fill": 0.5,
        "value_range": [0.0, 255.0],
    }


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(),
        Preprocess((224, 200), None, (0.5,) * 3, (0.5,) * 3, pad=True, fill=(0.1, 0.2, 0.3)),
        Preprocess(64, (56, 48), (0.0,) * 3, (1.0,) * 3, value_range=(-1024, 1024)),
    ],
)
def test_a_card_has_new_settings_only_if_they_are_used(tmp_path: Path, preprocess: Preprocess) -> None:
    save_checkpoint(
        torchvision.models.squeezenet1_1(num_classes=2), Card(arch="squeezenet1_1", classes=("a", "b"), preprocess=preprocess), tmp_path
    )
    stored = json.loads((tmp_path / "card.json").read_text())["preprocess"]
    new = {name for name in ("pad", "fill", "value_range") if getattr(preprocess, name) != getattr(Preprocess(), name)}
    assert set(stored) == {"resize", "crop", "mean", "std", "interpolation"} | new
    _, card = load_checkpoint(tmp_path)
    assert card.preprocess == preprocess


def test_a_training_resizes_exactly(tmp_path: Path) -> None:
    network = make_network(NetworkConfig(arch="resnet18", resize=(64, 48)), 2, 0)
    assert network.preprocess == Preprocess((64, 48), None)
    assert make_network(NetworkConfig(arch="resnet18", resize=(64, 48), crop=32), 2, 0).preprocess == Preprocess((64, 48), 32)
    with pytest.raises(InputError, match="takes images of 224 x 224 only"):
        make_network(NetworkConfig(arch="vit_b_16", resize=(224, 200)), 2, 0)

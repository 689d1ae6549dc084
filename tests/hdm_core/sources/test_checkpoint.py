"""Checkpoints: written, read again, and refused if damaged."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torchvision.transforms import InterpolationMode

from hdm_core import Classifier, Preprocess
from hdm_core.sources.checkpoint import CARD, MODEL, Card, load_checkpoint, save_checkpoint

PREPROCESS = Preprocess(resize=72, crop=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation=InterpolationMode.BICUBIC)
NAMES = ("wren", "owl, barn", 'the "third"')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    network = torchvision.models.squeezenet1_1(num_classes=3)
    save_checkpoint(
        network, Card(arch="squeezenet1_1", classes=NAMES, preprocess=PREPROCESS, metrics={"accuracy": 0.5}), tmp_path / "birds"
    )
    return tmp_path / "birds"


def test_a_checkpoint_is_read_as_it_was_written(tmp_path: Path) -> None:
    network = torchvision.models.squeezenet1_1(num_classes=3).eval()
    card = Card(arch="squeezenet1_1", classes=NAMES, preprocess=PREPROCESS, metrics={"accuracy": 0.5}, data="abc")
    save_checkpoint(network, card, tmp_path / "birds")
    assert load_checkpoint(tmp_path / "birds")[1] == card
    classifier = Classifier.from_checkpoint(tmp_path / "birds")
    assert (classifier.name, classifier.class_names, classifier.preprocess) == ("squeezenet1_1 birds", NAMES, PREPROCESS)
    assert classifier.weights_digest() == Classifier.from_module(network).weights_digest()
    images = torch.randn(2, 3, 64, 64)
    with classifier.frozen() as copy, torch.no_grad():
        assert torch.equal(copy(images), network(images))


@pytest.mark.parametrize("name", [MODEL, CARD])
def test_a_file_that_is_missing(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(OSError, match=name):
        Classifier.from_checkpoint(folder)


def broken(folder: Path) -> str:
    with pytest.raises(ValueError) as caught:
        Classifier.from_checkpoint(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 400
    return message


@pytest.mark.parametrize("data", [b"", b"no tensors", pickle.dumps({"weight": 1})], ids=["empty", "text", "pickle"])
def test_weights_that_are_damaged_or_a_pickle(folder: Path, data: bytes) -> None:
    (folder / MODEL).write_bytes(data)
    assert MODEL in broken(folder)


def test_weights_that_were_cut_off(folder: Path) -> None:
    whole = (folder / MODEL).read_bytes()
    for size in (4, 100, len(whole) // 2, len(whole) - 1):
        (folder / MODEL).write_bytes(whole[:size])
        assert f"{MODEL} is damaged" in broken(folder)


def test_weights_of_another_network(folder: Path) -> None:
    save_file({"weight": torch.zeros(2)}, folder / MODEL)
    message = "does not hold the weights of squeezenet1_1 with 3 classes: missing features.0.weight, features.0.bias, "
    assert message in broken(folder)
    assert broken(folder).endswith("and 49 more; unexpected weight")
    assert set(load_file(folder / MODEL)) == {"weight"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arch": "squeezenet9"}, "no classification network 'squeezenet9'"),
        ({"classes": []}, "classes: "),
        ({"classes": ["only one"]}, "with 1 classes"),
        ({"code": "import os"}, "code: "),
        ({"preprocess": {"crop": "wide"}}, "preprocess.crop: "),
    ],
    ids=str,
)
def test_a_card_that_is_wrong(folder: Path, change: dict[str, object], words: str) -> None:
    card = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps({**card, **change}))
    assert words in broken(folder)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe"], ids=repr)
def test_a_card_that_is_no_json(folder: Path, data: bytes) -> None:
    (folder / CARD).write_bytes(data)
    assert f"{CARD} is not JSON" in broken(folder)


def test_a_card_that_an_editor_saved_with_a_byte_order_mark(folder: Path) -> None:
    (folder / CARD).write_bytes(b"\xef\xbb\xbf" + (folder / CARD).read_bytes())
    assert Classifier.from_checkpoint(folder).class_names == NAMES


@pytest.mark.parametrize("text", ["[]", "null", '"squeezenet1_1"'])
def test_a_card_that_is_no_mapping(folder: Path, text: str) -> None:
    (folder / CARD).write_text(text)
    assert f"{CARD}: the card: Input should be a valid dictionary" in broken(folder)


def test_tied_weights_are_saved_as_copies(tmp_path: Path) -> None:
    network = torchvision.models.squeezenet1_1(num_classes=3)
    network.features[4].expand1x1.weight = network.features[3].expand1x1.weight
    save_checkpoint(network, Card(arch="squeezenet1_1", classes=NAMES), tmp_path)
    assert Classifier.from_checkpoint(tmp_path).weights_digest() == Classifier.from_module(network).weights_digest()


def test_a_state_of_more_than_tensors_is_not_saved(tmp_path: Path) -> None:
    class Extra(torch.nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"version": 1}

    with pytest.raises(ValueError, match="more than tensors: _extra_state"):
        save_checkpoint(Extra(2, 3), Card(arch="squeezenet1_1", classes=NAMES), tmp_path)

"""User's state dicts: read without running code, loaded or refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from hdm_core import Classifier, Preprocess
from hdm_core.sources.state_dict import fit_state, read_classes, read_state

ARCH = "squeezenet1_1"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return torchvision.models.get_model(ARCH, weights=None, num_classes=3).eval()


WAYS: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "as it is": lambda state: state,
    "state_dict": lambda state: {"state_dict": state, "epoch": 3, "best": torch.tensor(0.5)},
    "model": lambda state: {"model": state, "optimizer": {"state": {}}},
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state},
    "parallel": lambda state: {f"module.{key}": value for key, value in state.items()},
    "both": lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
}


@pytest.mark.parametrize("way", WAYS)
def test_files_of_training_scripts_are_read(network: nn.Module, tmp_path: Path, way: str) -> None:
    torch.save(WAYS[way](network.state_dict()), tmp_path / "mine.pth")
    classifier = Classifier.from_checkpoint(tmp_path / "mine.pth", ARCH, ["ant", "bee", "cat"])
    assert classifier.weights_digest() == Classifier.from_module(network).weights_digest()
    assert (classifier.name, classifier.class_names) == (f"{ARCH} mine.pth", ("ant", "bee", "cat"))
    assert classifier.preprocess == Preprocess()


def test_safetensors_are_read_and_a_number_of_classes_is_enough(network: nn.Module, tmp_path: Path) -> None:
    save_file(network.state_dict(), tmp_path / "mine.safetensors")
    classifier = Classifier.from_checkpoint(tmp_path / "mine.safetensors", ARCH, 3, Preprocess(72, 64))
    assert classifier.weights_digest() == Classifier.from_module(network).weights_digest()
    assert (classifier.class_names, classifier.preprocess) == (None, Preprocess(72, 64))


def test_arch_and_classes_belong_to_a_file_and_not_to_a_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.pth").write_bytes(b"")
    with pytest.raises(ValueError, match="belong together"):
        Classifier.from_checkpoint(tmp_path / "mine.pth", ARCH)
    with pytest.raises(ValueError, match="give its arch and classes"):
        Classifier.from_checkpoint(tmp_path / "mine.pth")
    with pytest.raises(ValueError, match="is a folder"):
        Classifier.from_checkpoint(tmp_path, ARCH, 3)


class Harmful:
    """Object whose unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.path, "harm")


def test_nothing_but_tensors_is_unpickled(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "args": Harmful(tmp_path / "harm")}, tmp_path / "mine.pth")
    with pytest.raises(ValueError, match="holds more than weights"):
        read_state(tmp_path / "mine.pth")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("data", [b"", b"no tensors", b"PK\x03\x04 cut off"], ids=repr)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_damaged(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="mine") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [[torch.zeros(1)], {}, {"epoch": 3}, torch.zeros(2)], ids=str)
def test_a_file_without_a_state_dict(tmp_path: Path, value: Any) -> None:
    torch.save(value, tmp_path / "mine.pth")
    with pytest.raises(ValueError, match="holds no state dict"):
        read_state(tmp_path / "mine.pth")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("0.bias"), "missing 0.bias"),
        (lambda state: state.clear(), "missing 0.weight, 0.bias, 1.weight and 1 more"),
        (lambda state: state.update(fc=torch.zeros(1)), "unexpected fc"),
        (lambda state: state.update({"1.bias": torch.zeros(7)}), "1.bias is (7,) and should be (3,)"),
        (lambda state: (state.pop("0.bias"), state.update(fc=torch.zeros(1))), "missing 0.bias; unexpected fc"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_weights_that_do_not_fit_are_named(change: Callable[[dict[str, Tensor]], object], words: str) -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
    before, state = {key: value.clone() for key, value in network.state_dict().items()}, dict(network.state_dict())
    change(state)
    with pytest.raises(ValueError) as caught:
        fit_state(network, state, "mine.pth", "toy")
    assert str(caught.value) == f"mine.pth does not hold the weights of toy: {words}"
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_classes_are_names_a_number_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("ant\n  bee \n\ncarrion crow\n")
    assert read_classes(tmp_path / "names.txt") == ("ant", "bee", "carrion crow")
    assert read_classes(str(tmp_path / "names.txt")) == ("ant", "bee", "carrion crow")
    assert read_classes(["ant", "bee"]) == ("ant", "bee")
    assert read_classes(3) == 3


def test_classes_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    for classes in (0, [], tmp_path / "empty.txt"):
        with pytest.raises(ValueError, match="names no class"):
            read_classes(classes)
    with pytest.raises(ValueError, match="is no text file"):
        read_classes(tmp_path / "bytes.txt")
    with pytest.raises(OSError, match=r"nowhere\.txt"):
        read_classes(tmp_path / "nowhere.txt")

"""User's state dicts: read without running code, loaded or refused in one line."""

from __future__ import annotations

import argparse
import collections
import functools
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from hdm_core import Classifier, Preprocess
from hdm_core.sources.checkpoint import CARD, Card, save_checkpoint
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
    with pytest.raises(ValueError, match=r"holds objects that cannot be skipped \(.*pathlib.PosixPath\)"):
        read_state(tmp_path / "mine.pth")
    assert not (tmp_path / "harm").exists()


class Harmless:
    """Object whose unpickling would write a file by a function of its module."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return write, (self.path,)


def write(path: Path) -> None:
    path.write_text("harm")


def test_a_function_beside_the_weights_is_not_called(tmp_path: Path) -> None:
    torch.save({"state_dict": {"weight": torch.ones(2)}, "args": Harmless(tmp_path / "harm")}, tmp_path / "mine.pth")
    assert list(read_state(tmp_path / "mine.pth")) == ["weight"]
    assert not (tmp_path / "harm").exists()


class Forbidden:
    """Object whose unpickling would run a command, by a module that torch refuses by name."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


class AttributeDict(dict[str, Any]):
    """Dict of a library's own class, with items as attributes, as Lightning's and omegaconf's are."""

    def __init__(self, **items: Any) -> None:
        super().__init__(items)
        self.__dict__ = self


class Created:
    """Object that must not be created while a file is read."""

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("it was created")


def test_a_checkpoint_of_lightning_is_read_by_its_state_dict_alone(network: nn.Module, tmp_path: Path) -> None:
    created = Created()
    created.rate = 0.1  # type: ignore[attr-defined]
    content = {  # the keys of lightning 2.6, and objects that save_hyperparameters and callbacks put there
        "epoch": 1,
        "global_step": 2,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {**{f"model.{key}": value for key, value in network.state_dict().items()}, "criterion.weight": torch.ones(3)},
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 1}}}},
        "callbacks": {"EarlyStopping{'monitor': 'loss'}": {"wait_count": 0, "best_score": torch.tensor(0.5)}, Created: {"class": Created}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 0.1, "params": [0]}]}],
        "lr_schedulers": [],
        "hparams_name": "args",
        "hyper_parameters": {
            "args": argparse.Namespace(rate=0.1, folder=Path("data")),
            "optimizer": functools.partial(torch.optim.SGD, lr=0.1),
            "activation": nn.ReLU(),
            "more": AttributeDict(depth=2),
            "counts": collections.defaultdict(int, {"cat": 2}),
            "own": created,
            "classes": {"ant", "bee"},
            "array": np.arange(3),
        },
    }
    torch.save(content, tmp_path / "last.ckpt")
    classifier = Classifier.from_checkpoint(tmp_path / "last.ckpt", ARCH, ["ant", "bee", "cat"])
    assert classifier.weights_digest() == Classifier.from_module(network).weights_digest()
    # torch's list of allowed classes is as before: the same file is refused by torch itself.
    with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
        torch.load(tmp_path / "last.ckpt", weights_only=True)


def test_two_networks_of_a_lightning_module_are_named_by_their_prefixes(network: nn.Module, tmp_path: Path) -> None:
    state = {f"{name}.{key}": value for name in ("student", "teacher") for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, "hyper_parameters": {}}, tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=r"prefix 'student\.' or 'teacher\.': save the state_dict\(\) of the network alone"):
        Classifier.from_checkpoint(tmp_path / "last.ckpt", ARCH, 3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (nn.Linear(2, 2), "holds a pickled object and no state dict (torch.nn.modules.linear.Linear)"),
        ({"model": nn.Linear(2, 2)}, "holds no state dict"),
        ({"state_dict": {"weight": Created()}}, "but weight: save"),
        ({"state_dict": {}, "hook": Forbidden()}, "holds objects that cannot be skipped (posix.system): save"),
        (argparse.Namespace(state_dict={"weight": torch.ones(2)}), "holds a pickled object and no state dict (argparse.Namespace)"),
    ],
    ids=["a network", "a network in a dict", "an object among the weights", "a command", "a namespace"],
)
def test_a_file_that_cannot_be_read_lists_its_objects(content: Any, words: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "mine.pt")
    with pytest.raises(ValueError) as caught:
        read_state(tmp_path / "mine.pt")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"no tensors", b"PK\x03\x04 cut off"], ids=repr)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_is_damaged(tmp_path: Path, suffix: str, data: bytes) -> None:
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="mine") as caught:
        read_state(path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # torch deprecates TorchScript
def test_a_torchscript_archive_is_named(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "mine.pt")
    with pytest.raises(ValueError, match="is a TorchScript archive: save model"):
        read_state(tmp_path / "mine.pt")


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


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(
    "data",
    [
        "\ufeffcat\r\ncaf\u00e9\r\n",
        "cat\rcaf\u00e9",
        "\ufeff\n cat \t\n\ncaf\u00e9\u00a0\n\n",
    ],
    ids=["Notepad", "old Mac", "spaces and blank lines"],
)
def test_a_file_of_any_editor_is_read(tmp_path: Path, data: str) -> None:
    (tmp_path / "names.txt").write_bytes(data.encode())
    assert read_classes(tmp_path / "names.txt") == ("cat", COMPOSED)


def test_only_line_ends_part_names(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("a\x0bb\u2028c\x85d\ne".encode())
    assert read_classes(tmp_path / "names.txt") == ("a\x0bb\u2028c\x85d", "e")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"])
def test_a_file_in_another_encoding_is_one_line(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "names.txt").write_bytes("cat\ncaf\u00e9\n".encode(encoding))
    with pytest.raises(ValueError, match=r"names\.txt is no text file in UTF-8: save it as UTF-8, one class name per line"):
        read_classes(tmp_path / "names.txt")


def test_names_in_json(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    for text in ('["ant", "bee"]', '\ufeff{"1": "bee", "0": "ant"}'):
        path.write_text(text)
        assert read_classes(path) == ("ant", "bee")
    for text in ('{"ant": 0, "bee": 1}', '{"1": "ant", "2": "bee"}', '{"0": ["n01", "ant"]}', "3", "[1, 2]"):
        path.write_text(text)
        with pytest.raises(ValueError, match="write a list of class names, or"):
            read_classes(path)
    path.write_text("ant\nbee")
    with pytest.raises(ValueError, match="is not JSON"):
        read_classes(path)


def test_numbers_and_names_of_numpy() -> None:
    assert read_classes(np.int64(3)) == read_classes(torch.tensor(3)) == 3
    assert read_classes(np.array(["ant", "bee"])) == ("ant", "bee")
    for classes in (True, 3.0, None, [1, 2], ["ant", None]):
        with pytest.raises(TypeError, match="classes"):
            read_classes(classes)


def test_one_name_in_two_spellings_is_one_line_and_two_cranes_are_none() -> None:
    with pytest.raises(ValueError, match="occurs twice, with its accents composed and decomposed"):
        read_classes([COMPOSED, "cat", DECOMPOSED])
    assert read_classes(["crane", "cat", "crane"]) == ("crane", "cat", "crane")
    assert read_classes(["Cat", "cat"]) == ("Cat", "cat")


def test_the_home_folder_is_found_in_every_path(network: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    torch.save(network.state_dict(), tmp_path / "mine.pth")
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    save_checkpoint(network, Card(arch=ARCH, classes=("ant", "bee", "cat")), "~/folder")
    assert (tmp_path / "folder" / CARD).is_file()
    for classifier in (Classifier.from_checkpoint("~/mine.pth", ARCH, "~/names.txt"), Classifier.from_checkpoint(Path("~/folder"))):
        assert classifier.class_names == ("ant", "bee", "cat")
    with pytest.raises(OSError, match="nobody-of-this-name"):
        read_state("~nobody-of-this-name/mine.pth")


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

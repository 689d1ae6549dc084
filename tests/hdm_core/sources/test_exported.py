"""Programs of torch.export: same logits and maps as the network, clear refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from hdm_core import Classifier, Preprocess, explain
from hdm_core.sources.exported import Exported, load_exported
from hdm_core.testing.families import FAMILIES, transformer
from tests.support.tiny_networks import pictures, smooth

ANY = ({0: torch.export.Dim.DYNAMIC},)


def save(network: nn.Module, path: Path, images: Tensor, shapes: Any = ANY) -> Path:
    torch.export.save(torch.export.export(network, (images,), dynamic_shapes=shapes), path)
    return path


@pytest.mark.parametrize("family", ["resnet", "convnext", "transformer"])
def test_a_program_is_explained_like_its_network(family: str, tmp_path: Path) -> None:
    network, images = {**FAMILIES, "transformer": transformer}[family](), pictures(2, 32)
    classifier = Classifier.from_exported(save(network, tmp_path / "mine.pt2", images), class_names=tuple("abcde"))
    assert (classifier.name, classifier.class_names, classifier.preprocess) == ("mine.pt2", tuple("abcde"), Preprocess(37, 32))
    for method in ("gradient", "deeplift"):
        one, other = (explain(each, images, method) for each in (classifier, Classifier.from_module(network)))
        assert one.status == other.status
        torch.testing.assert_close(one.maps, other.maps, rtol=0, atol=1e-4)


def test_a_program_without_a_size_of_its_own_takes_the_usual(tmp_path: Path) -> None:
    free = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
    classifier = Classifier.from_exported(save(smooth(), tmp_path / "mine.pt2", pictures(2, 20, 24), free))
    assert classifier.preprocess == Preprocess()
    assert explain(classifier, pictures(3, 16, 18), "gradient").maps.shape == (3, 16, 18)


def test_a_program_for_images_that_are_no_squares(tmp_path: Path) -> None:
    """Refused before: inputs had to be square."""
    images, network = pictures(2, 16, 20), smooth()
    classifier = Classifier.from_exported(save(network, tmp_path / "mine.pt2", images))
    assert classifier.preprocess == Preprocess((16, 20), None)
    assert classifier.prepare([Image.new("RGB", (50, 70))]).shape == (1, 3, 16, 20)
    one, other = (explain(each, images, "gradient") for each in (classifier, Classifier.from_module(network)))
    torch.testing.assert_close(one.maps, other.maps, rtol=0, atol=1e-4)


def test_modes_and_flags_are_restored(tmp_path: Path) -> None:
    classifier = Classifier.from_exported(save(smooth(), tmp_path / "mine.pt2", pictures()))
    flags = [parameter.requires_grad for parameter in classifier.module.parameters()]
    with classifier.frozen() as network:
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert not network.training
    assert [parameter.requires_grad for parameter in classifier.module.parameters()] == flags


class Scaled(nn.Module):
    """Network with the same weights and another graph, or another constant in it."""

    def __init__(self, network: nn.Module, scale: float, constant: float = 0.0) -> None:
        super().__init__()
        self.network, self.scale, self.constant = network, scale, torch.tensor([constant])

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * self.network(images) + self.constant.to(images.device)


def test_the_digest_covers_weights_graph_and_constants(tmp_path: Path) -> None:
    def fingerprint(network: nn.Module, name: str) -> str:
        return Classifier.from_exported(save(network, tmp_path / name, pictures())).weights_digest()

    network = smooth()
    one = fingerprint(Scaled(network, 2.0), "one.pt2")
    assert fingerprint(Scaled(network, 2.0), "again.pt2") == one
    assert len({one, *(fingerprint(Scaled(network, *by), "other.pt2") for by in ((3.0,), (2.0, 1.0)))}) == 3
    with torch.no_grad():
        next(network.parameters()).add_(1)
    assert fingerprint(Scaled(network, 2.0), "other.pt2") != one


def test_a_program_moves_with_its_constants(tmp_path: Path) -> None:
    classifier = Classifier.from_exported(save(Scaled(smooth(), 2.0, 1.0), tmp_path / "mine.pt2", pictures()))
    before, images = classifier.weights_digest(), pictures()
    logits = classifier.module(images)
    torch.testing.assert_close(classifier.to("cpu").module(images), logits)
    assert classifier.weights_digest() == before
    assert classifier.to("meta").module(images.to("meta")).device.type == "meta"


class Two(nn.Module):
    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        return images.mean((2, 3)) * weights


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: torch.export.export(smooth(), (pictures(1),)), "takes batches of 1 only"),
        (lambda: torch.export.export(Two(), (pictures(1), torch.ones(3))), "it takes 2 inputs"),
        (lambda: torch.export.export(nn.Linear(3, 2), (torch.ones(2, 3),)), "nothing else"),
    ],
    ids=["batch", "inputs", "rank"],
)
def test_a_program_that_cannot_be_explained(make: Callable[[], torch.export.ExportedProgram], words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        Exported(make())
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("data", [b"", b"no program", b"PK\x03\x04 cut off"], ids=repr)
def test_a_file_that_is_no_program(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "mine.pt2").write_bytes(data)
    with pytest.raises(ValueError, match=r"mine\.pt2 is no program of torch\.export") as caught:
        load_exported(tmp_path / "mine.pt2")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"mine\.pt2"):
        load_exported(tmp_path / "mine.pt2")

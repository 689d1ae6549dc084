"""Contrast: the map of one class rather than another is that of the difference of their logits."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hdm_core import METHODS, Classifier, evaluate, explain
from hdm_core.testing.networks import attention_network
from tests.hdm_core.test_problem_types import TINY
from tests.support.tiny_networks import Linear, Pair, pictures, smooth


class Difference(nn.Module):
    """The difference of two logits, written out, beside its negative."""

    def __init__(self, network: nn.Module, a: int, b: int) -> None:
        super().__init__()
        self.network, self.a, self.b = network, a, b

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        difference = logits[:, self.a] - logits[:, self.b]
        return torch.stack([difference, -difference], 1)


@pytest.mark.parametrize("method", METHODS)
def test_a_contrast_has_the_map_of_the_difference(method: str) -> None:
    images = pictures(2)
    changes = {**TINY.get(method, {}), **({"relative": True} if method in ("hdm", "dm") else {})}
    network = attention_network(3) if METHODS[method].needs_attention else smooth(3)
    found = explain(Classifier.from_module(network), images, method, target=2, contrast=0, **changes)
    written = Classifier.from_module(Difference(network, 2, 0), problem_type="multi_label_classification")
    expected = explain(written, images, method, target=0, **changes)
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-5)
    assert found.status == expected.status
    assert found.contrasts is not None
    assert (found.targets.tolist(), found.contrasts.tolist()) == ([2, 2], [0, 0])
    torch.testing.assert_close(found.logits, network(images))


def test_the_runner_up_is_the_likeliest_other_class_of_each_image() -> None:
    images = pictures(4)
    order = smooth(3)(images).argsort(1, descending=True)
    classifier = Classifier.from_module(smooth(3))
    found = explain(classifier, images, "gradient", contrast="runner_up")
    assert found.contrasts is not None
    assert torch.equal(found.targets, order[:, 0])
    assert torch.equal(found.contrasts, order[:, 1])
    last = explain(classifier, images, "gradient", target=order[:, 2], contrast="runner_up")
    assert last.contrasts is not None
    assert torch.equal(last.contrasts, order[:, 0])
    for place in range(4):  # each image has its own pair
        pair = {"target": int(order[place, 0]), "contrast": int(order[place, 1])}
        alone = explain(classifier, images[place : place + 1], "gradient", **pair)
        torch.testing.assert_close(found.maps[place], alone.maps[0], rtol=0, atol=1e-5)


def test_names_files_and_networks_with_several_outputs(tmp_path: Path) -> None:
    classifier = Classifier.from_module(smooth(3), class_names=["ant", "bee", "cat"])
    found = explain(classifier, pictures(2), "grad_cam", target="cat", contrast=["ant", "bee"])
    assert found.contrasts is not None
    assert found.contrasts.tolist() == [0, 1]
    (path,) = found.save(tmp_path / "maps.npz")
    assert np.load(path)["contrasts"].tolist() == [0, 1]
    several = explain(Classifier.from_module(Pair(smooth(3)), output=0), pictures(2), "grad_cam", target=2, contrast=[0, 1])
    torch.testing.assert_close(several.maps, found.maps)


def test_metrics_use_the_probability_of_one_class_rather_than_the_other() -> None:
    images = pictures(2, 4, 5)
    weights = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0)) / 3
    maps = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(1))
    two = Classifier.from_module(Linear(weights))  # a softmax over two logits is the sigmoid of their difference

    class Three(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = Linear(weights)(images)
            return torch.cat([logits, logits[:, 1:] * 7 + 5], 1)

    found = evaluate(Classifier.from_module(Three()), images, maps, [1, 0], contrast=[0, 1])
    expected = evaluate(two, images, maps, [1, 0])
    for name, value in expected.values.items():
        torch.testing.assert_close(found.values[name], value, equal_nan=True)
    torch.testing.assert_close(found.insertion, expected.insertion)


def test_a_contrast_by_hand() -> None:
    image = torch.tensor([math.log(3), 0.0]).reshape(1, 1, 1, 2)
    found = evaluate(Classifier.from_module(Linear(torch.ones(1, 1, 2))), image, torch.tensor([[[1.0, 0.5]]]), 0, contrast=[1])
    assert found.deletion[0, [0, -1]].tolist() == pytest.approx([1 / 4, 1 / 2])  # p_0 / (p_0 + p_1) = 1 / (1 + 3)


@pytest.mark.parametrize(
    ("classes", "target", "contrast", "words"),
    [
        (3, 1, 1, "class 1 cannot be compared with itself: give another contrast, such as runner_up"),
        (3, 1, 3, "target 3 is no class of this network: it has 3"),
        (3, 1, "ant", "this classifier has no class names"),
        (3, 1, [0, 2, 1], "2 images need 2 targets"),
    ],
)
def test_a_contrast_that_cannot_be(classes: int, target: int, contrast: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        explain(smooth(classes), pictures(2), "gradient", target=target, contrast=contrast)  # type: ignore[arg-type]


def test_one_output_has_no_runner_up() -> None:
    with pytest.raises(ValueError, match="has one output, and no runner-up"):
        explain(Classifier.from_module(smooth(1), problem_type="regression"), pictures(1), "gradient", contrast="runner_up")

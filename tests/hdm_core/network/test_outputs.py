"""Logits among other outputs: found where there is one reading, else named."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from hdm_core import Classifier, check, explain
from hdm_core.network.logits import class_logits
from hdm_core.network.outputs import SelectedOutput, find_logits, select_output
from hdm_core.sources.exported import Exported
from tests.support.tiny_networks import Pair, assert_unchanged, mixed_state, pictures, smooth, snapshot

LOGITS = torch.arange(6.0).reshape(2, 3)
FEATURES = torch.ones(2, 5)
MAPS = torch.zeros(2, 4, 7, 7)


@dataclass
class Answer:
    """Output of a network, as a dataclass."""

    scores: Tensor
    maps: Tensor


ONE_READING: dict[str, tuple[Any, str]] = {
    "tuple": ((LOGITS,), "0"),
    "tuple with maps": ((MAPS, LOGITS), "1"),
    "list": ([LOGITS, None], "0"),
    "loss and logits": ((torch.tensor(0.5), LOGITS), "1"),
    "dict of one": ({"out": LOGITS}, "out"),
    "dict with features": ({"features": FEATURES, "logits": LOGITS}, "logits"),
    "ModelOutput": (OrderedDict(loss=torch.tensor(1.0), logits=LOGITS, hidden_states=(MAPS, MAPS)), "logits"),
    "object": (SimpleNamespace(features=FEATURES, logits=LOGITS), "logits"),
    "dataclass": (Answer(LOGITS, MAPS), "scores"),
    "nested": ({"heads": [{"a": LOGITS}, MAPS]}, "heads.0.a"),
    "the same tensor twice": ((LOGITS, LOGITS), "0"),
    "auxiliary heads": (torchvision.models.InceptionOutputs(LOGITS, LOGITS + 1), "logits"),
    "GoogLeNet's": (torchvision.models.GoogLeNetOutputs(LOGITS, LOGITS + 1, LOGITS + 2), "logits"),
    "predictions beside": ({"scores": LOGITS, "best": torch.tensor([[0, 1], [1, 2]])}, "scores"),
}


@pytest.mark.parametrize("name", ONE_READING)
def test_the_only_reading_is_found(name: str) -> None:
    output, path = ONE_READING[name]
    found, logits = find_logits(output, 2)
    assert found == path
    assert logits is LOGITS
    assert class_logits(lambda _: output, MAPS) is LOGITS
    assert select_output(output, path) is LOGITS


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ((LOGITS, FEATURES), "a tuple with 2 such tensors, 0 (2, 3), 1 (2, 5): name the logits with output="),
        ({"species": LOGITS, "age": FEATURES}, "species (2, 3), age (2, 5)"),
        ([LOGITS] + [FEATURES + number for number in range(8)], "9 such tensors"),
        ((MAPS, torch.zeros(3, 4)), "for 2 images; it returned a tuple of 0 (2, 4, 7, 7), 1 (3, 4)"),
        (torch.zeros(2, 3).long().unbind(), "returned a tuple of 0 (3,), 1 (3,)"),
        ({}, "it returned a dict"),
        (None, "it returned a NoneType"),
        ("logits", "it returned a str"),
        (SimpleNamespace(logits=MAPS), "it returned a SimpleNamespace of logits (2, 4, 7, 7)"),
    ],
)
def test_any_other_output_is_one_line_that_names_its_tensors(output: object, words: str) -> None:
    with pytest.raises(TypeError, match=r"must return logits \(B, classes\)") as caught:
        class_logits(lambda _: output, MAPS)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("output", "key", "expected"),
    [
        ((LOGITS, FEATURES), 1, FEATURES),
        ((LOGITS, FEATURES), "-1", FEATURES),
        ({"species": LOGITS, "age": FEATURES}, "age", FEATURES),
        ({0: LOGITS, 1: FEATURES}, 1, FEATURES),
        ({"a.b": LOGITS, "a": {"b": FEATURES}}, "a.b", LOGITS),
        ({"a": {"b": [FEATURES, LOGITS]}}, "a.b.1", LOGITS),
        (SimpleNamespace(heads=(LOGITS, FEATURES)), "heads.1", FEATURES),
        (torchvision.models.InceptionOutputs(LOGITS, FEATURES), "aux_logits", FEATURES),
    ],
)
def test_an_output_is_selected_by_key_attribute_index_or_path(output: object, key: int | str, expected: Tensor) -> None:
    assert select_output(output, key) is expected


@pytest.mark.parametrize("key", ["ages", 2, "species.0", "age.logits"])
def test_an_output_that_there_is_not_is_one_line_that_lists_the_others(key: int | str) -> None:
    with pytest.raises(TypeError) as caught:
        select_output({"species": LOGITS, "age": FEATURES}, key)
    assert str(caught.value) == f"the network returned a dict without an output {key!r}; it has species (2, 3), age (2, 5)"


def test_a_tensor_has_no_outputs() -> None:
    with pytest.raises(TypeError, match=r"returned a tensor of shape \(1, 3\), which has no output 'logits': leave output out"):
        explain(Classifier.from_module(smooth(), output="logits"), pictures(2), "gradient")


# Through a classifier


def test_the_selected_output_is_explained_and_layers_keep_their_names() -> None:
    network = Pair(smooth())
    for key in (1, "1"):
        classifier = Classifier.from_module(network, output=key)
        found = explain(classifier, pictures(2), "grad_cam", layer="network.0")
        expected = explain(network.network, pictures(2), "grad_cam", layer="0")
        torch.testing.assert_close(found.logits, 2 * expected.logits)
        torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-5)
        assert classifier.network is network
        assert classifier.name == "Pair"
        assert classifier.weights_digest() == Classifier.from_module(network).weights_digest()


def test_the_network_is_left_as_it_was() -> None:
    network = Pair(mixed_state())
    before = snapshot(network)
    explain(Classifier.from_module(network, output=0), pictures(2), "hdm", sizes=[4], ratios=[2], steps=1, stages=1, mix_steps=1)
    assert_unchanged(network, before)


def test_the_check_says_which_output_was_taken() -> None:
    class Dictionary(nn.Module):
        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"maps": images, "scores": images.flatten(1)[:, :5] * 1.5}

    findings = check(Dictionary(), pictures(2), ["gradient"]).findings
    assert ("output", "handled", "the network returns a dict; its output 'scores' is taken as the logits") in [
        (each.subject, each.verdict, each.text) for each in findings
    ]
    refused = check(Pair(smooth()), pictures(2), ["gradient"]).refused
    assert "2 such tensors" in refused
    assert "size" not in refused, "the images are not at fault"


def test_a_copy_of_the_selecting_module_is_one_too() -> None:
    class Copied(Pair):
        def __deepcopy__(self, memo: dict[int, Any]) -> Copied:
            return self

    copied = copy.deepcopy(SelectedOutput(Copied(smooth()), 1))
    assert type(copied) is SelectedOutput
    assert copied(pictures(2)).shape == (2, 3)


# torchvision, TorchScript, exported programs


@pytest.mark.filterwarnings("ignore")  # torch deprecates TorchScript; a scripted GoogLeNet warns of its output
@pytest.mark.parametrize("arch", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.slow)])
def test_torchvisions_scripted_networks_with_auxiliary_heads(arch: str) -> None:
    network = torchvision.models.get_model(arch, weights=None, num_classes=4, init_weights=False, aux_logits=True).eval()
    images = 0.1 * pictures(2, 96)
    expected = network(images)
    output = torch.jit.script(network)(images)
    assert not isinstance(output, Tensor)
    torch.testing.assert_close(find_logits(output, 2)[1], expected, rtol=1e-4, atol=1e-4)
    found = explain(torch.jit.script(network), images, "gradient", targets=1)
    torch.testing.assert_close(found.maps, explain(network, images, "gradient", targets=1).maps, rtol=0, atol=1e-2)


FORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "traced": lambda network: torch.jit.trace(network, pictures(2)),
    "exported": lambda network: Exported(torch.export.export(network, (pictures(2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))),
    "compiled": lambda network: torch.compile(network, backend="eager"),
    "parallel": nn.DataParallel,
}


@pytest.mark.filterwarnings("ignore")  # torch deprecates TorchScript
@pytest.mark.parametrize("form", FORMS)
def test_an_output_of_any_form_of_a_network_is_selected(form: str) -> None:
    network = Pair(smooth()).eval()
    classifier = Classifier.from_module(FORMS[form](network), output=1)
    found = explain(classifier.to("cpu"), pictures(2), "gradient", targets=0)
    expected = explain(Classifier.from_module(network, output=1), pictures(2), "gradient", targets=0)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-5)

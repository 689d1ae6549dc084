"""What somebody tries who knows captum: a plain network, `target=`, and names that are nearly right."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

import hdm_core
from hdm_core import Classifier, evaluate, explain
from tests.support.tiny_networks import pictures, smooth

NAMES = ("cat", "dog", "horse")


def test_the_version_is_the_packages() -> None:
    assert hdm_core.__version__ == version("hdm-pipeline")


def test_every_exported_name_exists() -> None:
    assert [name for name in hdm_core.__all__ if not hasattr(hdm_core, name)] == []
    assert sorted(hdm_core.__all__) == sorted(set(hdm_core.__all__))


# A plain network


def test_a_plain_network_is_explained_and_measured() -> None:
    network, images = smooth(), pictures(2)
    classifier = Classifier.from_module(network)
    explanation = explain(network, images, "gradient")
    assert torch.equal(explanation.maps, explain(classifier, images, "gradient").maps)
    measured, expected = (evaluate(each, images, explanation.maps, explanation.targets) for each in (network, classifier))
    assert torch.equal(measured.deletion, expected.deletion)


def test_what_is_no_network_is_refused() -> None:
    for call in (lambda: explain("resnet50", pictures(1)), lambda: evaluate("resnet50", pictures(1), torch.zeros(1, 16, 16), 0)):
        with pytest.raises(TypeError, match=r"^the classifier must be a hdm_core.Classifier or a torch.nn.Module, not a str$"):
            call()


# target=


@pytest.mark.parametrize("target", [1, [1, 1], (1, 1), torch.tensor([1, 1]), "dog", ["dog", "dog"], [1, "dog"]], ids=repr)
def test_target_is_another_name_of_targets(target: Any) -> None:
    classifier, images = Classifier.from_module(smooth(), class_names=NAMES), pictures(2)
    expected = explain(classifier, images, "gradient", targets=[1, 1])
    for argument in ("target", "targets"):
        found = explain(classifier, images, "gradient", **{argument: target})
        assert torch.equal(found.targets, expected.targets)
        assert torch.equal(found.maps, expected.maps)
        measured = evaluate(classifier, images, found.maps, **{argument: target})
        assert torch.equal(measured.deletion, evaluate(classifier, images, found.maps, expected.targets).deletion)


def test_both_at_once_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^target= and targets= are two names of one argument: give one of them$"):
        explain(smooth(), pictures(1), target=1, targets=1)


def test_maps_are_measured_for_a_class_that_is_given() -> None:
    with pytest.raises(ValueError, match=r"^evaluate needs targets: "):
        evaluate(smooth(), pictures(1), torch.zeros(1, 16, 16))


@pytest.mark.parametrize(
    ("names", "target", "message"),
    [
        (NAMES, "hrose", "the classifier has no class 'hrose'; did you mean horse?"),
        (NAMES, "zebra", "the classifier has no class 'zebra'"),
        (("cat", "dog", "dog"), "dog", "the classifier has 2 classes 'dog'; give the number of the class"),
        (None, "dog", "target 'dog': this classifier has no class names; give the number of the class"),
    ],
)
def test_a_wrong_name_of_a_class_is_one_line(names: Any, target: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        explain(Classifier.from_module(smooth(), class_names=names), pictures(1), target=target)
    assert str(caught.value) == message


# Typing mistakes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stpes": 3}, "hdm has no setting 'stpes'; did you mean steps?"),
        ({"method": "gradient", "steps": 3}, "gradient has no setting 'steps': it has none"),
        ({"method": "integrated_gradients", "flavour": 3}, "integrated_gradients has no setting 'flavour': it has "),
        ({"keep": 0.3}, "hdm has no setting 'keep'; it is now called keep_fraction"),
        ({"steps": 0}, "hdm.steps: input should be greater than or equal to 1, not 0"),
        ({"baseline": "white"}, "hdm.baseline: input should be 'mean', 'black', 'blur', 'noise' or 'auto', not 'white'"),
        ({"sizes": (2, 0)}, "hdm.sizes.1: input should be greater than or equal to 1, not 0"),
        (
            {"steps": 0, "stpes": 1},
            "hdm.steps: input should be greater than or equal to 1, not 0; hdm has no setting 'stpes'; did you",
        ),
        ({"method": "gradcam"}, "unknown method 'gradcam'; did you mean grad_cam? All are hdm, dm, gradient"),
        ({"method": "lime"}, "unknown method 'lime': choose from hdm, dm, gradient"),
        ({"method": 3}, "unknown method 3: choose from hdm, dm, gradient"),
        ({"preset": "best"}, "unknown preset 'best' of hdm: choose from paper-cub, paper-pm, fast"),
    ],
    ids=str,
)
def test_a_mistake_is_one_line_with_the_nearest_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        explain(smooth(), pictures(1), **arguments)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, ValidationError)


def test_pydantics_error_is_the_cause() -> None:
    with pytest.raises(ValueError, match="stpes") as caught:
        explain(nn.Identity(), pictures(1), stpes=3)
    assert isinstance(caught.value.__cause__, ValidationError)

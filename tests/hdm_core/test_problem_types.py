"""Problem types: probabilities, both answers of a yes/no network, metrics by hand, contradictions."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from hdm_core import METHODS, Classifier, check, evaluate, explain
from hdm_core.masking.baselines import baseline_image
from hdm_core.methods.rise import RandomMasks, RiseSettings
from hdm_core.network.axes import locate
from hdm_core.network.tail import extract_tail
from hdm_core.problem_type import PROBLEM_TYPES, ProblemType, probabilities
from hdm_core.testing.networks import attention_network
from tests.support.tiny_networks import pictures, smooth

YES_NO: ProblemType = "multi_label_classification"
TINY = {
    "hdm": {"sizes": [4], "ratios": [2], "steps": 3, "stages": 2, "mix_steps": 2, "eta": 0.1},
    "dm": {"sizes": [4], "steps": 3, "eta": 0.1},
    "mask": {"steps": 3, "circles": 3},
    "rise": {"masks": 20},
}


class Both(nn.Module):
    """The logits of no and yes, written out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        z = self.network(images)
        return torch.cat([-z, z], 1)


# Probabilities


def test_probabilities_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [math.log(4.0), -math.log(4.0)]])
    torch.testing.assert_close(probabilities(logits, "single_label_classification"), torch.tensor([[1 / 4, 3 / 4], [16 / 17, 1 / 17]]))
    torch.testing.assert_close(probabilities(logits, "multi_label_classification"), torch.tensor([[1 / 2, 3 / 4], [4 / 5, 1 / 5]]))
    assert torch.equal(probabilities(logits, "regression"), logits)


def test_an_unknown_problem_type() -> None:
    with pytest.raises(ValueError, match=r"unknown problem_type 'multilabel': choose from single_label_classification, "):
        Classifier.from_module(smooth(), problem_type="multilabel")  # type: ignore[arg-type]


# Both answers of a yes/no network


@pytest.mark.parametrize("method", METHODS)
def test_no_and_yes_have_the_maps_of_the_logits_written_out(method: str) -> None:
    network, images = attention_network(1) if METHODS[method].needs_attention else smooth(1), pictures(2)
    written = Classifier.from_module(Both(copy.deepcopy(network)), problem_type=YES_NO)
    classifier = Classifier.from_module(network, problem_type=YES_NO)
    for target in (0, 1):
        found, expected = (explain(each, images, method, target=target, **TINY.get(method, {})) for each in (classifier, written))
        torch.testing.assert_close(found.maps, expected.maps, rtol=0, atol=1e-6)
        assert found.status == expected.status
    z = network(images)
    torch.testing.assert_close(found.logits, torch.cat([-z, z], 1))
    torch.testing.assert_close(classifier.probabilities(found.logits).sum(1), torch.ones(2))


def test_the_predicted_answer_has_a_probability_of_at_least_one_half() -> None:
    network, images = smooth(1), pictures(6)
    middle = network(images).median()
    found = explain(Classifier.from_module(nn.Sequential(network, Shift(middle)), problem_type=YES_NO), images, "gradient")
    z = network(images)[:, 0] - middle
    assert found.targets.tolist() == (z > 0).long().tolist()
    assert set(found.targets.tolist()) == {0, 1}


class Shift(nn.Module):
    """Subtract a number."""

    def __init__(self, number: Tensor) -> None:
        super().__init__()
        self.number = nn.Parameter(number.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return x - self.number


@pytest.mark.parametrize("output", [None, "yes"])
def test_a_single_logit_among_other_outputs(output: str | None) -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = smooth(1)

        def forward(self, images: Tensor) -> dict[str, Tensor]:
            return {"maps": images, "yes": self.network(images)}

    found = explain(Classifier.from_module(Several(), output=output, problem_type=YES_NO), pictures(2), "grad_cam", target=0)
    assert torch.equal(found.logits[:, :1], -smooth(1)(pictures(2)))
    assert torch.equal(found.maps, explain(Classifier.from_module(smooth(1), problem_type=YES_NO), pictures(2), "grad_cam", target=0).maps)


def test_a_network_of_several_labels_answers_as_it_is() -> None:
    images = pictures(2)
    classifier = Classifier.from_module(smooth(3), problem_type=YES_NO)
    assert torch.equal(classifier.module(images), smooth(3)(images))
    assert explain(classifier, images, "gradient").targets.tolist() == smooth(3)(images).argmax(1).tolist()


def test_layers_attributes_and_digest_are_the_networks_own() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)).eval()
    network.transform_input = True  # type: ignore[assignment]
    classifier, images = Classifier.from_module(nn.DataParallel(network), problem_type=YES_NO), pictures(2)
    assert classifier.network is network
    assert classifier.module.get_submodule("0") is network[0]
    assert classifier.module.transform_input is True
    assert classifier.weights_digest() == Classifier.from_module(network).weights_digest()
    assert explain(classifier, images, "grad_cam", layer="0").status == ["ok", "ok"]
    texts = [finding.text for finding in check(classifier, images, ["grad_cam"]).findings]
    assert any(text.startswith("1 has 4 maps of") for text in texts), "without the wrapper's name"
    tail = extract_tail(classifier.module, locate(classifier.module, network[0], images))
    assert tail is not None
    assert not hasattr(classifier.module, "no_such_attribute")
    assert copy.deepcopy(classifier.module).get_submodule("4") is not network[4]


def test_ablation_has_its_closed_form_after_an_affine_tail() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 1)).eval()
    classifier = Classifier.from_module(network, problem_type=YES_NO)
    tail = extract_tail(classifier.module, locate(classifier.module, network[0], pictures(2)))
    assert tail is not None
    assert tail.is_affine


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["mass"], ("not mass", "mass")), (["normal", "pneumonia"], ("normal", "pneumonia")), (None, None)],
)
def test_names_of_both_answers(names: list[str] | None, expected: tuple[str, ...] | None) -> None:
    classifier = Classifier.from_module(smooth(1), class_names=names, problem_type=YES_NO)
    assert classifier.class_names == expected
    if expected:
        assert explain(classifier, pictures(1), "gradient", target=expected[0]).targets.tolist() == [0]


def test_another_reading_keeps_the_class_and_the_network() -> None:
    class Own(Classifier):
        """A classifier with its own preparation, as a factory may return it."""

    before = Own.from_module(smooth(1), class_names=["mass"])
    after = before.interpreted(None, None, YES_NO)
    assert type(after) is Own
    assert after.network is before.network
    assert (after.class_names, before.class_names) == (("not mass", "mass"), ("mass",))
    assert after.module(pictures(2)).shape == (2, 2)
    assert before.module(pictures(2)).shape == (2, 1)
    assert after.interpreted(["no", "yes"], None).class_names == ("no", "yes")
    assert after.interpreted(None, None, "regression").module is before.network


# Methods that use the probability


def test_rise_weights_its_masks_by_the_probability() -> None:
    images, settings = pictures(1), RiseSettings(masks=12)
    masks = RandomMasks(settings, *images.shape[-2:], images)[:12]
    for problem_type in PROBLEM_TYPES:
        classifier = Classifier.from_module(smooth(3), problem_type=problem_type)  # type: ignore[arg-type]
        baseline = baseline_image(settings.baseline, classifier, images)
        found = explain(classifier, images, "rise", target=1, masks=12).maps[0]
        scores = [probabilities(smooth(3)(baseline + mask * (images - baseline)), problem_type)[0, 1] for mask in masks]  # type: ignore[arg-type]
        total = torch.stack([score * mask[0] for score, mask in zip(scores, masks, strict=True)]).sum(0)
        torch.testing.assert_close(found, (total - total.min()) / (total.max() - total.min()), rtol=0, atol=1e-4)


# Metrics by hand: ten pixels of one channel, the logit z or the output is w times their sum


class Sum(nn.Module):
    """Network whose single output is a weight times the sum of the pixels, plus a number."""

    def __init__(self, weight: float = 1.0, number: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))
        self.number = number

    def forward(self, images: Tensor) -> Tensor:
        return self.weight * images.sum((1, 2, 3))[:, None] + self.number


LN3 = math.log(3)
IMAGE = torch.tensor([LN3, 0.0, LN3, 0, 0, 0, 0, 0, 0, -LN3]).reshape(1, 1, 2, 5)
SALIENCY = torch.arange(10.0, 0, -1).reshape(1, 2, 5) / 10


def test_drop_and_increase_of_a_yes_no_network_by_hand() -> None:
    classifier = Classifier.from_module(Sum(), problem_type=YES_NO)
    yes = evaluate(classifier, IMAGE, SALIENCY, 1)
    # z = ln 3: Y = 3 / 4; with 20 % shown z = ln 3, with 30 % z = ln 9: O = 9 / 10.
    assert float(yes.values["average_drop_80"]) == pytest.approx(0, abs=1e-6)
    assert float(yes.values["increase_70"]) == 1
    no = evaluate(classifier, IMAGE, SALIENCY, 0)
    # Y = 1 / 4, O = 1 / 10 with 30 %: a drop of 3 / 5.
    assert float(no.values["average_drop_70"]) == pytest.approx(0.6)
    assert float(no.values["increase_70"]) == 0
    # The baseline has z = 0: both curves lie between 3 / 4 and 1 / 2.
    assert yes.deletion[0, [0, -1]].tolist() == pytest.approx([0.75, 0.5])
    assert no.insertion[0, [0, -1]].tolist() == pytest.approx([0.5, 0.25])


def test_metrics_of_several_labels_do_not_depend_on_the_others() -> None:
    class Labels(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            z = images.sum((1, 2, 3))
            return torch.stack([z, torch.full_like(z, 7.0), -3 * z], 1)

    found = evaluate(Classifier.from_module(Labels(), problem_type=YES_NO), IMAGE, SALIENCY, 0)
    alone = evaluate(Classifier.from_module(Sum(), problem_type=YES_NO), IMAGE, SALIENCY, 1)
    for name, value in alone.values.items():
        torch.testing.assert_close(found.values[name], value, equal_nan=True)
    torch.testing.assert_close(found.deletion, alone.deletion)


@pytest.mark.parametrize(("weight", "number"), [(1.0, 0.0), (-40.0, 0.0), (0.5, 1000.0)])
def test_metrics_of_a_regression_are_relative_changes_by_hand(weight: float, number: float) -> None:
    """Neither unit nor sign nor origin of the output counts: f(X) - f(baseline) is w ln 3."""
    found = evaluate(Classifier.from_module(Sum(weight, number), problem_type="regression"), IMAGE, SALIENCY, 0)
    # 20 % hold ln 3: all of the change; 30 % hold ln 9: twice the change.
    near = pytest.approx
    assert float(found.values["average_drop_80"]) == near(0, abs=1e-3)
    assert float(found.values["average_drop_70"]) == 0
    assert float(found.values["increase_70"]) == 1
    # Deletion, pixel by pixel (a step is ten of the 101 points): 1, then without the first ln 3: 0, 0, without the next: -1, ..., 0.
    assert found.deletion[0, ::10].tolist() == near([1, 0, 0, -1, -1, -1, -1, -1, -1, -1, 0], abs=1e-3)
    assert found.insertion[0, ::10].tolist() == near([0, 1, 1, 2, 2, 2, 2, 2, 2, 2, 1], abs=1e-3)


def test_a_regression_that_the_baseline_does_not_change_has_no_metrics() -> None:
    image = IMAGE - IMAGE.mean()  # its sum is 0, as that of the baseline
    found = evaluate(Classifier.from_module(Sum(), problem_type="regression"), torch.zeros_like(image), SALIENCY, 0)
    assert all(value.isnan().all() for value in found.values.values())


# Targets


def test_a_regression_with_several_outputs_predicts_none() -> None:
    classifier = Classifier.from_module(smooth(3), problem_type="regression")
    with pytest.raises(ValueError, match="a regression predicts no class: name one of its 3 outputs by target="):
        explain(classifier, pictures(1), "gradient")
    assert explain(classifier, pictures(1), "gradient", target=2).targets.tolist() == [2]
    assert explain(Classifier.from_module(smooth(1), problem_type="regression"), pictures(1), "gradient").targets.tolist() == [0]


# Contradictions


class Apply(nn.Module):
    """A network with a function behind it."""

    def __init__(self, classes: int, function: object) -> None:
        super().__init__()
        self.network, self.function = smooth(classes), function

    def forward(self, images: Tensor) -> Tensor:
        return self.function(self.network(images))  # type: ignore[operator,no-any-return]


@pytest.mark.parametrize(
    ("network", "problem_type", "words"),
    [
        (smooth(1), "single_label_classification", "set problem_type to multi_label_classification if it is the logit of yes"),
        (Apply(3, torch.sigmoid), "single_label_classification", "and set problem_type to multi_label_classification"),
        (Apply(3, torch.sigmoid), "multi_label_classification", "the network ends in a sigmoid, and another would be taken"),
        (Apply(1, torch.sigmoid), "multi_label_classification", "the network ends in a sigmoid, and another would be taken"),
        (Apply(3, lambda z: z.softmax(1)), "multi_label_classification", "set problem_type to single_label_classification"),
        (Apply(3, lambda z: z.log_softmax(1)), "multi_label_classification", "set problem_type to single_label_classification"),
    ],
)
def test_a_problem_type_that_contradicts_the_output(network: nn.Module, problem_type: ProblemType, words: str) -> None:
    result = check(Classifier.from_module(network, problem_type=problem_type), pictures(3), ["gradient"])
    assert result.usable == ()
    assert words in result.refused
    assert "\n" not in result.refused


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_an_output_that_fits_is_named(problem_type: ProblemType) -> None:
    result = check(Classifier.from_module(smooth(3), problem_type=problem_type), pictures(3), ["gradient"])
    expected = {
        "single_label_classification": "3 classes",
        "multi_label_classification": "3 labels",
        "regression": "3 outputs of a regression",
    }
    assert result.findings[0].text.startswith(expected[problem_type])
    assert (result.findings[0].verdict, result.usable) == ("ok", ("gradient",))


def test_one_network_with_two_problem_types_is_checked_for_each() -> None:
    network, images = Apply(3, lambda z: z.softmax(1)), pictures(3)
    explain(Classifier.from_module(network, problem_type="regression"), images, "gradient", target=0)
    with pytest.raises(ValueError, match="return the logits before its softmax"):
        explain(Classifier.from_module(network), images, "gradient", target=0)

"""Scores of the baselines: probabilities and contrasts by hand, and the same bits in every batch."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hdm_core import BaselineScores, Classifier, Preprocess, measure_baselines
from hdm_core.baseline_contrast import no_contrast_sentence
from hdm_core.masking.baseline_scores import score_baselines
from hdm_core.masking.baselines import BASELINES, applicable_baselines, baseline_image
from hdm_core.problem_type import ProblemType
from tests.support.tiny_networks import Linear, normalised, pictures, smooth

SIDE = 16


def scores_of(image: float, baseline: float, is_answer: bool, problem_type: ProblemType = "single_label_classification") -> BaselineScores:
    return BaselineScores(("mean",), torch.tensor([image]), torch.tensor([[baseline]]), torch.tensor([[is_answer]]), problem_type)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


class MeanOfRed(nn.Module):
    """Network of two classes: the logit of "healthy" is `empty` minus the mean of the first channel."""

    def __init__(self, empty: float) -> None:
        super().__init__()
        self.empty = nn.Parameter(torch.tensor(empty))

    def forward(self, images: Tensor) -> Tensor:
        healthy = self.empty - images[:, 0].mean((1, 2))
        return torch.stack([healthy, torch.zeros_like(healthy)], 1)


# The rule, by hand


@pytest.mark.parametrize(
    ("image", "baseline", "is_answer", "expected"),
    [
        (0.9, 0.74, True, True),  # two classes: grey is "healthy"
        (0.95, 0.55, True, True),  # the answer is the same, if only just
        (0.99, 0.05, True, False),  # of a thousand classes some one is the answer for grey
        (0.6, 0.3, True, True),  # exactly half
        (0.6, 0.29, True, False),
        (0.9, 0.46, False, False),  # more than half is left, but the answer is another
        (0.01, 0.01, False, True),  # another class than the answer, of which nothing is lost
        (0.01, 0.02, False, True),
        (0.01, 0.0099, False, False),
        (math.nan, 0.9, True, False),
        (0.9, math.nan, False, False),
    ],
)
def test_a_baseline_keeps_the_class(image: float, baseline: float, is_answer: bool, expected: bool) -> None:
    assert scores_of(image, baseline, is_answer).no_contrast.tolist() == [[expected]]


@pytest.mark.parametrize(("image", "baseline", "expected"), [(3.0, 3.0, True), (3.0, 2.9, False), (-3.0, 3.0, False), (0.0, 0.0, True)])
def test_a_regression_without_contrast_has_the_same_output(image: float, baseline: float, expected: bool) -> None:
    assert scores_of(image, baseline, False, "regression").no_contrast.tolist() == [[expected]]


def test_the_contrast_is_what_the_class_loses() -> None:
    torch.testing.assert_close(scores_of(0.9, 0.7, True).contrast, torch.tensor([[0.2]]))
    torch.testing.assert_close(scores_of(0.2, 0.7, True).contrast, torch.tensor([[-0.5]]))
    torch.testing.assert_close(scores_of(2.0, 5.0, False, "regression").contrast, torch.tensor([[3.0]]))


def test_the_largest_contrast_is_the_first_of_equal_ones_and_finite() -> None:
    baseline = torch.tensor([[0.5, 0.2, 0.2], [math.nan, 0.4, 0.6], [math.nan] * 3])
    scores = BaselineScores(("mean", "blur", "noise"), torch.full((3,), 0.9), baseline, baseline > 0.5, "single_label_classification")
    assert scores.largest_contrast().tolist() == [1, 1, 0]
    changes = BaselineScores(("mean", "blur"), torch.tensor([2.0]), torch.tensor([[3.0, 0.5]]), torch.zeros(1, 2).bool(), "regression")
    assert changes.largest_contrast().tolist() == [1]  # |2 - 0.5| > |2 - 3|


# Networks by hand


def test_a_grey_image_is_answered_with_the_class() -> None:
    # Grey is "healthy" with 0.74; black is -2 after normalisation, so that its logit is larger by 2; an image of mean 3 is ill.
    preprocess = Preprocess(resize=SIDE, crop=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3)
    classifier = Classifier.from_module(MeanOfRed(logit(0.74)), preprocess, ("healthy", "ill"))
    images = torch.cat([torch.full((1, 3, SIDE, SIDE), value) for value in (-logit(0.9) + logit(0.74), 3.0)])
    scores = measure_baselines(classifier, images)
    assert scores.kinds == BASELINES
    healthy = 1 / (1 + math.exp(-logit(0.74) - 2))
    torch.testing.assert_close(scores.image, torch.tensor([0.9, 1 / (1 + math.exp(logit(0.74) - 3))]))
    torch.testing.assert_close(scores.baseline[:, :2], torch.tensor([[0.74, healthy], [0.26, 1 - healthy]]))
    torch.testing.assert_close(scores.baseline[:, 2], scores.image)  # blurring a constant image changes nothing
    assert scores.is_answer[:, :3].tolist() == [[True, True, True], [False, False, True]]
    assert scores.no_contrast[:, :3].tolist() == [[True, True, True], [False, False, True]]
    assert scores.largest_contrast().tolist()[1] == 1  # black


def test_the_probability_is_that_of_the_problem_type() -> None:
    network = Linear(torch.zeros(3, SIDE, SIDE), bias=logit(0.8))
    images = pictures(2, SIDE)
    several = measure_baselines(Classifier.from_module(network, problem_type="multi_label_classification"), images, [0, 1], ["mean"])
    torch.testing.assert_close(several.baseline, torch.tensor([[0.5], [0.8]]))
    assert several.is_answer.tolist() == [[False], [True]]
    assert several.no_contrast.tolist() == [[True], [True]]  # of the first nothing is lost
    number = measure_baselines(Classifier.from_module(network, problem_type="regression"), images, 1, ["mean"])
    torch.testing.assert_close(number.baseline, torch.full((2, 1), logit(0.8)))
    assert number.is_answer.tolist() == [[False], [False]]


def test_a_class_is_compared_with_another() -> None:
    network = smooth(3)
    images = pictures(2, SIDE)
    scores = measure_baselines(network, images, [0, 1], ["mean"], contrast=[2, 0])
    logits, blank = network(images), network(torch.zeros_like(images))
    for i, (a, b) in enumerate([(0, 2), (1, 0)]):
        torch.testing.assert_close(scores.image[i], (logits[i, a] - logits[i, b]).sigmoid())
        torch.testing.assert_close(scores.baseline[i, 0], (blank[i, a] - blank[i, b]).sigmoid())


@pytest.mark.parametrize("kind", BASELINES)
def test_the_scores_are_those_of_a_slow_obvious_version(kind: Any) -> None:
    network, images = normalised(), pictures(3, SIDE)
    classifier = Classifier.from_module(network, Preprocess(resize=SIDE, crop=SIDE))
    scores = measure_baselines(classifier, images, None, [kind])
    for i, image in enumerate(images):
        probabilities = network.eval()(image[None]).softmax(1)[0]
        shown = network(baseline_image(kind, classifier, image[None]).expand(1, 3, SIDE, SIDE)).softmax(1)[0]
        target = int(probabilities.argmax())
        torch.testing.assert_close(scores.image[i], probabilities[target])
        torch.testing.assert_close(scores.baseline[i, 0], shown[target])
        assert scores.is_answer[i, 0].item() == (int(shown.argmax()) == target)


@pytest.mark.parametrize("batch", [1, 2, 5, 64])
def test_the_batch_changes_no_bit(batch: int) -> None:
    classifier = Classifier.from_module(normalised(), Preprocess(resize=SIDE, crop=SIDE))
    images = pictures(5, SIDE)
    together = measure_baselines(classifier, images, [0, 1, 0, 1, 0], batch=batch)
    for i in range(5):
        alone = measure_baselines(classifier, images[i : i + 1], [i % 2])
        assert torch.equal(alone.baseline[0], together.baseline[i])
        assert torch.equal(alone.image[0], together.image[i])


def test_each_baseline_costs_one_forward_per_image() -> None:
    seen = SimpleNamespace(images=0)

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = smooth(3)

        def forward(self, images: Tensor) -> Tensor:
            seen.images += len(images)
            return self.network(images)

    classifier = Classifier.from_module(Counting())
    images = pictures(3, SIDE)
    with classifier.frozen() as network:
        score_baselines(classifier, network, images, torch.tensor([0, 1, 2]), torch.full((3,), 0.9), ["mean", "blur"])
    assert seen.images == 2 * 3


# The baselines


def test_noise_is_the_same_for_all_images_of_a_size() -> None:
    classifier = Classifier.from_module(smooth(), Preprocess(resize=64, crop=64))
    few, many = (baseline_image("noise", classifier, torch.zeros(count, 3, 64, 64)) for count in (1, 4))
    assert few.shape == (1, 3, 64, 64)
    assert torch.equal(few, many)
    assert few.mean().item() == pytest.approx(0, abs=0.02)
    assert few.std().item() == pytest.approx(1, abs=0.02)


def test_noise_has_the_spread_of_the_networks_inputs() -> None:
    preprocess = Preprocess(resize=64, crop=64, mean=(0.0,), std=(1.0,), value_range=(-1024, 1024))
    noise = baseline_image("noise", Classifier.from_module(smooth(), preprocess), torch.zeros(1, 1, 64, 64))
    assert noise.std().item() == pytest.approx(512, rel=0.05)


def test_without_a_preprocess_there_is_no_black() -> None:
    assert applicable_baselines(Classifier.from_module(smooth())) == ("mean", "blur", "noise")
    assert applicable_baselines(Classifier.from_module(smooth(), Preprocess(resize=SIDE, crop=SIDE))) == BASELINES
    assert measure_baselines(smooth(), pictures(1, SIDE)).kinds == ("mean", "blur", "noise")


# Sentences


def test_a_sentence_says_what_such_a_map_means() -> None:
    assert no_contrast_sentence("healthy", "mean", 0.9, 0.74, "single_label_classification") == (
        "the network answers healthy for a grey image as well (p 0.740): the map shows what raises the probability from there to 0.900, "
        "not why the answer is healthy"
    )
    assert no_contrast_sentence("healthy", "noise", 0.6, 0.7, "multi_label_classification") == (
        "healthy is at least as probable for an image of noise (p 0.700, and 0.600 for the image): no pixel's removal says why"
    )
    assert no_contrast_sentence("age", "blur", 61.0, 61.0, "regression") == (
        "the network's output for the blurred image is the same (61): no map says what it depends on"
    )


# Bad input


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"baselines": ["white"]}, "unknown baseline 'white': choose from mean, black, blur, noise"),
        ({"baselines": ["meen"]}, "did you mean mean"),
        ({"baselines": []}, "no baseline given: choose from mean"),
        ({"baselines": "mean"}, r"baselines must be a list such as \['mean'\]"),
        ({"baselines": ["black"]}, "needs the classifier's preprocess"),
        ({"targets": 7}, "target 7 is no class of this network: it has 3"),
        ({"targets": [0]}, "2 images need 2 targets"),
        ({"targets": 0, "target": 0}, "two names of one argument"),
        ({"batch": 0}, "batch must be at least 1"),
    ],
)
def test_bad_input_is_refused_in_one_line(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        measure_baselines(smooth(3), pictures(2, SIDE), **keys)
    assert "\n" not in str(caught.value)


def test_images_must_be_a_batch_of_floats() -> None:
    with pytest.raises(ValueError, match="images must be a batch of floats"):
        measure_baselines(smooth(3), torch.zeros(3, 8, 8))
    with pytest.raises(ValueError, match="unknown baseline 'white'"):
        baseline_image("white", Classifier.from_module(smooth()), pictures(1, SIDE))  # type: ignore[arg-type]

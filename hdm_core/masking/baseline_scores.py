"""Scores of the baseline images: what a class keeps where nothing is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hdm_core.classifier import Classifier
from hdm_core.device import LAYOUT
from hdm_core.masking.baselines import applicable_baselines, baseline_image
from hdm_core.network.logits import class_logits
from hdm_core.problem_type import ProblemType
from hdm_core.settings import Baseline

# A baseline that is answered with the class has no contrast if the class keeps at least this share of its probability. Of two classes the
# answer has a probability above 1/2 and the image's one is at most 1, so that every baseline with the same answer counts, such as 0.74 for
# 0.9. Of many classes some one is the answer for grey as well, with 0.05 perhaps: of 0.95 that leaves nearly all to be explained.
KEPT_SHARE = 0.5
# Scores that differ relatively by less are equal: the image's one is rounded otherwise in a batch of another size.
_ROUNDING = 1e-4


@dataclass(frozen=True)
class BaselineScores:
    """Scores of B images' classes on K baselines.

    A score is the probability of the class; of a regression it is the output.

    Attributes:
        kinds: the K baselines.
        image: f(X), the scores of the whole images, (B,) float32.
        baseline: f(b), (B, K) float32.
        is_answer: (B, K) bool, the baseline is answered with the class: it is the likeliest, or of several labels likelier than not;
            false for a regression.
        problem_type: meaning of the scores.
    """

    kinds: tuple[Baseline, ...]
    image: Tensor
    baseline: Tensor
    is_answer: Tensor
    problem_type: ProblemType

    @property
    def contrast(self) -> Tensor:
        """Loss of the score from image to baseline, f(X) - f(b), (B, K).

        Of a regression it is the size of the change, |f(X) - f(b)|.
        """
        change = self.image[:, None] - self.baseline
        return change.abs() if self.problem_type == "regression" else change

    @property
    def no_contrast(self) -> Tensor:
        """True where the baseline keeps the class, (B, K) bool.

        That is where it is answered with the class, which keeps at least half of its probability, f(b) >= `KEPT_SHARE` f(X); and where
        nothing is lost, f(b) >= f(X). A regression has no answer and its zero no meaning: there the outputs must be equal. Where a score
        is NaN, nothing is known, and the result is false.
        """
        image = self.image[:, None]
        if self.problem_type == "regression":
            largest = torch.maximum(image.abs(), self.baseline.abs())
            return (image - self.baseline).abs() <= _ROUNDING * largest
        same_answer = self.is_answer & (self.baseline >= KEPT_SHARE * image)
        return same_answer | (self.baseline >= (1 - _ROUNDING) * image)

    def largest_contrast(self) -> Tensor:
        """Return the index of each image's baseline with the largest contrast, (B,) int64.

        It is the first of equal ones. A baseline without a finite score is taken only if all are.
        """
        change = (self.image[:, None] - self.baseline).abs() if self.problem_type == "regression" else -self.baseline
        return change.nan_to_num(nan=-torch.inf, neginf=-torch.inf).argmax(1)


@torch.no_grad()
def score_baselines(
    classifier: Classifier,
    network: nn.Module,
    images: Tensor,
    targets: Tensor,
    image_scores: Tensor,
    kinds: Sequence[Baseline] | None = None,
    batch: int = 1,
) -> BaselineScores:
    """Score baselines of images; each costs a forward pass per image.

    On the CPU the images go through the network one by one, so that a score has the same bits in every batch: in a batch some convolutions
    round differently.

    Args:
        classifier: defines the values of a black pixel and the meaning of the outputs.
        network: the classifier's, frozen; images (B, C, H, W) -> logits (B, classes).
        images: (B, C, H, W), on the network's device.
        targets: (B,) int64.
        image_scores: f(X), (B,).
        kinds: baselines; None for all that apply to the classifier.
        batch: images per forward on other devices than the CPU.
    """
    chosen = tuple(kinds) if kinds is not None else applicable_baselines(classifier)
    size = batch if images.device.type == "cuda" else 1
    scores, answers = [], []
    for kind in chosen:
        shown = baseline_image(kind, classifier, images).expand_as(images)
        parts = [class_logits(network, part.contiguous(memory_format=LAYOUT)) for part in torch.split(shown, size)]
        probabilities = classifier.probabilities(torch.cat(parts).float())
        score = probabilities.gather(1, targets[:, None])[:, 0]
        scores.append(score)
        answers.append(_is_answer(score, probabilities, classifier.problem_type))
    return BaselineScores(chosen, image_scores.float(), torch.stack(scores, 1), torch.stack(answers, 1), classifier.problem_type)


def _is_answer(score: Tensor, probabilities: Tensor, problem_type: ProblemType) -> Tensor:
    """Return whether each class is an answer, (B,) bool."""
    match problem_type:
        case "single_label_classification":
            return score >= probabilities.amax(1)
        case "multi_label_classification":
            return score > 0.5
        case "regression":
            return torch.zeros_like(score, dtype=torch.bool)


def chosen_baseline(scores: BaselineScores, classifier: Classifier, images: Tensor) -> Tensor:
    """Return each image's baseline with the largest contrast, (B, C, H, W)."""
    chosen = scores.largest_contrast()
    result = torch.empty_like(images, memory_format=LAYOUT)
    for number, kind in enumerate(scores.kinds):
        shown = baseline_image(kind, classifier, images).expand_as(images)
        result = torch.where((chosen == number)[:, None, None, None], shown, result)
    return result

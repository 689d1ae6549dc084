"""`measure_baselines`: what a class keeps on the baselines, and what that means."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hdm_core.batch_limit import BatchLimit
from hdm_core.checks.require import require_same_type
from hdm_core.classifier import Classifier, as_classifier
from hdm_core.device import default_batch
from hdm_core.integers import as_integer
from hdm_core.masking.baseline_scores import BaselineScores, score_baselines
from hdm_core.masking.baselines import BASELINES
from hdm_core.network.logits import class_logits, require_logits, resolve_targets
from hdm_core.problem_type import ProblemType
from hdm_core.settings import Baseline, did_you_mean
from hdm_core.targets import Targets, contrasting, one_target, resolve_contrasts, target_numbers

# Baselines as a sentence names them. The normalisation mean is grey for photographs.
_NAMES: dict[str, str] = {
    "mean": "a grey image",
    "black": "a black image",
    "blur": "the blurred image",
    "noise": "an image of noise",
}


def measure_baselines(
    classifier: Classifier | nn.Module,
    images: Tensor,
    targets: Targets = None,
    baselines: Sequence[Baseline] | None = None,
    *,
    target: Targets = None,
    contrast: Targets = None,
    batch: int | BatchLimit | None = None,
) -> BaselineScores:
    """Measure what the class of each image keeps on baselines: f(X) and f(baseline).

    Where a baseline is answered with the class, a map of what its pixels lose or restore does not explain the answer. It costs a forward
    pass per image, and one more per baseline.

    Args:
        classifier: a `Classifier`, or a plain network that maps images to logits.
        images: (B, C, H, W) as the classifier's preprocess gives them.
        targets: as of `explain`; None for the predicted class.
        baselines: some of mean, black, blur and noise; None for all that apply.
        target: another name of `targets`.
        contrast: as of `explain`: the probability is then that of the target rather than that class.
        batch: upper limit of images per forward pass; None leaves it to the device. On the CPU images go one by one.

    Raises:
        ValueError: for an unknown baseline, targets that fit neither batch nor network, or `black` if the classifier has no preprocess.

    Example:
        >>> import torch
        >>> from hdm_core import measure_baselines
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
        >>> _ = torch.nn.init.zeros_(network[1].weight)
        >>> network[1].bias.data = torch.tensor([2.0, 0.5])
        >>> measured = measure_baselines(network, torch.rand(2, 3, 4, 4), baselines=["mean"])
        >>> measured.no_contrast.tolist()
        [[True], [True]]
    """
    classifier = as_classifier(classifier)
    if images.ndim != 4 or not images.is_floating_point() or len(images) == 0:
        raise ValueError(f"images must be a batch of floats (B, C, H, W), not {tuple(images.shape)} {images.dtype}")
    kinds = None if baselines is None else _checked(baselines)
    require_same_type(classifier, images)
    limit = batch if isinstance(batch, BatchLimit) else BatchLimit(_batch_size(classifier, batch), "baselines")
    given = one_target(target, targets)
    with torch.inference_mode(False), torch.no_grad():
        images = images.detach().to(classifier.device)
        images = images.clone() if images.is_inference() else images
        return limit.run(lambda size: _measure(classifier, images, given, contrast, kinds, size))


def _measure(
    classifier: Classifier, images: Tensor, given: Targets, contrast: Targets, kinds: Sequence[Baseline] | None, batch: int
) -> BaselineScores:
    with classifier.frozen() as network:
        # One by one on the CPU, as the baselines are.
        parts = torch.split(images, batch if images.device.type == "cuda" else 1)
        logits = require_logits(torch.cat([class_logits(network, part) for part in parts]), classifier.problem_type)
        classes = resolve_targets(logits, target_numbers(given, classifier), classifier.problem_type)
        if contrast is not None:
            others = resolve_contrasts(classifier, logits, classes, contrast)
            classifier, classes = contrasting(classifier, classes, others)
            network, logits = classifier.module, classifier.differences(logits)
        scores = classifier.probabilities(logits.float()).gather(1, classes[:, None])[:, 0]
        return score_baselines(classifier, network, images, classes, scores, kinds, batch)


def no_contrast_sentence(name: str, baseline: str, image_score: float, baseline_score: float, problem_type: ProblemType) -> str:
    """Return in one sentence what a map means whose baseline keeps the class.

    Args:
        name: of the class.
        baseline: kind.
        image_score: f(X).
        baseline_score: f(baseline).
    """
    shown = _NAMES.get(baseline, f"the baseline {baseline}")
    if problem_type == "regression":
        return f"the network's output for {shown} is the same ({baseline_score:.3g}): no map says what it depends on"
    if baseline_score >= image_score:
        return (
            f"{name} is at least as probable for {shown} (p {baseline_score:.3f}, and {image_score:.3f} for the image): "
            "no pixel's removal says why"
        )
    return (
        f"the network answers {name} for {shown} as well (p {baseline_score:.3f}): the map shows what raises the probability from there to "
        f"{image_score:.3f}, not why the answer is {name}"
    )


def _batch_size(classifier: Classifier, batch: int | None) -> int:
    size = default_batch(classifier.device) if batch is None else as_integer("batch", batch)
    if size < 1:
        raise ValueError(f"batch must be at least 1, not {size}")
    return size


def _checked(baselines: Sequence[Baseline]) -> Sequence[Baseline]:
    """Return the kinds of baselines as they are.

    Raises:
        ValueError: for an unknown one, for none, or if they are no list.
    """
    if isinstance(baselines, str):
        raise ValueError(f"baselines must be a list such as [{baselines!r}], not {baselines!r}")  # noqa: TRY004 - as for a wrong name
    for kind in baselines:
        if kind not in BASELINES:
            raise ValueError(f"unknown baseline {kind!r}: choose from {', '.join(BASELINES)}{did_you_mean(str(kind), list(BASELINES))}")
    if len(baselines) == 0:
        raise ValueError(f"no baseline given: choose from {', '.join(BASELINES)}")
    return baselines

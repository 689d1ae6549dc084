"""Baseline of a job: the configured one, or of each image the best of all."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hdm_core.classifier import Classifier
from hdm_core.masking.baseline_scores import BaselineScores, chosen_baseline, score_baselines
from hdm_core.masking.baselines import applicable_baselines, baseline_image
from hdm_core.methods.base import ExplainJob
from hdm_core.network.logits import class_logits
from hdm_core.settings import DMSettings


@dataclass(frozen=True)
class JobBaseline:
    """Baseline of a job's images.

    Attributes:
        image: values of masked pixels, broadcastable to the images.
        scores: of the baselines that `auto` chose from; None for a fixed baseline.
    """

    image: Tensor
    scores: BaselineScores | None = None


def job_baseline(job: ExplainJob, settings: DMSettings) -> JobBaseline:
    """Return the baseline of a job; `auto` costs a forward pass per candidate.

    The candidates are scored by the network as it is, in float32, whatever copy of it trains masks.
    """
    if settings.baseline != "auto":
        return JobBaseline(baseline_image(settings.baseline, job.classifier, job.images))
    network = job.classifier.module
    scores = score_baselines(job.classifier, network, job.images, job.targets, _image_scores(job), batch=job.batch)
    job.passes.add(len(scores.kinds) * len(job.images))
    return JobBaseline(chosen_baseline(scores, job.classifier, job.images), scores)


def baseline_passes(settings: DMSettings, classifier: Classifier) -> int:
    """Return the passes per image that find the baseline: one per candidate of `auto`."""
    return len(applicable_baselines(classifier)) if settings.baseline == "auto" else 0


@torch.no_grad()
def _image_scores(job: ExplainJob) -> Tensor:
    """Return the score of each image's target, (B,)."""
    logits = job.logits
    if logits is None:  # a job that was made without `explain`
        logits = torch.cat([class_logits(job.classifier.module, part) for part in torch.split(job.images, job.batch)])
    else:
        logits = job.classifier.differences(logits)
    return job.classifier.probabilities(logits.float()).gather(1, job.targets[:, None])[:, 0]

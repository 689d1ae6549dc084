"""DM, dynamic masks: one stage of HDM alone."""

from __future__ import annotations

from torch import Tensor, nn

from hdm_core.classifier import Classifier
from hdm_core.masking.calibration import calibrated
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.dynamic import Member, dm_passes, ensemble_mask
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.methods.job_baseline import baseline_passes, job_baseline
from hdm_core.methods.job_loss import job_loss
from hdm_core.methods.presets import DM_PRESETS
from hdm_core.methods.start import check_start, starting_maps, starting_passes
from hdm_core.settings import DMSettings


def consistency_losses(job: ExplainJob, network: nn.Module, settings: DMSettings, baseline: Tensor | None = None) -> list[Member]:
    """Build the losses that a job's masks are optimised on, one per DM block.

    Args:
        network: the job's classifier, folded.
        baseline: values of masked pixels; None for those of the settings.
    """
    if baseline is None:
        baseline = job_baseline(job, settings).image
    return [(_loss(job, network, member, baseline), member) for member in settings.members()]


def added_passes(settings: DMSettings, classifier: Classifier, image: Tensor) -> int:
    """Return the passes per image that depend on the network: start and baseline."""
    return starting_passes(settings, classifier, image) + baseline_passes(settings, classifier)


def _loss(job: ExplainJob, network: nn.Module, settings: DMSettings, baseline: Tensor) -> ConsistencyLoss:
    spread = 1.0 if job.classifier.preprocess is None else job.classifier.preprocess.spread
    options = {"relative": settings.relative, "noise": settings.noise * spread, "loss": settings.loss}
    return job_loss(ConsistencyLoss, job, network, baseline, settings.activation, **options)


def _run(job: ExplainJob, settings: DMSettings) -> RawMaps:
    baseline = job_baseline(job, settings)
    with job.classifier.folded(job.images[:1], job.precision) as network:
        members = consistency_losses(job, network, settings, baseline.image)
        maps = ensemble_mask(members, starting_maps(job, settings))[:, 0]
        if settings.calibration:
            maps = calibrated(maps, members[0][0], settings.calibration)
        return RawMaps(maps, baseline_scores=baseline.scores)


DM = Method(
    id="dm",
    title="DM",
    source="Peng, Yang, Liu, He: Hierarchical Dynamic Masks for Visual Explanation of Neural Networks, arXiv 2301.04970, Section 3.2",
    settings=DMSettings,
    presets=DM_PRESETS,
    default="faithful",
    run=_run,
    pairs_images=True,
    passes=lambda settings, height, width: dm_passes(settings, height, width) + len(settings.calibration),
    network_passes=added_passes,
    check=check_start,
    family="mask optimisation",
    sign="only evidence for the class",
)

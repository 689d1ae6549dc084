"""DM, dynamic masks: one stage of HDM alone."""

from __future__ import annotations

from torch import nn

from hdm_core.masking.baselines import baseline_image
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.dynamic import dm_passes, dynamic_mask
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.methods.job_loss import job_loss
from hdm_core.methods.presets import DM_PRESETS
from hdm_core.settings import DMSettings


def consistency_loss(job: ExplainJob, network: nn.Module, settings: DMSettings) -> ConsistencyLoss:
    """Build the loss that a job's masks are optimised on.

    Args:
        network: the job's classifier, folded.
    """
    baseline = baseline_image(settings.baseline, job.classifier, job.images)
    spread = 1.0 if job.classifier.preprocess is None else job.classifier.preprocess.spread
    options = {"relative": settings.relative, "noise": settings.noise * spread, "loss": settings.loss}
    return job_loss(ConsistencyLoss, job, network, baseline, settings.activation, **options)


def _run(job: ExplainJob, settings: DMSettings) -> RawMaps:
    with job.classifier.folded(job.images[:1], job.precision) as network:
        return RawMaps(dynamic_mask(consistency_loss(job, network, settings), settings)[:, 0])


DM = Method(
    id="dm",
    title="DM",
    source="Peng, Yang, Liu, He: Hierarchical Dynamic Masks for Visual Explanation of Neural Networks, arXiv 2301.04970, Section 3.2",
    settings=DMSettings,
    presets=DM_PRESETS,
    default="fast",
    run=_run,
    pairs_images=True,
    passes=dm_passes,
    family="mask optimisation",
    sign="only evidence for the class",
)

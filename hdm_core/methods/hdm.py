"""HDM, hierarchical dynamic masks."""

from __future__ import annotations

from hdm_core.masking.calibration import calibrated
from hdm_core.masking.hierarchical import hdm_passes, hierarchical_mask
from hdm_core.methods.base import ExplainJob, Method, RawMaps
from hdm_core.methods.dm import added_passes, consistency_losses
from hdm_core.methods.job_baseline import job_baseline
from hdm_core.methods.presets import HDM_PRESETS
from hdm_core.methods.start import check_start, starting_maps
from hdm_core.settings import HDMSettings


def _run(job: ExplainJob, settings: HDMSettings) -> RawMaps:
    baseline = job_baseline(job, settings)
    with job.classifier.folded(job.images[:1], job.precision) as network:
        members = consistency_losses(job, network, settings, baseline.image)
        maps, stages, weights = hierarchical_mask(members, settings, starting_maps(job, settings))
        if settings.calibration:
            maps = calibrated(maps, members[0][0], settings.calibration)
        return RawMaps(maps, stages, weights, baseline.scores)


HDM = Method(
    id="hdm",
    title="HDM",
    source="Peng, Yang, Liu, He: Hierarchical Dynamic Masks for Visual Explanation of Neural Networks, arXiv 2301.04970",
    settings=HDMSettings,
    presets=HDM_PRESETS,
    default="faithful",
    run=_run,
    pairs_images=True,
    passes=hdm_passes,
    network_passes=added_passes,
    check=check_start,
    family="mask optimisation",
    sign="only evidence for the class",
)

"""HDM, hierarchical dynamic masks."""

from __future__ import annotations

from torch import Tensor

from hdm_core.baselines import masked_pixels
from hdm_core.engine import Consistency
from hdm_core.hierarchy import hdm_passes, hierarchical_mask
from hdm_core.methods.base import Job, Method, RawMaps
from hdm_core.presets import HDM_PRESETS
from hdm_core.settings import HDMSettings


def _run(job: Job, settings: HDMSettings) -> RawMaps:
    baseline = masked_pixels(settings.baseline, job.classifier, job.images)
    with job.classifier.folded(job.images[:1]) as network:

        def see(images: Tensor) -> Consistency:
            return Consistency(network, images, job.targets, baseline, settings.activation, job.batch, job.passes)

        maps, stages, shares = hierarchical_mask(see, job.images, baseline, settings)
    return RawMaps(maps, stages, shares)


HDM = Method(
    id="hdm",
    title="HDM",
    source="Peng, Yang, Liu, He: Hierarchical Dynamic Masks for Visual Explanation of Neural Networks, arXiv 2301.04970",
    settings=HDMSettings,
    presets=HDM_PRESETS,
    default="fast",
    run=_run,
    passes=hdm_passes,
)

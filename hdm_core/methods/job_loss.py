"""Consistency loss of a job, for the methods that mask images."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import Tensor, nn

from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.methods.base import ExplainJob
from hdm_core.settings import Activation

L = TypeVar("L", bound=ConsistencyLoss)


def job_loss(kind: type[L], job: ExplainJob, network: nn.Module, baseline: Tensor, activation: Activation, **options: Any) -> L:
    """Build the loss of a job's images and targets.

    Args:
        kind: ConsistencyLoss, or a loss made from it.
        network: the job's classifier, folded.
        baseline: as of `ConsistencyLoss`, and so are `activation` and the options.
    """
    return kind(
        network,
        job.images,
        job.targets,
        baseline,
        activation,
        job.batch if job.limit is None else job.limit,
        job.passes,
        precision=job.precision,
        problem_type=job.classifier.problem_type,
        cuda_graphs=job.cuda_graphs,
        **options,
    )

"""One method on some images of a batch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hdm_core import Classifier, Explanation, explain_with
from hdm_core.batch_limit import BatchLimit
from hdm_core.targets import Targets
from pipeline.classifiers.targets import MapRequest
from pipeline.config.schema import RunConfig
from pipeline.explain.batch import Batch

PassCallback = Callable[[int], None]  # called with the number of passes just done


@dataclass(frozen=True)
class MethodResult:
    """Maps of one method.

    Attributes:
        method: its id.
        requests: one per map of the explanation.
        seconds: per map.
    """

    method: str
    requests: Sequence[MapRequest]
    explanation: Explanation
    seconds: float


def requested_classes(requests: Sequence[MapRequest]) -> tuple[Targets, Targets]:
    """Return the targets of requests, and the classes they are compared with.

    Args:
        requests: at least one; all of them have a target, or none has, and so for the contrast.
    """
    targets = [request.target for request in requests if request.target is not None] or None
    if requests[0].contrast == "runner_up":
        return targets, "runner_up"
    return targets, [request.contrast for request in requests if isinstance(request.contrast, int)] or None


def explain_method(
    classifier: Classifier,
    config: RunConfig,
    batch: Batch,
    requests: Sequence[MapRequest],
    method: str,
    limit: BatchLimit,
    progress: PassCallback | None,
) -> MethodResult:
    """Explain images of a batch with one method.

    Args:
        requests: at least one; all of them have a target, or none has, and so for the contrast.
        limit: of the images that go through the network at once; halved for good where memory runs out.
    """
    targets, contrast = requested_classes(requests)
    begin = time.perf_counter()
    explanation = explain_with(
        classifier,
        batch.images[[request.place for request in requests]],
        method,
        config.settings[method],
        targets,
        contrast=contrast,
        batch=limit,
        precision=config.compute.fixed_precision,
        cuda_graphs=config.compute.cuda_graphs,
        progress=progress,
    )
    return MethodResult(method, requests, explanation, (time.perf_counter() - begin) / len(requests))

"""One method on one batch, with failures isolated to their image."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hdm_core import Classifier, Explanation, explain_with
from pipeline.classifiers.targets import MapFailure, MapRequest
from pipeline.config.schema import RunConfig
from pipeline.errors import one_line
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


def explain_method(
    classifier: Classifier,
    config: RunConfig,
    batch: Batch,
    requests: Sequence[MapRequest],
    method: str,
    batch_size: int,
    progress: PassCallback | None,
) -> Iterator[MethodResult | MapFailure]:
    """Explain images of a batch with one method.

    All go through together; where that fails, the maps are computed one by one, so that one image costs no other its map.

    Args:
        batch_size: images that go through the network at once.
    """
    attempts = [list(requests)] if requests else []
    while attempts:
        attempt = attempts.pop(0)
        targets = [request.target for request in attempt if request.target is not None] or None  # all have a target, or none has
        begin = time.perf_counter()
        try:
            explanation = explain_with(
                classifier,
                batch.images[[request.place for request in attempt]],
                method,
                config.settings[method],
                targets,
                batch=batch_size,
                precision=config.compute.fixed_precision,
                progress=progress,
            )
        except Exception as error:  # whatever a user's network raises belongs to this image, not to the run
            if len(attempt) > 1:
                attempts = [[request] for request in attempt]
            else:
                yield MapFailure(attempt[0], f"{type(error).__name__}: {one_line(error)}")
            continue
        yield MethodResult(method, attempt, explanation, (time.perf_counter() - begin) / len(attempt))

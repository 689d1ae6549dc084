"""Calls of the engine: maps, and the number of captured graphs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from hdm_core import Classifier, Explanation, explain
from hdm_core.cuda_graphs import captured_graphs
from hdm_core.device import Precision

__all__ = ["captured_graphs", "explained"]


def explained(
    classifier: Classifier,
    images: Tensor,
    method: str,
    *,
    targets: Tensor | None = None,
    batch: int | None = None,
    precision: Precision | None = None,
    cuda_graphs: bool = True,
    **settings: Any,
) -> Explanation:
    """Explain images; without `cuda_graphs` no pass is captured."""
    return explain(classifier, images, method, targets=targets, batch=batch, precision=precision, cuda_graphs=cuda_graphs, **settings)

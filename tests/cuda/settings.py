"""Networks and short settings of the methods for the tests on the pretended GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from hdm_core import Explanation, explain
from hdm_core.testing.networks import attention_network, normalised_network
from tests.support.tricky_networks import Dense, Residual, seeded

SHORT: dict[str, dict[str, Any]] = {
    "dm": {"preset": "fast", "sizes": (4,), "ratios": (2,), "steps": 2},
    "hdm": {"preset": "fast", "sizes": (4,), "ratios": (2,), "steps": 2, "stages": 2, "mix_steps": 2},
    "rise": {"masks": 8},
    "mask": {"steps": 2, "cell": 4, "blur": 1.0, "circles": 3},
    "integrated_gradients": {"steps": 3},
    "smooth_grad": {"samples": 3},
    "expected_gradients": {"samples": 3},
    "occlusion": {"window": 0.5},
    "opti_cam": {"steps": 2},
    "igos_pp": {"steps": 2, "points": 2, "cells": 4},
}

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "normalised": lambda: normalised_network().eval(),
    "residual": lambda: seeded(Residual),
    "dense": lambda: seeded(Dense),
    "attention": attention_network,
}


def explained(network: nn.Module, images: Tensor, method: str, **changes: Any) -> Explanation:
    """Explain with short settings and batches of the same size on every device."""
    return explain(network, images, method, batch=4, **{**SHORT.get(method, {}), **changes})

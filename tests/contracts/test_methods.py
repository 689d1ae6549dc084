"""Every method of the registry against the promises that ship in `hdm_core.testing`.

A new method is tested by its entry in the registry alone. It runs with its default preset, unless that is slow and QUICK has
cheaper settings.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from hdm_core import METHODS, get_method
from hdm_core.methods import RawMaps
from hdm_core.testing import METHOD_PROMISES, MethodCase, Promise, check_method
from hdm_core.testing.families import FAMILIES

# A light eta: where sparsity outweighs the consistency everywhere, all pixels sink alike and N stretches their rounding.
DM = {"sizes": (2, 5), "ratios": (2,), "steps": 4, "learning_rate": 0.1, "eta": 0.02}
QUICK: dict[str, dict[str, Any]] = {
    "dm": DM,
    "hdm": {**DM, "stages": 2, "mix_steps": 4},
    "integrated_gradients": {"steps": 6},
    "rise": {"masks": 24},
    "mask": {"steps": 6, "cell": 2, "blur": 1.0, "circles": 4},
    "smooth_grad": {"samples": 6},
    "expected_gradients": {"samples": 6},
    "occlusion": {"window": 0.25},
    "opti_cam": {"steps": 8},
    "igos_pp": {"steps": 4, "points": 3, "cells": 4},
}
# On larger networks, and a hundred times over.
SHORT = {"sizes": (4,), "steps": 1}
CHEAPEST: dict[str, dict[str, Any]] = {
    "dm": SHORT,
    "hdm": {**SHORT, "stages": 1},
    "integrated_gradients": {"steps": 2},
    "rise": {"masks": 8},
    "mask": {"steps": 2, "cell": 2, "blur": 1.0, "circles": 2},
    "smooth_grad": {"samples": 2},
    "expected_gradients": {"samples": 2},
    "occlusion": {"window": 0.5},
    "opti_cam": {"steps": 2},
    "igos_pp": {"steps": 2, "points": 1, "cells": 4},
}
# Methods whose map does not depend on the class that is explained.
CLASS_AGNOSTIC = {"eigen_cam", "attention_rollout", "center", "edges", "random_map"}
# Methods without a layer of their own that need a network's layers all the same.
NEEDS_LAYERS = {"full_grad", "legrad", "attention_rollout"}
# Families whose logits are not the sum of pixels and biases: they normalise by the image's own values, or multiply by attention. And
# those without attention.
REFUSED = {
    "full_grad": dict.fromkeys(("convnext", "transformer"), "pixels and biases do not sum to its logits"),
    **dict.fromkeys(("legrad", "attention_rollout"), dict.fromkeys(FAMILIES, "this network has no attention of tokens to each other")),
}


ON_CUDA = (pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))
PROMISES = [pytest.param(each, id=each.name.replace(" ", "_"), marks=ON_CUDA if each.cuda else ()) for each in METHOD_PROMISES]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("promise", PROMISES)
def test_the_method_keeps_its_promise(promise: Promise[MethodCase], method: str) -> None:
    entry = METHODS[method]
    needs_layers = bool(entry.layer) or method in NEEDS_LAYERS
    promise.check(
        MethodCase(entry, QUICK.get(method, {}), CHEAPEST.get(method, {}), method in CLASS_AGNOSTIC, needs_layers, REFUSED.get(method, {}))
    )


def test_a_broken_promise_is_reported_by_its_name() -> None:
    gradient = get_method("gradient")
    double = replace(gradient, run=lambda job, settings: RawMaps(2 * gradient.run(job, settings).maps))
    with pytest.raises(AssertionError, match=r"gradient breaks the promise 'maps are float32 in zero to one .*\[\(16, 16\)\]': .*max"):
        check_method(double)
    assert METHODS["gradient"] is gradient
    unsigned = replace(gradient, signed=False)
    with pytest.raises(AssertionError, match="'a batch equals its singles'"):
        check_method(replace(unsigned, run=lambda job, settings: RawMaps(gradient.run(job, settings).maps / len(job.images))))
    with pytest.raises(AssertionError, match="'progress reports every pass"):
        check_method(replace(gradient, passes=lambda settings, height, width: 2))
    with pytest.raises(AssertionError, match=r"'the entry is complete': .*presets"):
        check_method(replace(gradient, id="other", default="best"))
    assert "other" not in METHODS

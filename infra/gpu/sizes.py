"""Sizes of the checks: for a GPU, and tiny ones to try the checks themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sizes:
    """Networks, images and batches of the checks.

    Attributes:
        tiny: neither a GPU nor its goals are expected.
        networks: names for `infra.gpu.networks.build`.
        side: of the images, in pixels.
        copied: float32 numbers that a copy moves; factor: side of the square matrices that are multiplied.
        min_seconds: that a measurement of a bare pass takes.
        batches: batch size -> steps of the optimiser when the engine is timed. Few steps suffice, as all are alike.
        explained: numbers of images whose maps are timed end to end; batch: with this batch size.
        others: images for the timing of the other methods.
        compared: images on which methods are compared with the CPU; settings: method -> settings that replace the default preset's there,
            so that the CPU takes seconds.
        timed: method -> the same where images per second are measured.
        threads: of the CPU's side of a comparison; None for one per core.
        crowded: batch size that does not fit into crowded_mib.
        processes: numbers of processes that share the device; shared: images that each explains at once; share_seconds: for which.
        tests: arguments of pytest beside `-m gpu`.
    """

    tiny: bool
    networks: tuple[str, ...]
    side: int
    copied: int
    factor: int
    min_seconds: float
    batches: Mapping[int, int]
    explained: tuple[int, ...]
    batch: int
    others: int
    compared: int
    settings: Mapping[str, Mapping[str, Any]]
    timed: Mapping[str, Mapping[str, Any]]
    threads: int | None
    crowded: int
    crowded_mib: int
    processes: tuple[int, ...]
    shared: int
    share_seconds: float
    tests: tuple[str, ...]


FULL = Sizes(
    tiny=False,
    networks=("mobilenet_v2", "resnet50"),
    side=224,
    copied=2**28,
    factor=8192,
    min_seconds=0.4,
    batches={16: 20, 64: 12, 256: 4},
    explained=(64, 128),
    batch=64,
    others=16,
    compared=2,
    settings={
        "rise": {"masks": 200},
        "mask": {"steps": 30, "circles": 9},
        "integrated_gradients": {"steps": 20},
        "smooth_grad": {"samples": 10},
        "expected_gradients": {"samples": 10},
        "opti_cam": {"steps": 10},
        "igos_pp": {"steps": 4, "points": 5},
    },
    timed={},
    threads=None,
    crowded=256,
    crowded_mib=3072,
    processes=(1, 2, 4),
    shared=32,
    share_seconds=6.0,
    tests=("tests/gpu", "tests/hdm_core", "tests/contracts/test_methods.py", "tests/contracts/test_metrics.py"),
)

_SHORT = {"sizes": (4,), "ratios": (2,), "steps": 2}
_TINY: dict[str, Mapping[str, Any]] = {
    "hdm": {**_SHORT, "stages": 2, "mix_steps": 2},
    "dm": _SHORT,
    "rise": {"masks": 8},
    "mask": {"steps": 2, "cell": 4, "circles": 3},
    "integrated_gradients": {"steps": 3},
    "smooth_grad": {"samples": 2},
    "expected_gradients": {"samples": 2},
    "occlusion": {"window": 0.5},
    "opti_cam": {"steps": 2},
    "igos_pp": {"steps": 2, "points": 2, "cells": 4},
}

TINY = Sizes(
    tiny=True,
    networks=("small_mobilenet", "small_resnet"),
    side=32,
    copied=2**16,
    factor=64,
    min_seconds=0.01,
    batches={2: 1, 4: 1},
    explained=(2, 4),
    batch=4,
    others=2,
    compared=2,
    settings=_TINY,
    timed=_TINY,
    threads=1,
    crowded=4,
    crowded_mib=0,
    processes=(1, 2),
    shared=2,
    share_seconds=0.1,
    tests=("tests/gpu",),
)

"""Benchmark of our methods against the libraries that have them."""

from __future__ import annotations

import copy
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.libraries import PROGRAMS
from benchmarks.reference import now, quartiles
from hdm_core import Classifier, explain, get_method
from hdm_core.device import device_name
from hdm_core.network.default_layer import default_layer
from pipeline.errors import InputError

# Methods that run the network for every step, mask or channel get one image, few masks, and MobileNetV2's layer of 320 channels.
_LAYER = "features.17"
REDUCED: Mapping[str, Mapping[str, Any]] = {
    "integrated_gradients": {},
    "rise": {"masks": 64},
    "score_cam": {"layer": _LAYER},
    "ablation_cam": {"layer": _LAYER},
}


@dataclass(frozen=True)
class MethodResult:
    """Result for one method; milliseconds per image, from the image to its map.

    The map is of the predicted class.

    Attributes:
        library: the fastest library that has the method.
        settings: those that differ from the default; the library gets the same.
        ratio: library / ours, the median of the pairs; ratio_range: its quartiles.
    """

    method: str
    library: str
    device: str
    threads: int
    images: int
    settings: Mapping[str, Any]
    pairs: int
    ours_ms: float
    library_ms: float
    ratio: float
    ratio_range: tuple[float, float]

    def as_dict(self) -> dict[str, object]:
        """Return the JSON object of the result."""
        return asdict(self)


def comparable_methods(names: Sequence[str] | None) -> list[str]:
    """Return the methods that a library has, limited to `names` if given.

    Raises:
        InputError: for a name that no library has.
    """
    for name in names or []:
        if name not in PROGRAMS:
            raise InputError(f"no library has a method {name!r} to compare with: choose from {', '.join(PROGRAMS)}")
    return [name for name in PROGRAMS if names is None or name in names]


def bench_method(classifier: Classifier, images: Tensor, method: str, pairs: int) -> MethodResult:
    """Measure a method on images (B, C, H, W).

    Library and our method are measured in turn, so that other load on the machine slows both.

    Raises:
        InputError: if a library that has the method is not installed.
    """
    changes = REDUCED.get(method, {})
    images = images[:1] if method in REDUCED else images
    network = copy.deepcopy(classifier.module).eval()  # libraries leave hooks and gradients behind
    layer = network.get_submodule(changes["layer"]) if "layer" in changes else default_layer(network, images).module
    if get_method(method).layer is not None:  # libraries are called with the layer, and so is our method
        changes = {"layer": next(name for name, module in network.named_modules() if module is layer)}
    settings = get_method(method).configure(**changes)

    def our_seconds() -> float:
        return _seconds(lambda: explain(classifier, images, method, **changes), images)

    def library_seconds(program: str) -> float:
        return _seconds(lambda: PROGRAMS[method][program](network, layer, images, settings), images)

    our_seconds()
    programs = list(PROGRAMS[method])
    fastest = (
        min(programs, key=lambda program: min(library_seconds(program), library_seconds(program))) if len(programs) > 1 else programs[0]
    )
    timings = [(library_seconds(fastest), our_seconds()) for _ in range(pairs)]
    library, ours = (statistics.median(column) for column in zip(*timings, strict=True))
    low, middle, high = quartiles([theirs / ours for theirs, ours in timings])
    return MethodResult(
        method=method,
        library=fastest,
        device=device_name(classifier.device),
        threads=torch.get_num_threads(),
        images=len(images),
        settings=changes,
        pairs=pairs,
        ours_ms=ours * 1e3,
        library_ms=library * 1e3,
        ratio=middle,
        ratio_range=(low, high),
    )


def _seconds(call: Callable[[], object], images: Tensor) -> float:
    """Return the seconds per image of one call."""
    begin = now(images.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum warns about its hooks
        call()
    return (now(images.device) - begin) / len(images)

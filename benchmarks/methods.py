"""Our methods beside the libraries that have them: how much faster."""

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
from hdm_core.network.hooks import last_spatial_layer
from pipeline.errors import InputError

# What runs the network for every step, mask or channel is shown one image, few masks, and MobileNetV2's layer of 320 channels.
_LAYER = "features.17"
REDUCED: Mapping[str, Mapping[str, Any]] = {
    "integrated_gradients": {},
    "rise": {"masks": 64},
    "score_cam": {"layer": _LAYER},
    "ablation_cam": {"layer": _LAYER},
}


@dataclass(frozen=True)
class MethodResult:
    """Milliseconds are of one image, from the image to the map of the class that is predicted for it.

    Attributes:
        library: the fastest that has the method.
        settings: that are not the default's; the library has the same.
        ratio: library / ours, the median of the pairs; ratio_range its quartiles.
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
        """As JSON has it."""
        return asdict(self)


def comparable_methods(names: Sequence[str] | None) -> list[str]:
    """The methods that a library has, or those of them that are named.

    Raises:
        InputError: for a name that is none of them.
    """
    for name in names or []:
        if name not in PROGRAMS:
            raise InputError(f"no library has a method {name!r} to compare with: choose from {', '.join(PROGRAMS)}")
    return [name for name in PROGRAMS if names is None or name in names]


def bench_method(classifier: Classifier, images: Tensor, method: str, pairs: int) -> MethodResult:
    """Measures a method on images (B, C, H, W): library and ours in turn, so that what slows the machine down slows both.

    Raises:
        InputError: if a library that has the method is not installed.
    """
    changes = REDUCED.get(method, {})
    images = images[:1] if method in REDUCED else images
    theirs = copy.deepcopy(classifier.module).eval()  # libraries leave hooks and gradients behind
    layer = theirs.get_submodule(changes["layer"]) if "layer" in changes else last_spatial_layer(theirs, images)
    if get_method(method).layer is not None:  # libraries are told the layer, and so are we
        changes = {"layer": next(name for name, module in theirs.named_modules() if module is layer)}
    settings = get_method(method).configure(**changes)

    def ours() -> float:
        return _seconds(lambda: explain(classifier, images, method, **changes), images)

    def of(program: str) -> float:
        return _seconds(lambda: PROGRAMS[method][program](theirs, layer, images, settings), images)

    ours()
    programs = list(PROGRAMS[method])
    best = min(programs, key=lambda program: min(of(program), of(program))) if len(programs) > 1 else programs[0]
    taken = [(of(best), ours()) for _ in range(pairs)]
    library, mine = (statistics.median(column) for column in zip(*taken, strict=True))
    low, middle, high = quartiles([theirs / ours for theirs, ours in taken])
    return MethodResult(
        method=method,
        library=best,
        device=device_name(classifier.device),
        threads=torch.get_num_threads(),
        images=len(images),
        settings=changes,
        pairs=pairs,
        ours_ms=mine * 1e3,
        library_ms=library * 1e3,
        ratio=middle,
        ratio_range=(low, high),
    )


def _seconds(work: Callable[[], object], images: Tensor) -> float:
    """Of one image."""
    begin = now(images.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum tells of its hooks
        work()
    return (now(images.device) - begin) / len(images)

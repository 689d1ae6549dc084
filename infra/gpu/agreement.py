"""Section: maps of all methods on the device against those of the CPU."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.reference import now
from hdm_core import METHODS, Classifier, Explanation, explain
from hdm_core.device import Precision
from infra.gpu.facts import pick_test_device
from infra.gpu.networks import build, photographs
from infra.gpu.session import Facts, Session

_PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
_ROUNDING = 1e-6
# Methods whose passes are captured. They are those that optimise masks, and amplify rounding.
_GRAPHED = ("hdm", "dm", "mask")


def check_agreement(session: Session, facts: Facts) -> None:
    """Compare each method in each precision."""
    device, sizes = pick_test_device(), session.sizes
    before = torch.get_num_threads()
    torch.set_num_threads(sizes.threads or os.cpu_count() or before)
    try:
        on_cpu, on_device = (build(sizes.networks[0], sizes.side, each) for each in (torch.device("cpu"), device))
        images = photographs(on_cpu)[: sizes.compared]
        methods = [method for method, entry in METHODS.items() if not entry.needs_attention]
        session.each(facts, methods, lambda method: compared(on_cpu, on_device, images, method, sizes.settings.get(method, {})))
    finally:
        torch.set_num_threads(before)


def compared(on_cpu: Classifier, on_device: Classifier, images: Tensor, method: str, settings: Any) -> Facts:
    """Compare the maps of a method on two devices.

    Returns:
        For each precision the largest difference and the lowest correlation with the CPU's maps; `graphs`, the same of maps without graphs
        and those with; `rounding`, of the CPU's own maps when the images change in the seventh digit; the precisions with the same bits
        `twice`; `singles`, the largest difference from maps of one image at a time; `statuses`, those that differ from the CPU's.
    """
    begin = now(on_device.device)
    expected = explain(on_cpu, images, method, precision="float32", **settings)
    found: Facts = {"cpu_s": now(on_device.device) - begin}
    run = partial(explain, on_device, method=method, **settings)
    maps: dict[Precision, Explanation] = {}
    for precision in _PRECISIONS:
        maps[precision] = run(images=images, targets=expected.targets, precision=precision)
        found[precision] = difference(maps[precision].maps, expected.maps)
    found["statuses"] = {precision: each.status for precision, each in maps.items() if each.status != expected.status}
    found["twice"] = [
        precision
        for precision in ("float32", "bfloat16")
        if torch.equal(run(images=images, targets=expected.targets, precision=precision).maps, maps[precision].maps)
    ]
    singles = [run(images=images[b : b + 1], targets=expected.targets[b : b + 1], precision="float32").maps for b in range(len(images))]
    found["singles"] = difference(torch.cat(singles), maps["float32"].maps)[0]
    if method in _GRAPHED:
        changed = images + _ROUNDING * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        found["rounding"] = difference(
            explain(on_cpu, changed, method, targets=expected.targets, precision="float32", **settings).maps, expected.maps
        )
        found["graphs"] = {
            precision: difference(
                run(images=images, targets=expected.targets, precision=precision, cuda_graphs=False).maps, maps[precision].maps
            )
            for precision in ("float32", "bfloat16")
        }
    return found


def difference(maps: Tensor, others: Tensor) -> tuple[float, float]:
    """Return the largest difference and lowest correlation of maps (B, H, W).

    Equal maps correlate by 1, also constant ones; those of which one is constant by 0.
    """
    pairs = list(zip(maps.cpu(), others.cpu(), strict=True))
    return max(float((a - b).abs().max()) for a, b in pairs), min(_correlation(a, b) for a, b in pairs)


def _correlation(a: Tensor, b: Tensor) -> float:
    if torch.equal(a, b):
        return 1.0
    return float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]).double())[0, 1].nan_to_num(0))

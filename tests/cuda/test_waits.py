"""Waits of the host for the device: none per step of an optimiser, and a fixed number per batch."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch

from hdm_core import Classifier, MetricSettings, evaluate
from tests.cuda.settings import NETWORKS, explained
from tests.support.pretended_gpu import pretended_gpu
from tests.support.tiny_networks import pictures, smooth


def waits_of(method: str, images: int = 2, **settings: Any) -> Counter[tuple[str, str]]:
    """Return the waits of a second batch: the first one checks the network, folds it and builds matrices."""
    with pretended_gpu() as gpu:
        network, batch = smooth().to("cuda"), pictures(images, 16).to("cuda")
        for _ in range(2):
            gpu.waits.clear()
            explained(network, batch, method, **{"precision": "float32", **settings})
    return gpu.waits


@pytest.mark.parametrize(
    ("method", "fewer", "more"),
    [
        ("dm", {"steps": 2}, {"steps": 5}),
        ("dm", {"steps": 2, "noise": 0.5, "relative": True}, {"steps": 5, "noise": 0.5, "relative": True}),
        ("dm", {"steps": 2, "noise": 0.5, "removal": 0.1}, {"steps": 5, "noise": 0.5, "removal": 0.1}),
        ("dm", {"steps": 2, "target": 1, "contrast": 0}, {"steps": 5, "target": 1, "contrast": 0}),
        ("dm", {"steps": 2, "precision": "bfloat16"}, {"steps": 5, "precision": "bfloat16"}),
        ("dm", {"sizes": (4,)}, {"sizes": (4, 5, 7)}),
        ("dm", {"steps": 2, "views": ("top", "rest")}, {"steps": 6, "views": ("top", "rest")}),
        ("dm", {"steps": 2, "schedule": "cosine", "average": 0.5}, {"steps": 6, "schedule": "cosine", "average": 0.5}),
        ("dm", {"steps": 2, "start": "cam", "blur": 0.05}, {"steps": 5, "start": "cam", "blur": 0.05}),
        ("dm", {"steps": 2, "calibration": (0.1,)}, {"steps": 2, "calibration": (0.1, 0.2, 0.5)}),
        ("dm", {"steps": 2, "baseline": "auto"}, {"steps": 5, "baseline": "auto"}),
        ("hdm", {"mix_steps": 2}, {"mix_steps": 5}),
        ("hdm", {"stages": 2, "noise": 0.0}, {"stages": 3, "noise": 0.0}),
        ("mask", {"steps": 2}, {"steps": 5}),
        ("mask", {"circles": 3}, {"circles": 6}),
        ("rise", {"masks": 4}, {"masks": 16}),
        ("integrated_gradients", {"steps": 2}, {"steps": 6}),
        ("smooth_grad", {"samples": 2}, {"samples": 6}),
        ("expected_gradients", {"samples": 2}, {"samples": 6}),
        ("occlusion", {"window": 0.5}, {"window": 0.25}),
        ("opti_cam", {"steps": 2}, {"steps": 5}),
        ("igos_pp", {"points": 2, "steps": 3}, {"points": 5, "steps": 3}),
    ],
)
def test_a_step_waits_for_nothing(method: str, fewer: dict[str, Any], more: dict[str, Any]) -> None:
    assert waits_of(method, **more) == waits_of(method, **fewer)


def test_noise_is_copied_to_the_device_once_per_level() -> None:
    without, with_noise = waits_of("dm", noise=0.0), waits_of("dm", noise=0.5)
    added = with_noise - without
    assert [kind for kind, _ in added] == ["copy to the device"]
    assert added.total() == 3  # masks of 4, 8 and 16 cells


# Per batch: two comparisons of the network with its snapshot, four numbers that compare its folded copy, one check of the logits and one
# transfer of the statuses. HDM, DM and Mask compare the first replay of each graph with its work. Then what a method copies to the device:
# noise of every level and stage, grids and offsets, weights, noise that its layer is found with.
WAITS = {
    "hdm": 16,
    "dm": 13,
    "gradient": 4,
    "deeplift": 4,
    "integrated_gradients": 11,
    "rise": 12,
    "mask": 11,
    "grad_cam": 5,
    "grad_cam_pp": 5,
    "score_cam": 9,
    "ablation_cam": 7,
    "xgrad_cam": 5,
    "eigen_cam": 5,
    "layer_cam": 5,
    "full_grad": 6,
    "smooth_grad": 12,
    "input_x_gradient": 4,
    "occlusion": 12,
    "expected_gradients": 12,
    "opti_cam": 14,
    "finer_cam": 5,
    "igos_pp": 14,
    "center": 5,
    "edges": 4,
    "random_map": 6,
}


@pytest.mark.parametrize("method", WAITS)
def test_a_batch_of_a_method_waits_so_often(method: str) -> None:
    few, many = waits_of(method, images=1), waits_of(method, images=4)
    assert few == many
    assert many.total() <= WAITS[method], many


@pytest.mark.parametrize("method", ["legrad", "attention_rollout"])
def test_a_batch_of_an_attention_method_waits_so_often(method: str) -> None:
    with pretended_gpu() as gpu:
        network, images = NETWORKS["attention"]().to("cuda"), pictures(3, 16).to("cuda")
        for _ in range(2):
            gpu.waits.clear()
            explained(network, images, method)
    assert gpu.waits.total() <= 4, gpu.report()


@pytest.mark.parametrize(
    ("protocol", "contrast", "names", "limit"),
    [
        ("paper", None, None, 11),
        ("rise", None, None, 12),
        ("paper", 1, None, 11),
        ("paper", None, ("all",), 13),
        ("rise", None, ("all",), 14),
    ],
)
def test_an_evaluation_waits_equally_often_for_any_number_of_maps(
    protocol: Any, contrast: int | None, names: tuple[str, ...] | None, limit: int
) -> None:
    waits = []
    for maps_per_image in (1, 4):
        with pretended_gpu() as gpu:
            classifier, images = Classifier.from_module(smooth().to("cuda")), pictures(2, 8).to("cuda")
            index = torch.arange(2).repeat(maps_per_image)
            maps = torch.rand(len(index), 8, 8, generator=torch.Generator().manual_seed(0)).to("cuda")
            regions = torch.ones(2, 8, 8, dtype=torch.bool)
            for _ in range(2):
                gpu.waits.clear()
                evaluate(
                    classifier,
                    images,
                    maps,
                    torch.zeros(2, dtype=torch.int64),
                    regions,
                    MetricSettings(protocol=protocol, names=names),
                    contrast=None if contrast is None else torch.full((2,), contrast),
                    index=index,
                    batch=32,
                )
        waits.append(gpu.waits)
    assert waits[0] == waits[1]
    assert waits[0].total() <= limit, waits[0]

"""A shard and a training on the pretended GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("zarr", reason="the pipeline needs Zarr, which an image for a GPU may lack")
pytest.importorskip("pyarrow", reason="the pipeline needs Arrow, which an image for a GPU may lack")
pytest.importorskip("s3fs", reason="the pipeline needs s3fs, which an image for a GPU may lack")

from hdm_core import Classifier, Preprocess
from pipeline.datasets import Sample
from pipeline.explain.results import ShardResult
from pipeline.explain.shard import explain_shard
from pipeline.plan import Shard
from pipeline.runs.records import Record
from tests.cuda.settings import SHORT
from tests.gpu.training import trained
from tests.support.colour_images import write_colour_dataset
from tests.support.cuda_module import NAME
from tests.support.plans import configuration, save_picture
from tests.support.pretended_gpu import PretendedGPU, pretended_gpu
from tests.support.tiny_networks import smooth

PREPROCESS = Preprocess(resize=16, crop=16)
METHODS = ["hdm", "gradient", "grad_cam"]


def samples(folder: Path, count: int) -> list[Sample]:
    return [
        Sample(f"{i}.png", str(save_picture(folder / f"{i}.png", seed=i)), label=i % 3, class_name="abc"[i % 3], root=str(folder))
        for i in range(count)
    ]


def shard(device: str, items: Sequence[Sample], methods: Sequence[str] = METHODS, **changes: Any) -> ShardResult:
    """Explain a shard on a device, in batches of at most 16 images, which both kinds of device take."""
    classifier = Classifier(smooth().to(device), PREPROCESS, ("a", "b", "c"), "letters")
    changes = {"compute.batch_size": 16, "compute.precision": "float32", **changes}
    config = configuration(changes, methods=list(methods), hdm=SHORT["hdm"])
    return explain_shard(classifier, config, Shard(0, 0, len(items)), items)


def comparable(records: Sequence[Record]) -> list[Record]:
    # Baselines are scored one by one on the CPU and in batches on a GPU, which rounds differently.
    scores = [
        [each and round(each, 5) for each in (record.baseline_probability, record.metrics_baseline_probability)] for record in records
    ]
    return [
        replace(record, device="", seconds=None, baseline_probability=of_method, metrics_baseline_probability=of_metrics)
        for record, (of_method, of_metrics) in zip(records, scores, strict=True)
    ]


@pytest.mark.parametrize("target", ["predicted", {"top": 2}, "label", "wrong", "runner_up", {"contrast": ["a", "c"]}], ids=str)
def test_a_shard_has_the_maps_and_records_of_the_cpu(target: Any, tmp_path: Path) -> None:
    items = samples(tmp_path, 3)
    expected = shard("cpu", items, target=target)
    with pretended_gpu():
        found = shard("cuda", items, target=target)
    assert {record.device for record in found.records} == {NAME}
    assert "ok" in {record.status for record in found.records}
    assert comparable(found.records) == comparable(expected.records)
    assert found.arrays.keys() == expected.arrays.keys()
    for name, array in expected.arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)


def waits_of(images: int, methods: Sequence[str], folder: Path, **changes: Any) -> PretendedGPU:
    """Return the waits for one batch, after a batch that builds what all batches share."""
    items = samples(folder, images)
    with pretended_gpu() as gpu:
        classifier = Classifier(smooth().to("cuda"), PREPROCESS, ("a", "b", "c"), "letters")
        config = configuration({"compute.batch_size": 64, **changes}, methods=list(methods), hdm=SHORT["hdm"])
        for _ in range(2):
            gpu.waits.clear()
            explain_shard(classifier, config, Shard(0, 0, images), items)
    return gpu


@pytest.mark.parametrize("target", ["predicted", {"top": 2}, "runner_up"], ids=str)
def test_the_waits_of_a_batch_do_not_grow_with_its_maps(target: Any, tmp_path: Path) -> None:
    few, many = (waits_of(images, ["gradient", "hdm"], tmp_path, target=target) for images in (1, 3))
    assert few.waits == many.waits


def test_a_method_adds_few_waits_to_a_batch(tmp_path: Path) -> None:
    one, two = (waits_of(3, methods, tmp_path) for methods in (["gradient"], ["gradient", "layer_cam"]))
    # Per batch 14: the index of the maps, eleven of `evaluate`, and the classes and the scores of the baseline; the images come from
    # page-locked memory. Per method five: the places of
    # its images, the check of the logits, the statuses, the numbers of the records and the maps; a CAM also copies the noise that it finds
    # its layer with.
    assert one.waits.total() <= 19, one.report()
    assert (two.waits - one.waits).total() <= 6, two.report()


def test_a_training_runs_on_the_gpu_and_has_the_weights_of_the_cpu(tmp_path: Path) -> None:
    folder = write_colour_dataset(tmp_path / "colours", per_class=4)
    expected = trained("cpu", folder)
    with pretended_gpu() as gpu:
        found = trained("cuda", folder)
        assert {value.device.type for value in found.best.values()} == {"cpu"}
    assert gpu.kernels["aten._fused_adamw_.default"]
    for name, value in expected.best.items():
        assert torch.equal(found.best[name], value), name


def test_a_training_step_waits_at_most_twice(tmp_path: Path) -> None:
    folder, waits = write_colour_dataset(tmp_path / "colours", per_class=4), []
    for batch in (4, 2):  # one and two steps per epoch, in four epochs
        with pretended_gpu() as gpu:
            trained("cuda", folder, batch)
        waits.append(gpu.waits)
    # The targets, and the images: MixUp makes new ones, which are not pinned.
    assert (waits[1] - waits[0]).total() <= 2 * 4, waits[1] - waits[0]

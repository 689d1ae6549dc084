"""Failures of one image anywhere in a shard: its records have the error, and its neighbours are as without it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from hdm_core import METHODS, Classifier, Method, Preprocess
from hdm_core.batch_limit import BatchLimit
from hdm_core.masking.ops import normalise
from hdm_core.methods import ExplainJob, RawMaps
from hdm_core.settings import Settings
from pipeline.datasets import Sample, batches
from pipeline.errors import RunError
from pipeline.explain import measure as measuring
from pipeline.explain import shard as shards
from pipeline.explain.results import ShardResult
from pipeline.explain.shard import explain_shard
from pipeline.plan import Shard
from pipeline.runs.parts import encode_records
from pipeline.storage.retry import StorageTimeoutError
from tests.support.failing_device import Calling, fail_from, room_for
from tests.support.plans import DM, configuration, save_picture
from tests.support.tiny_networks import Untraceable, smooth

SIDE, IMAGES, BAD = 16, 5, 2
PREPROCESS = Preprocess(resize=SIDE, crop=SIDE)
WHITE = 2.2  # normalised values of the white image are above, those of the photographs are not all


def is_white(images: Tensor) -> Tensor:
    return (images > WHITE).all(-1).all(-1).any(1)


def _run(job: ExplainJob, settings: Settings) -> RawMaps:
    job.passes.add(len(job.images))
    return RawMaps(normalise(job.images.sum(1, keepdim=True) + torch.arange(SIDE) / SIDE)[:, 0])


@pytest.fixture(autouse=True)
def _probe(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = Method("probe", "Probe", "tests", Settings, {"only": Settings()}, "only", _run, lambda settings, height, width: 1)
    monkeypatch.setitem(METHODS, "probe", probe)


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Photographs, and a white image in their middle."""
    paths = [save_picture(tmp_path / f"{row}.png", seed=row) for row in range(IMAGES)]
    Image.new("RGB", (24, 20), "white").save(paths[BAD])
    return [Sample(path.name, str(path), label=row % 3, root=str(tmp_path)) for row, path in enumerate(paths)]


def work(
    samples: Sequence[Sample], network: torch.nn.Module | None = None, limits: dict[str, BatchLimit] | None = None, **changes: Any
) -> ShardResult:
    classifier = Classifier(network or smooth(3), PREPROCESS, ("ant", "bee", "cat"))
    config = configuration({"compute.batch_size": 8, **changes}, methods=["probe", "grad_cam"], dm=DM)
    return explain_shard(classifier, config, Shard(0, 0, len(samples)), samples, limits=limits)


class Failing(Untraceable):
    """Network that fails on batches for which a condition holds."""

    def __init__(self, network: torch.nn.Module, fails: Callable[[Tensor], bool]) -> None:
        super().__init__(network)
        self._fails = fails

    def forward(self, images: Tensor) -> Tensor:
        if self._fails(images):
            raise RuntimeError("no rank 4\ntensor")
        return super().forward(images)


def fail_decoding(patch: pytest.MonkeyPatch) -> str:
    read = batches.read_image

    def read_image(sample: Sample, *args: Any) -> Any:
        if sample.image_id == f"{BAD}.png":
            raise KeyError("NEAREST_EXACT")
        return read(sample, *args)

    patch.setattr(batches, "read_image", read_image)
    return "KeyError: 'NEAREST_EXACT'"


def fail_region(patch: pytest.MonkeyPatch) -> str:
    read = batches.read_region

    def read_region(sample: Sample, *args: Any) -> Any:
        if sample.image_id == f"{BAD}.png":
            raise IndexError("no such pixel")
        return read(sample, *args)

    patch.setattr(batches, "read_region", read_region)
    return "IndexError: no such pixel"


def fail_preparing(patch: pytest.MonkeyPatch) -> str:
    prepare = Preprocess.__call__

    def call(self: Preprocess, image: Image.Image) -> Tensor:
        if image.getextrema() == ((255, 255),) * 3:
            raise ZeroDivisionError("no contrast")
        return prepare(self, image)

    patch.setattr(Preprocess, "__call__", call)
    return "ZeroDivisionError: no contrast"


def fail_other_size(patch: pytest.MonkeyPatch) -> str:
    """Preprocess one image to another size, so that the batch cannot be stacked and the image does not fit the maps."""
    prepare = Preprocess.__call__

    def call(self: Preprocess, image: Image.Image) -> Tensor:
        tensor = prepare(self, image)
        return tensor[:, :, :9] if image.getextrema() == ((255, 255),) * 3 else tensor

    patch.setattr(Preprocess, "__call__", call)
    return ""


def fail_requests(patch: pytest.MonkeyPatch) -> str:
    request = shards.request_maps

    def request_maps(target: Any, classifier: Classifier, samples: Sequence[Sample], images: Tensor, limit: BatchLimit) -> Any:
        if is_white(images).any():
            raise IndexError("selected index k out of range")
        return request(target, classifier, samples, images, limit)

    patch.setattr(shards, "request_maps", request_maps)
    return "IndexError: selected index k out of range"


def fail_collecting(patch: pytest.MonkeyPatch) -> str:
    collect = shards._collect

    def broken(classifier: Classifier, batch: Any, collector: Any, result: Any) -> Any:
        explained = collect(classifier, batch, collector, result)
        if is_white(batch.images[[request.place for request in result.requests]]).any():
            raise UnicodeError("no such letter")
        return explained

    patch.setattr(shards, "_collect", broken)
    return "UnicodeError: no such letter"


def fail_measuring(patch: pytest.MonkeyPatch) -> str:
    evaluate = measuring.evaluate

    def broken(classifier: Classifier, images: Tensor, *args: Any, **keys: Any) -> Any:
        if is_white(images).any():
            raise RuntimeError("required rank 4 tensor")
        return evaluate(classifier, images, *args, **keys)

    patch.setattr(measuring, "evaluate", broken)
    return "RuntimeError: required rank 4 tensor (while the map was measured)"


@pytest.mark.parametrize(
    "fail",
    [fail_decoding, fail_region, fail_preparing, fail_other_size, fail_requests, fail_collecting, fail_measuring],
    ids=lambda fail: fail.__name__,
)
def test_an_image_that_fails_anywhere_has_the_error_in_its_records_and_costs_no_other(
    fail: Callable[[pytest.MonkeyPatch], str], samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = work([sample for row, sample in enumerate(samples) if row != BAD])
    error = fail(monkeypatch)
    result = work(samples)
    assert len(encode_records(result.records)["records"]) > 0
    assert [record.status for record in result.records if record.row != BAD] == ["ok"] * 8
    bad = [record for record in result.records if record.row == BAD]
    assert [record.status for record in bad] == ["failed"] * 2
    for record in bad:
        assert record.error is not None
        assert record.error.startswith(error)
        assert "\n" not in record.error
        assert (record.target, record.probability, record.deletion) == (None, None, None)
    for name, array in result.arrays.items():
        assert not array[BAD].any(), "a failed map is zeros"
        np.testing.assert_allclose(np.delete(array, BAD, axis=0), expected.arrays[name], rtol=0, atol=2e-3)
    assert all(record.metrics["average_drop_80"] is not None for record in result.records if record.row != BAD)


def test_a_network_that_fails_on_every_image_gives_records_with_its_error(samples: list[Sample]) -> None:
    records = work(samples, Failing(smooth(3), lambda images: True)).records
    assert {(record.status, record.error) for record in records} == {("failed", "RuntimeError: no rank 4 tensor")}
    assert len(records) == 2 * IMAGES


def test_a_network_that_cannot_be_measured_gives_records_with_its_error(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("required rank 4 tensor")

    monkeypatch.setattr(measuring, "evaluate", broken)
    result = work(samples)
    measured = [record for record in result.records if record.status != "flat"]
    assert {(record.status, record.error) for record in measured} == {
        ("failed", "RuntimeError: required rank 4 tensor (while the map was measured)")
    }
    assert not any(array.any() for array in result.arrays.values())


def test_a_class_without_a_name_costs_only_the_images_of_that_class(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = {record.row: record.target for record in work(samples, target="label").records}
    monkeypatch.setattr(Classifier, "class_name", lambda self, target: ("ant", "bee")[target])
    records = work(samples, target="label").records
    for record in records:
        assert (record.status == "failed") == (expected[record.row] == 2)
        assert record.status != "failed" or record.error == "IndexError: tuple index out of range"
    assert {record.status for record in records} >= {"ok", "failed"}


def test_a_class_name_that_is_no_unicode_is_written_with_escapes(samples: list[Sample]) -> None:
    classifier = Classifier(smooth(3), PREPROCESS, ("a\udcff", "a\udcff", "a\udcff"))
    config = configuration({"compute.batch_size": 8}, methods=["grad_cam"], dm=DM)
    records = explain_shard(classifier, config, Shard(0, 0, IMAGES), samples).records
    assert {record.target_name for record in records} == {"a\\udcff"}
    assert encode_records(records)


def test_a_warning_is_no_failure_even_where_python_is_strict(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    read = batches.read_image

    def read_image(*args: Any) -> Any:
        warnings.warn("this image has 100 megapixels", Image.DecompressionBombWarning, stacklevel=1)
        return read(*args)

    monkeypatch.setattr(batches, "read_image", read_image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.MonkeyPatch.context() as patch:
            shown: list[str] = []
            patch.setattr(warnings, "showwarning", lambda message, *_: shown.append(str(message)))
            records = work(samples).records
        assert warnings.filters[0][0] == "error", "the filters are restored"
    assert {record.status for record in records} <= {"ok", "flat"}
    assert "this image has 100 megapixels" in shown


def test_storage_that_does_not_answer_is_no_fault_of_the_image(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    def read_image(*_: Any) -> None:
        raise StorageTimeoutError("s3://data has not answered for 600 seconds")

    monkeypatch.setattr(batches, "read_image", read_image)
    with pytest.raises(RunError, match="has not answered"):
        work(samples)


def test_memory_of_the_gpu_that_is_short_while_measuring_fails_the_shard_so_that_it_is_tried_again(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One map after another is tried last; before, all were tried alone after the first failure."""
    sizes: list[int] = []

    def broken(classifier: Classifier, images: Tensor, *_: Any, **__: Any) -> None:
        sizes.append(len(images))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(measuring, "evaluate", broken)
    with pytest.raises(torch.OutOfMemoryError, match="one image does not fit into the device's free memory: start fewer workers per GPU"):
        work(samples)
    assert sizes[0] > 2
    assert sizes[-1] == 1
    assert all(later <= earlier for earlier, later in pairwise(sizes[:4]))


def room(images: int) -> Calling:
    return Calling(smooth(3), room_for(images))


def same(found: ShardResult, expected: ShardResult) -> bool:
    """Compare two results but for the seconds."""
    timeless = [[replace(record, seconds=None) for record in result.records] for result in (found, expected)]
    return timeless[0] == timeless[1] and all(np.array_equal(found.arrays[name], array) for name, array in expected.arrays.items())


@pytest.mark.parametrize("target", ["predicted", {"top": 2}, "wrong"], ids=str)
def test_a_shard_that_runs_out_of_memory_has_the_maps_of_the_batch_that_fits_and_logs_it_once(
    target: Any, samples: list[Sample], caplog: pytest.LogCaptureFixture
) -> None:
    expected = work(samples, room(2), **{"compute.batch_size": 2, "target": target})
    assert not caplog.records
    limits: dict[str, BatchLimit] = {}
    assert same(work(samples, room(2), limits, target=target), expected)
    halved = [
        f"{name}: out of memory with batches of 8 images; from here on they have at most 2" for name in limits if limits[name].size < 8
    ]
    assert [record.getMessage() for record in caplog.records] == halved
    assert {"grad_cam", "metrics"} <= {name for name, limit in limits.items() if limit.size == 2}
    assert same(work(samples, room(2), limits, target=target), expected)
    assert len(caplog.records) == len(halved), "the next shard of the worker begins with what fitted"


def test_an_image_that_does_not_fit_alone_has_an_error_with_the_remedy(samples: list[Sample]) -> None:
    records = [record for record in work(samples, room(0)).records if record.method == "grad_cam"]
    error = (
        "OutOfMemoryError: one image does not fit into the device's free memory: start fewer workers per GPU (a larger "
        "compute.gpus_per_worker), or make images smaller (classifier.resize and classifier.crop) (CUDA out of memory)"
    )
    assert {(record.status, record.error) for record in records} == {("failed", error)}


def test_other_errors_of_one_image_still_cost_the_others_nothing_where_memory_is_short(samples: list[Sample]) -> None:
    def before(images: Tensor) -> None:
        room_for(2)(images)
        if is_white(images).any():
            raise RuntimeError("no rank 4 tensor")

    records = work(samples, Calling(smooth(3), before)).records
    assert {record.row for record in records if record.status == "failed"} == {BAD}


@pytest.mark.parametrize("once", [False, True], ids=["for_ever", "once"])
@pytest.mark.parametrize("target", ["predicted", {"top": 2}], ids=str)
def test_a_device_that_fails_at_any_call_fails_the_shard_and_no_image(target: Any, once: bool, samples: list[Sample]) -> None:
    """Before, every image got a record with the status failed, and the shard was committed."""
    before, count = fail_from(10**9)
    assert {record.status for record in work(samples, Calling(smooth(3), before), target=target).records} <= {"ok", "flat"}
    for call in range(1, count.calls + 1, 1 + count.calls // 12):
        with pytest.raises(torch.AcceleratorError, match="illegal memory access"):
            work(samples, Calling(smooth(3), fail_from(call, once=once)[0]), target=target)


def test_a_device_that_fails_while_an_image_is_preprocessed_fails_the_shard(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    def read_region(*_: Any) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(batches, "read_region", read_region)
    with pytest.raises(torch.AcceleratorError):
        work(samples)

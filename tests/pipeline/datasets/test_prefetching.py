"""Reading of batches ahead of the caller: order, errors, memory and threads."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from hdm_core import Classifier, Preprocess
from pipeline.datasets import Sample, batches
from pipeline.datasets.batches import UnreadableSample, read_batches
from pipeline.explain import shard as shards
from pipeline.explain.shard import explain_shard
from pipeline.plan import Shard
from pipeline.storage.retry import StorageTimeoutError
from tests.support.cuda_rules import Memory, memory_of
from tests.support.plans import configuration, save_picture
from tests.support.pretended_gpu import pretended_gpu
from tests.support.tiny_networks import smooth

PREPROCESS = Preprocess(resize=16, crop=16)
SECONDS = 60.0  # an event that does not come within them fails the test


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    paths = [save_picture(tmp_path / f"{row}.png", seed=row) for row in range(6)]
    return [Sample(path.name, str(path), label=row % 3, root=str(tmp_path)) for row, path in enumerate(paths)]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Images in the order in which their reading began."""
    began: list[str] = []
    before_reading(monkeypatch, lambda sample: began.append(sample.image_id))
    return began


def before_reading(monkeypatch: pytest.MonkeyPatch, action: Callable[[Sample], object]) -> None:
    read = batches.read_image

    def read_image(sample: Sample, *args: Any) -> Any:
        action(sample)
        return read(sample, *args)

    monkeypatch.setattr(batches, "read_image", read_image)


def names(*rows: int) -> set[str]:
    return {f"{row}.png" for row in rows}


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.01)


def work(samples: list[Sample], **changes: Any) -> Any:
    config = configuration({"compute.batch_size": 2, **changes}, methods=["grad_cam"])
    return explain_shard(Classifier(smooth(3), PREPROCESS, ("a", "b", "c")), config, Shard(0, 0, len(samples)), samples)


def test_the_next_batch_is_read_while_the_present_one_is_explained(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each batch but the last waits in its explanation for the next one to be preprocessed: without prefetching that would never end."""
    preprocessed = threading.Semaphore(0)
    prepare, explain = Preprocess.__call__, shards._explain_batch
    seen: list[int] = []

    def call(self: Preprocess, image: Any) -> Tensor:
        tensor = prepare(self, image)
        preprocessed.release()
        return tensor

    def explain_batch(classifier: Classifier, config: Any, batch: Any, *arguments: Any) -> None:
        explain(classifier, config, batch, *arguments)
        seen.extend(batch.rows)
        expected = 4 if seen == [0, 1] else 2
        if len(seen) < len(samples):
            assert all(preprocessed.acquire(timeout=SECONDS) for _ in range(expected)), "the next batch must be ready by now"

    monkeypatch.setattr(Preprocess, "__call__", call)
    monkeypatch.setattr(shards, "_explain_batch", explain_batch)
    work(samples)
    assert seen == list(range(6))


def test_at_most_one_batch_is_read_ahead(samples: list[Sample], reads: list[str]) -> None:
    with closing(read_batches(samples, {}, PREPROCESS, 2, timeout=10)) as read:
        assert reads == [], "nothing is read before it is needed"
        next(read)
        wait_for(lambda: set(reads) == names(0, 1, 2, 3))
        time.sleep(0.1)
        assert set(reads) == names(0, 1, 2, 3)
        next(read)
        wait_for(lambda: set(reads) == names(0, 1, 2, 3, 4, 5))


def test_at_most_two_batches_are_in_memory(samples: list[Sample]) -> None:
    images: list[weakref.ref[Tensor]] = []
    for batch in read_batches(samples, {}, PREPROCESS, 1, timeout=10):
        assert batch.images is not None
        images.append(weakref.ref(batch.images))
        gc.collect()
        assert sum(image() is not None for image in images) == 1, "batches that the caller has left are freed"


@pytest.mark.parametrize("batch", [1, 2, 4, 6, 64])
@pytest.mark.parametrize("threads", [1, 2])
def test_order_and_bits_are_those_of_reading_one_after_another(samples: list[Sample], batch: int, threads: int) -> None:
    expected = [PREPROCESS(batches.read_image(sample, {}, PREPROCESS).image) for sample in samples]
    torch.set_num_threads(threads)
    try:
        read = list(read_batches(samples, {}, PREPROCESS, batch, [5, 0, 1, 3], timeout=10))
    finally:
        torch.set_num_threads(1)
    items = [item for part in read for item in part.loaded]
    assert [item.row for item in items] == [5, 0, 1, 3]
    assert all(torch.equal(item.image, expected[item.row]) for item in items)
    stacks = [part.images for part in read if part.images is not None]
    assert torch.equal(torch.cat(stacks), torch.stack([expected[row] for row in (5, 0, 1, 3)]))


def test_preprocessing_that_fails_costs_its_image_and_keeps_the_facts_of_its_file(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    (expected,) = read_batches(samples[:1], {}, PREPROCESS, 1, timeout=10)

    def fail(*_: Any) -> Tensor:
        raise ZeroDivisionError("no contrast\nat all")

    monkeypatch.setattr(Preprocess, "__call__", fail)
    (batch,) = read_batches(samples[:1], {}, PREPROCESS, 1, timeout=10)
    (item,) = batch.items
    assert batch.images is None
    assert isinstance(item, UnreadableSample)
    assert (item.status, item.error) == ("failed", "ZeroDivisionError: no contrast at all")
    assert item.image_facts == expected.items[0].image_facts


def test_storage_that_does_not_answer_fails_the_batch_in_which_it_happened(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(sample: Sample) -> None:
        if sample.image_id == "3.png":
            raise StorageTimeoutError("s3://data has not answered for 600 seconds")

    before_reading(monkeypatch, fail)
    with closing(read_batches(samples, {}, PREPROCESS, 2, timeout=10)) as read:
        assert [item.row for item in next(read).items] == [0, 1]
        with pytest.raises(StorageTimeoutError):
            next(read)
    assert reader_threads() == []


def test_a_shard_that_fails_ends_its_threads_and_reads_no_further(
    samples: list[Sample], reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(shards, "_explain_batch", fail)
    with pytest.raises(torch.AcceleratorError):
        work(samples)
    assert reader_threads() == []
    assert set(reads) <= names(0, 1, 2, 3)


def test_lines_that_threads_log_reach_the_handlers(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A worker's LogBuffer is such a handler."""
    before_reading(monkeypatch, lambda sample: logging.getLogger("pipeline.storage").warning("retry of %s", sample.image_id))
    work(samples)
    assert {record.getMessage() for record in caplog.records} == {f"retry of {name}" for name in names(*range(6))}
    assert {record.threadName.partition("_")[0] for record in caplog.records if record.threadName} == {"reader"}


def test_a_classifier_with_a_preparation_of_its_own_is_given_the_decoded_images(samples: list[Sample]) -> None:
    class Negative(Classifier):
        def prepare(self, images: Any) -> Tensor:
            return -super().prepare(images)

    config = configuration({"compute.batch_size": 2}, methods=["gradient"])
    own = explain_shard(Negative(smooth(3), PREPROCESS, ("a", "b", "c")), config, Shard(0, 0, 6), samples)
    plain = explain_shard(Classifier(smooth(3), PREPROCESS, ("a", "b", "c")), config, Shard(0, 0, 6), samples)
    assert {record.status for record in own.records} == {"ok"}
    assert [record.logit for record in own.records] != [record.logit for record in plain.records]
    (batch,) = read_batches(samples, {}, PREPROCESS, 6, timeout=10)
    with torch.no_grad():
        logits = smooth(3)(-batch.images).amax(1)
    np.testing.assert_allclose([record.logit for record in own.records], logits, atol=1e-5)


def test_nothing_is_pinned_for_the_cpu(samples: list[Sample], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "pin_memory", lambda *_: pytest.fail("pinned"))
    work(samples)


def test_images_for_a_gpu_are_pinned_on_the_threads_and_their_copy_waits_for_nothing(samples: list[Sample]) -> None:
    with pretended_gpu() as gpu:
        (batch,) = read_batches(samples, {}, PREPROCESS, 6, timeout=10, pin_memory=True)
        assert batch.images is not None
        assert {memory_of(image) for image in (batch.images, *(item.image for item in batch.loaded))} == {Memory.PINNED}
        batch.images.to("cuda", torch.float32, non_blocking=True)
        assert not gpu.waits


def test_memory_that_cannot_be_pinned_is_a_line_and_costs_nothing(
    samples: list[Sample], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> Tensor:
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(Tensor, "pin_memory", fail)
    (batch,) = read_batches(samples, {}, PREPROCESS, 6, timeout=10, pin_memory=True)
    assert len(batch.loaded) == 6
    assert "no page-locked memory for a batch of images: CUDA error: out of memory; copies to the GPU wait" in caplog.text

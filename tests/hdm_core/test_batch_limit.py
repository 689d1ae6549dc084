"""Memory that runs out: the batch is halved, for good, and the maps and numbers are those of the smaller batch."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch

from hdm_core import METHODS, Classifier, Preprocess, evaluate, explain, explain_with, get_method
from hdm_core.batch_limit import BatchLimit
from tests.support.failing_device import PLAIN, QUICK, Calling, room_for
from tests.support.tiny_networks import pictures, smooth

ERRORS = {
    "torch": lambda: torch.OutOfMemoryError("CUDA out of memory"),
    "cuDNN": lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "cuBLAS": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
}


def small(images: int, error: Callable[[], RuntimeError] = ERRORS["torch"]) -> Classifier:
    return Classifier(Calling(smooth(3), room_for(images, error)).eval(), Preprocess(resize=16, crop=16))


def halving(limit: BatchLimit, fits: int, error: Callable[[], RuntimeError] = ERRORS["torch"]) -> list[int]:
    """Run work that fits up to a size; return the sizes that were tried."""
    sizes: list[int] = []

    def work(size: int) -> None:
        sizes.append(size)
        if size > fits:
            raise error()

    limit.run(work)
    return sizes


@pytest.mark.parametrize("library", ERRORS)
def test_the_size_is_halved_until_it_fits_and_the_next_work_begins_there(library: str, caplog: pytest.LogCaptureFixture) -> None:
    limit = BatchLimit(50, "rise")
    assert halving(limit, 6, ERRORS[library]) == [50, 25, 13, 7, 4]
    assert halving(limit, 6) == [4]
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.WARNING, "rise: out of memory with batches of 50 images; from here on they have at most 4")
    ]


def test_one_image_that_does_not_fit_and_other_errors_are_raised() -> None:
    limit = BatchLimit(4, "rise")
    with pytest.raises(torch.OutOfMemoryError):
        halving(limit, 0)
    assert limit.size == 1
    limit = BatchLimit(4, "rise")
    with pytest.raises(RuntimeError, match="NOT_SUPPORTED"):
        halving(limit, 2, lambda: RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"))
    assert limit.size == 4


@pytest.mark.parametrize("method", PLAIN)
def test_a_method_that_runs_out_of_memory_gives_the_maps_of_the_batch_that_fits(method: str, caplog: pytest.LogCaptureFixture) -> None:
    images, settings = pictures(7, 16), get_method(method).configure(**QUICK.get(method, {}))
    expected = explain_with(small(2), images, method, settings, batch=2)
    limit = BatchLimit(8, method)
    found = explain_with(small(2), images, method, settings, batch=limit)
    assert limit.size == 2
    assert torch.equal(found.maps, expected.maps)
    assert torch.equal(found.logits, expected.logits)
    assert (found.status, found.passes) == (expected.status, expected.passes)
    assert [record.getMessage() for record in caplog.records] == [
        f"{method}: out of memory with batches of 8 images; from here on they have at most 2"
    ]
    again = explain_with(small(2), images, method, settings, batch=limit)
    assert torch.equal(again.maps, expected.maps)
    assert len(caplog.records) == 1, "the next call begins with what fitted"


@pytest.mark.parametrize("method", ["dm", "mask", "rise", "gradient", "deeplift", "integrated_gradients", "grad_cam", "full_grad"])
def test_on_a_cpu_the_smaller_batch_changes_no_bit(method: str) -> None:
    known, images = Classifier.from_torchvision("mobilenet_v2"), pictures(6, 64)
    settings = get_method(method).configure(**QUICK.get(method, {}))
    tight, free = (
        explain_with(Classifier(Calling(known.module, room_for(room)).eval(), known.preprocess), images, method, settings, batch=8)
        for room in (4, 8)
    )
    assert torch.equal(tight.maps, free.maps)


def test_metrics_are_halved_too(caplog: pytest.LogCaptureFixture) -> None:
    images, maps = pictures(3, 16), torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    expected = evaluate(small(99), images, maps, [0, 1, 2], batch=16)
    limit = BatchLimit(16, "metrics")
    found = evaluate(small(4), images, maps, [0, 1, 2], batch=limit)
    assert limit.size == 4
    for name, values in expected.values.items():
        torch.testing.assert_close(found.values[name], values, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(found.deletion, expected.deletion)
    assert torch.equal(found.insertion, expected.insertion)
    assert len(caplog.records) == 1


def test_explain_halves_for_its_own_call_alone(caplog: pytest.LogCaptureFixture) -> None:
    classifier, images = small(4), pictures(7, 16)
    for _ in range(2):
        assert explain(classifier, images, "gradient", batch=8).status == ["ok"] * 7
    assert len(caplog.records) == 2, "memory may be free again: each call begins with its own batch"


def test_a_network_for_which_one_image_is_too_much_is_an_error() -> None:
    for method in ("gradient", "hdm", "rise"):
        with pytest.raises(torch.OutOfMemoryError):
            explain_with(small(0), pictures(2, 16), method, METHODS[method].configure(**QUICK.get(method, {})), batch=4)

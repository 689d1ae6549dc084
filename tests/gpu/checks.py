"""Checks of a device that the tests on a GPU and those on the pretended one share."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hdm_core import METHODS, Classifier, Explanation, explain_with, get_method
from hdm_core.batch_limit import BatchLimit
from hdm_core.cuda_graphs import captured_graphs
from hdm_core.device import Precision
from tests.cuda.settings import NETWORKS, SHORT, explained
from tests.support.tiny_networks import pictures

PRECISIONS: tuple[Precision, ...] = ("float32", "tf32", "bfloat16")
# Methods whose network computes in the precision that is set; that of all others computes in float32.
BY_PRECISION = ("hdm", "dm", "rise")

# Largest difference of a float32 map from the CPU's: sums are rounded in another order, which Adam and the normalisation amplify.
_DIFFERENCE = 1e-2
# Lowest correlation of a map in tf32 or bfloat16 with the CPU's in float32.
_CORRELATION = 0.9


def network_for(method: str) -> nn.Module:
    """Build a network that the method explains."""
    return NETWORKS["attention" if METHODS[method].needs_attention else "normalised"]()


def check_agreement(method: str, precision: Precision, device: str) -> None:
    """Compare a method's maps on the device with those of the CPU in float32."""
    images = pictures(3, 16)
    expected = explained(network_for(method), images, method, precision="float32")
    network = network_for(method).to(device)
    found = explained(network, images, method, precision=precision)
    assert found.maps.device.type == device
    assert found.status == expected.status
    assert torch.equal(found.targets.cpu(), expected.targets)
    if precision == "float32":
        torch.testing.assert_close(found.maps.cpu(), expected.maps, rtol=0, atol=_DIFFERENCE)
    elif method in BY_PRECISION:
        for one, other in zip(found.maps.cpu(), expected.maps, strict=True):
            assert correlation(one, other) > _CORRELATION
    else:
        assert torch.equal(found.maps, explained(network, images, method, precision="float32").maps)


def check_same_bits_twice(method: str, precision: Precision, device: str) -> None:
    """Compare the maps of two calls, and of a network that is built again."""
    images = pictures(3, 16)
    network = network_for(method).to(device)
    first, second = (explained(network, images, method, precision=precision) for _ in range(2))
    rebuilt = explained(network_for(method).to(device), images, method, precision=precision)
    for other in (second, rebuilt):
        assert torch.equal(other.maps, first.maps)
        assert torch.equal(other.logits, first.logits)


def check_graphs(method: str, precision: Precision, device: str) -> None:
    """Compare the maps of captured passes with those of passes that are not captured."""
    gc.collect()  # graphs of networks that other tests have left
    images, before = pictures(3, 16), captured_graphs()
    without = explained(network_for(method).to(device), images, method, precision=precision, cuda_graphs=False)
    assert captured_graphs() == before
    network = network_for(method).to(device)
    found = explained(network, images, method, precision=precision)
    captured = captured_graphs()
    assert captured > before, "no pass was captured"
    again = explained(network, images, method, precision=precision)
    assert captured_graphs() == captured, "the second call replays the graphs of the first"
    assert torch.equal(again.maps, found.maps)
    assert found.status == without.status
    # A graph has a fixed number of rows, and with another number of rows kernels round otherwise.
    if precision == "float32":
        torch.testing.assert_close(found.maps, without.maps, rtol=0, atol=_DIFFERENCE)
    for one, other in zip(found.maps.cpu(), without.maps.cpu(), strict=True):
        assert correlation(one, other) > _CORRELATION


class ReadingNetwork(nn.Module):
    """Network whose forward reads a number of the device, which a capture does not permit."""

    def __init__(self) -> None:
        super().__init__()
        self.network = NETWORKS["normalised"]()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        return logits + 0 * logits.detach().sum().item()


def check_fallback(device: str) -> None:
    """Explain a network that cannot be captured: the maps are right, and the log says why once."""
    gc.collect()
    images = pictures(3, 16)
    expected = explained(ReadingNetwork(), images, "hdm", precision="float32")
    network, before = ReadingNetwork().to(device), captured_graphs()
    with warnings_of("hdm_core") as messages:
        first, second = (explained(network, images, "hdm", precision="float32") for _ in range(2))
    assert captured_graphs() == before
    torch.testing.assert_close(first.maps.cpu(), expected.maps, rtol=0, atol=_DIFFERENCE)
    assert torch.equal(second.maps, first.maps)
    assert len([message for message in messages if "captured" in message]) == 1, messages


def check_halving(classifier: Classifier, images: Tensor, batch: int) -> tuple[int, Explanation]:
    """Explain with a batch that does not fit into memory; return the one that does, and the result."""
    limit = BatchLimit(batch, "hdm")
    result = explain_with(classifier, images, "hdm", get_method("hdm").configure(**SHORT["hdm"]), batch=limit)
    assert limit.size < batch, "memory did not run out"
    assert len(result.status) == len(images)
    assert "nan" not in result.status
    return limit.size, result


def correlation(one: Tensor, other: Tensor) -> float:
    """Return Pearson's correlation of two maps; 1 for equal ones, which may be flat."""
    return 1.0 if torch.equal(one, other) else float(torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1])


@contextmanager
def warnings_of(name: str) -> Iterator[list[str]]:
    """Collect the messages of warnings that a logger gets."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger(name)
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)

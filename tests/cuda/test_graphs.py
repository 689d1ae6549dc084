"""Passes as CUDA graphs, on the pretended GPU: the same maps, few captures, and a way back where none is possible."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, fx, nn

from hdm_core import Classifier, explain, explain_with, get_method
from hdm_core.batch_limit import BatchLimit
from hdm_core.cuda_graphs import captured_graphs, release_graphs
from hdm_core.masking.passes import PassInputs, parts
from tests.cuda.settings import explained
from tests.support.pretended_gpu import PretendedGPU, pretended_gpu
from tests.support.tiny_networks import pictures, smooth

CASES: list[tuple[str, dict[str, Any]]] = [
    ("dm", {}),
    ("dm", {"noise": 0.5, "relative": True}),
    ("dm", {"noise": 0.5, "removal": 0.1, "sizes": (4, 5, 7)}),
    ("dm", {"activation": "probability", "baseline": "blur"}),
    ("dm", {"target": 1, "contrast": 0}),
    ("dm", {"views": ("top", "rest"), "loss": "linear", "activation": "log_odds", "start": "cam", "noise": 0.5, "calibration": (0.1, 0.4)}),
    ("dm", {"ensemble": ({"activation": "log_odds", "loss": "hinge"},)}),
    ("hdm", {"stages": 3, "noise": 0.5}),
    ("mask", {}),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(("method", "changes"), CASES)
def test_maps_are_those_without_graphs(method: str, changes: dict[str, Any], precision: str) -> None:
    """The numbers of images are not multiples of a batch: graphs have rows that are not used."""
    for count in (1, 3, 7):
        images = pictures(count, 16)
        with pretended_gpu() as gpu:
            network = smooth().to("cuda")
            plain = explained(network, images, method, precision=precision, cuda_graphs=False, **changes)
            assert gpu.graphs.captures == 0
            replayed = explained(network, images, method, precision=precision, **changes)
            assert gpu.graphs.replays > 1
            assert torch.equal(replayed.maps.cpu(), plain.maps.cpu())
            assert replayed.passes == plain.passes


def test_graphs_outlive_an_explanation() -> None:
    """Other images, targets and settings are copied into the tensors that the graphs read."""
    with pretended_gpu() as gpu:
        network = smooth().to("cuda")
        for count, changes in ((4, {"target": 0}), (3, {"target": 1, "relative": True}), (2, {"noise": 0.5, "sizes": (3, 5)})):
            images = pictures(count, 16) + count
            found = explained(network, images, "dm", **changes)
            plain = explained(network, images, "dm", cuda_graphs=False, **changes)
            assert torch.equal(found.maps.cpu(), plain.maps.cpu())
        assert gpu.graphs.captures <= 2, "one of a batch, one of a quarter"


def test_changed_weights_are_captured_again() -> None:
    images = pictures(2, 16)
    with pretended_gpu() as gpu:
        network = smooth().to("cuda")
        before = explained(network, images, "dm").maps.cpu()
        captures = gpu.graphs.captures
        with torch.no_grad():
            next(network.parameters()).neg_()
        after = explained(network, images, "dm")
        assert gpu.graphs.captures == 2 * captures
        assert torch.equal(after.maps.cpu(), explained(network, images, "dm", cuda_graphs=False).maps.cpu())
        assert not torch.equal(after.maps.cpu(), before)


def test_graphs_end_with_their_network() -> None:
    release_graphs()
    with pretended_gpu():
        network = smooth().to("cuda")
        explained(network, pictures(2, 16), "dm")
        assert captured_graphs() > 0
        del network
        gc.collect()
        assert captured_graphs() == 0


def test_a_pass_of_a_network_is_fewer_kernels_and_casts_no_weight() -> None:
    """Counted in a pass of two images by MobileNetV2-like layers: in autocast, and by the copy in bfloat16."""
    convolution = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)
    network = nn.Sequential(*convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    images = pictures(2, 16)

    def kernels(copy_in_bfloat16: bool) -> PretendedGPU:
        with pretended_gpu() as gpu:
            classifier = Classifier.from_module(network.eval().to("cuda"))
            with classifier.folded(images.to("cuda"), "bfloat16" if copy_in_bfloat16 else "float32") as folded:
                shown = images.to("cuda").requires_grad_()
                gpu.kernels.clear()
                with torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
                    torch.autograd.grad(folded(shown).sum(), shown)
        return gpu

    before, after = kernels(False), kernels(True)
    assert before.kernels["aten._to_copy.default"] - after.kernels["aten._to_copy.default"] == 2, "weights and bias of the convolution"
    assert after.kernels["aten.clone.default"] == 0
    assert after.kernels.total() < before.kernels.total()


@fx.wrap
def on_the_host(x: Tensor) -> Tensor:
    return x * (2.0 if float(x.detach().sum()) > 1e9 else 1.0)


class ReadsANumber(nn.Module):
    """Network that can be folded, as torch.fx does not look into its function, and waits for a number in each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = smooth()

    def forward(self, images: Tensor) -> Tensor:
        return on_the_host(self.inner(images))


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "CUDA graph" in record.getMessage()]


def test_a_network_that_cannot_be_captured_is_explained_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    images = pictures(2, 16)
    with pretended_gpu() as gpu, caplog.at_level(logging.WARNING):
        network = ReadsANumber().eval().to("cuda")
        for _ in range(2):
            found = explained(network, images, "hdm", precision="float32")
        plain = explained(network, images, "hdm", precision="float32", cuda_graphs=False)
        assert torch.equal(found.maps.cpu(), plain.maps.cpu())
        assert (gpu.graphs.captures, gpu.graphs.replays) == (2, 0), "the second one sets torch's random generator right"
    assert len(lines(caplog)) == 1
    assert "operation not permitted when stream is capturing" in lines(caplog)[0]


class ReadsANumberUnfolded(ReadsANumber):
    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.inner(images)
        return logits if float(logits.detach().sum()) < 1e9 else -logits


def test_a_network_that_has_no_folded_copy_is_never_captured(caplog: pytest.LogCaptureFixture) -> None:
    with pretended_gpu() as gpu, caplog.at_level(logging.WARNING):
        assert explained(ReadsANumberUnfolded().eval().to("cuda"), pictures(2, 16), "dm").status == ["ok", "ok"]
        assert gpu.graphs.captures == 0


@pytest.mark.parametrize("forgotten", ["masks", "contrast", "background", "targets", "reference", "scale"])
def test_a_graph_that_misses_an_input_is_noticed(forgotten: str, caplog: pytest.LogCaptureFixture) -> None:
    """The first replay of every explanation is compared with the pass itself."""
    copy_: Callable[[PassInputs, PassInputs], None] = PassInputs.copy_
    changes: dict[str, Any] = {"preset": "fast", "precision": "float32"}

    def copy_the_others(self: PassInputs, inputs: PassInputs) -> None:
        before = getattr(self, forgotten).clone()
        copy_(self, inputs)
        getattr(self, forgotten).copy_(before)

    with pretended_gpu(), caplog.at_level(logging.WARNING):
        network = smooth().to("cuda")
        explained(network, pictures(2, 16), "dm", target=0, **changes)
        images = pictures(4, 16)[2:] * 2
        with mock.patch.object(PassInputs, "copy_", copy_the_others):
            found = explained(network, images, "dm", target=1, **changes)
        expected = explained(network, images, "dm", target=1, cuda_graphs=False, **changes)
        assert torch.equal(found.maps.cpu(), expected.maps.cpu())
    assert ["another gradient" in line for line in lines(caplog)] == [True]


CAPTURES = SimpleNamespace(recorder=None)  # not in the network, whose copy would have a recorder of its own


@fx.wrap
def without_memory_in_a_capture(logits: Tensor) -> Tensor:
    if len(logits) > 4 and CAPTURES.recorder.calls is not None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
    return logits


class Hungry(nn.Module):
    """Network that runs out of memory with more than four images, in a capture alone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = smooth()

    def forward(self, images: Tensor) -> Tensor:
        return without_memory_in_a_capture(self.inner(images))


def test_a_capture_without_memory_halves_the_batch() -> None:
    images, settings = pictures(16, 16), {"sizes": (4,), "ratios": (2,), "steps": 2}
    with pretended_gpu() as gpu:
        CAPTURES.recorder = gpu.graphs
        classifier, limit = Classifier.from_module(Hungry().eval().to("cuda")), BatchLimit(16, "dm")
        found = explain_with(classifier, images, "dm", get_method("dm").configure(None, **settings), batch=limit, precision="float32")
        assert limit.size == 4
        assert gpu.graphs.replays > 0
        expected = explain(classifier, images, "dm", batch=16, precision="float32", cuda_graphs=False, **settings)
        assert torch.equal(found.maps.cpu(), expected.maps.cpu())


def test_memory_of_graphs_is_given_back_before_a_batch_is_halved() -> None:
    out_of_memory = torch.OutOfMemoryError("CUDA out of memory.")
    release_graphs()
    with pretended_gpu():
        network = smooth().to("cuda")
        explained(network, pictures(2, 16), "dm")
        limit = BatchLimit(8, "full_grad")
        assert captured_graphs() > 0
        assert limit.shrink(out_of_memory, 8)
        assert (limit.size, captured_graphs()) == (8, 0)
        assert limit.shrink(out_of_memory, 8)
        assert limit.size == 4
        found = explained(network, pictures(2, 16), "dm")
        assert captured_graphs() > 0
        assert torch.equal(found.maps.cpu(), explained(network, pictures(2, 16), "dm", cuda_graphs=False).maps.cpu())


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 16, 64, 100])
def test_graphs_cover_all_rows_and_waste_at_most_a_quarter(batch: int) -> None:
    for rows in range(1, batch + 1):
        covered = list(parts(rows, batch))
        assert [i for part, _ in covered for i in range(part.start, part.stop)] == list(range(rows))
        assert all(part.stop - part.start <= size for part, size in covered)
        assert len({size for _, size in covered}) == 1
        assert sum(size for _, size in covered) - rows < max(-(-batch // 4), 2)


def test_masked_images_have_the_layout_of_the_network_without_a_copy() -> None:
    """With noise they were copied once more in every pass, on every device."""
    with pretended_gpu() as gpu:
        network, images = smooth().to("cuda"), pictures(7, 16)
        copies = []
        for noise in (0.0, 0.0, 0.5):
            gpu.kernels.clear()
            explained(network, images, "dm", noise=noise, cuda_graphs=False)
            copies.append(gpu.kernels["aten.clone.default"])
    assert copies[2] - copies[1] == 3 * 2, "one per background: three levels of two steps; a step has two passes"

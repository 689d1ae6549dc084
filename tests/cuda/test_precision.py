"""Precision of convolutions on the pretended GPU: IEEE float32, but for the passes that may use TF32."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from hdm_core import METHODS, Classifier, check, evaluate
from hdm_core.device import Precision
from hdm_core.network.folding import fold_network
from tests.cuda.settings import NETWORKS, explained
from tests.support.pretended_gpu import pretended_gpu
from tests.support.tiny_networks import pictures

CONVOLUTIONS = {torch.ops.aten.convolution.default: "forward", torch.ops.aten.convolution_backward.default: "backward"}


def as_tf32(x: Tensor) -> Tensor:
    """Round the mantissa of float32 to the 10 bits of TF32, halves to even."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + 0x0FFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


class CudnnConvolutions(TorchDispatchMode):
    """Mode that computes convolutions as cuDNN would with the flags of the moment.

    Attributes:
        seen: (forward or backward, tf32 or ieee, deterministic) -> number of float32 convolutions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple[str, str, bool]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func not in CONVOLUTIONS or args[0].dtype != torch.float32:
            return func(*args, **(kwargs or {}))
        tf32 = torch.backends.cudnn.allow_tf32
        self.seen[CONVOLUTIONS[func], "tf32" if tf32 else "ieee", torch.backends.cudnn.deterministic] += 1
        if tf32:
            factors = 2 if CONVOLUTIONS[func] == "forward" else 3
            args = (*(as_tf32(factor) for factor in args[:factors]), *args[factors:])
        return func(*args, **(kwargs or {}))


def kinds(convolutions: CudnnConvolutions) -> set[tuple[str, str, bool]]:
    return set(convolutions.seen)


def test_rounding_to_tf32_by_hand() -> None:
    values = torch.tensor([1.0, 1 + 2**-10, 1 + 2**-11, 1 + 3 * 2**-11, -(1 + 2**-12), 0.0])
    assert as_tf32(values).tolist() == [1.0, 1 + 2**-10, 1.0, 1 + 2**-9, -1.0, 0.0]


@pytest.mark.parametrize("method", [method for method in METHODS if method not in {"legrad", "attention_rollout"}])
def test_float32_is_never_rounded_to_tf32_and_kernels_are_deterministic(method: str) -> None:
    with pretended_gpu(), CudnnConvolutions() as convolutions:
        explained(NETWORKS["residual"]().to("cuda"), pictures(2, 16), method, precision="float32")
    assert {("forward", "ieee", True)} <= kinds(convolutions) <= {("forward", "ieee", True), ("backward", "ieee", True)}


@pytest.mark.parametrize("method", ["dm", "hdm", "rise"])
def test_tf32_is_for_the_passes_of_masks_and_nothing_else(method: str) -> None:
    with pretended_gpu(), CudnnConvolutions() as convolutions:
        explained(NETWORKS["residual"]().to("cuda"), pictures(2, 16), method, precision="tf32")
    assert ("forward", "tf32", True) in kinds(convolutions)
    assert ("backward", "tf32", True) in kinds(convolutions) or method == "rise"
    assert ("forward", "ieee", True) in kinds(convolutions), "the answer that is explained, and the check of the copy"


@pytest.mark.parametrize("precision", ["bfloat16", "tf32"])
def test_mask_is_in_float32_whatever_the_precision(precision: Precision) -> None:
    images = pictures(2, 16)
    expected = explained(NETWORKS["residual"](), images, "mask")
    with pretended_gpu(), CudnnConvolutions() as convolutions:
        found = explained(NETWORKS["residual"]().to("cuda"), images, "mask", precision=precision)
        assert torch.equal(found.maps.cpu(), expected.maps)
    assert kinds(convolutions) == {("forward", "ieee", True), ("backward", "ieee", True)}


def test_metrics_and_checks_are_in_float32() -> None:
    images = pictures(2, 16)
    with pretended_gpu(), CudnnConvolutions() as convolutions:
        network = NETWORKS["residual"]().to("cuda")
        evaluate(network, images, torch.rand(2, 16, 16), 0)
        check(network, images)
    assert kinds(convolutions) == {("forward", "ieee", True), ("backward", "ieee", True)}


def test_a_copy_is_folded_that_tf32_would_refuse() -> None:
    """Outside of what hdm sets, torch rounds to TF32, and the copy seems to answer otherwise."""
    images = pictures(2, 16)
    with pretended_gpu(), CudnnConvolutions():
        rounded = NETWORKS["normalised"]().to("cuda").requires_grad_(False)
        assert "other logits" in str(fold_network(rounded, images.to("cuda")).reason)
        classifier = Classifier.from_module(NETWORKS["normalised"]().to("cuda"))
        with classifier.frozen() as frozen:
            assert fold_network(frozen, images.to("cuda")).reason is None

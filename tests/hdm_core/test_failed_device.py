"""A device that fails at any call of a network: its error comes out, and no finding, map or number."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from hdm_core import Classifier, Preprocess, check, evaluate, explain
from hdm_core.methods import ablation_cam
from hdm_core.network import digest, folding
from hdm_core.network.digest import state_digest
from hdm_core.network.fusion import fused_copy
from hdm_core.network.tail import Tail, extract_tail
from hdm_core.network.target_layer import TargetLayer
from tests.support.failing_device import PLAIN, QUICK, Calling, fail_from
from tests.support.tiny_networks import pictures, smooth

# Later calls raise it again in truth; one that comes alone shows where it would be swallowed.
ONCE = pytest.mark.parametrize("once", [False, True], ids=["for_ever", "once"])


def classifier(call: int, once: bool = False) -> tuple[Classifier, SimpleNamespace]:
    before, count = fail_from(call, once=once)
    return Classifier(Calling(smooth(3), before).eval(), Preprocess(resize=16, crop=16)), count


def calls_of(action: Callable[[Classifier], object]) -> int:
    """Return the forwards that an action makes on a device that never fails."""
    made, count = classifier(10**9)
    action(made)
    return int(count.calls)


@ONCE
def test_check_has_no_finding_about_it_at_whichever_call_it_comes(once: bool) -> None:
    photographs = pictures(2, 16)
    calls = calls_of(lambda made: check(made, photographs, PLAIN))
    assert calls > 30
    for call in range(1, calls + 1):
        with pytest.raises(torch.AcceleratorError):
            check(classifier(call, once)[0], photographs, PLAIN)


@ONCE
@pytest.mark.parametrize("method", PLAIN)
def test_a_method_raises_it_at_whichever_call_it_comes(method: str, once: bool) -> None:
    images = pictures(3, 16)
    calls = calls_of(lambda made: explain(made, images, method, batch=2, **QUICK.get(method, {})))
    for call in {*range(1, 7), *range(7, calls, 1 + calls // 8), calls} & {
        *range(1, calls + 1)
    }:  # of all calls, those at the begin, and some of the loops
        with pytest.raises(torch.AcceleratorError):
            explain(classifier(call, once)[0], images, method, batch=2, **QUICK.get(method, {}))


@ONCE
def test_evaluate_raises_it_at_whichever_call_it_comes(once: bool) -> None:
    images, maps = pictures(2, 16), torch.rand(2, 16, 16, generator=torch.Generator().manual_seed(0))
    calls = calls_of(lambda made: evaluate(made, images, maps, [0, 1], batch=16))
    for call in range(1, calls + 1, 3):
        with pytest.raises(torch.AcceleratorError):
            evaluate(classifier(call, once)[0], images, maps, [0, 1], batch=16)


def test_the_digest_of_weights_on_a_failed_device_is_its_error() -> None:
    class Lost(torch.nn.Linear):
        def get_extra_state(self) -> object:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    with pytest.raises(torch.AcceleratorError):
        state_digest(Lost(2, 2))


def fail(*_: object) -> None:
    raise torch.AcceleratorError("CUDA error: device-side assert triggered")


class Assert(torch.nn.Module):
    """Network whose device fails as it is traced, copied for the nth time, or given channels last."""

    def __init__(self, *, traced: bool = False, copies: int = 0, channels_last: bool = False) -> None:
        super().__init__()
        self.features, self.head = torch.nn.Conv2d(3, 4, 3), torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        self.traced, self.channels_last = traced, channels_last
        self.copies = SimpleNamespace(left=copies)

    def __deepcopy__(self, memo: dict[int, object]) -> torch.nn.Module:
        self.copies.left -= 1
        if self.copies.left == 0:
            fail()
        return Assert()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not isinstance(images, torch.Tensor):
            if self.traced:
                fail()
        elif self.channels_last and not images.is_contiguous():
            raise torch.AcceleratorError("CUDA error: unspecified launch failure\nin a view")
        return self.head(self.features(images))


def swallows(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], object]]:
    """Return actions, each with one handler of errors that no call of a whole network reaches."""
    traced, images = Assert(traced=True), torch.rand(1, 3, 8, 8)
    monkeypatch.setattr(folding, "NetworkState", fail)
    monkeypatch.setattr(digest, "_bytes_of", fail)
    return {
        "tail": lambda: extract_tail(traced, TargetLayer(traced.features)),
        "second copy": lambda: fused_copy(Assert(copies=2).eval()),
        "state": lambda: folding.fold_network(Assert().eval(), images),
        "layout": lambda: folding._needs_contiguous(Assert(channels_last=True).eval(), images),
        "digest": lambda: state_digest(Assert()),
        "run of a tail": lambda: ablation_cam._run_tail(cast("Tail", SimpleNamespace(run=fail)), images),
    }


@pytest.mark.parametrize("place", ["tail", "second copy", "state", "layout", "digest", "run of a tail"])
def test_no_handler_of_a_networks_errors_swallows_it(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(torch.AcceleratorError):
        swallows(monkeypatch)[place]()

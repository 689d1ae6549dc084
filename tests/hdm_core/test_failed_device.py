"""A device that fails at any call of a network: its error comes out, and no finding, map or number."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from hdm_core import Classifier, Preprocess, check, evaluate, explain
from hdm_core.network.digest import state_digest
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

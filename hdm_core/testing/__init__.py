"""Contract suites of methods and metrics, for the tests of packages that add some.

A suite is a list of promises. `check_method` and `check_metric` check all of them in one line; to see each as a test of its own:

    @pytest.mark.parametrize("promise", METHOD_PROMISES, ids=lambda promise: promise.name)
    def test_my_method(promise): promise.check(MethodCase(MY_METHOD))  # an installed or registered method
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hdm_core.testing.method_networks  # noqa: F401 - adds its promises to METHOD_PROMISES
from hdm_core.methods import METHODS, Method
from hdm_core.metrics import METRICS, Metric
from hdm_core.testing.method_case import MethodCase
from hdm_core.testing.methods import METHOD_PROMISES
from hdm_core.testing.metrics import METRIC_PROMISES, MetricCase
from hdm_core.testing.promises import Promise, check_all, registered

__all__ = ["METHOD_PROMISES", "METRIC_PROMISES", "MethodCase", "MetricCase", "Promise", "check_method", "check_metric"]


def check_method(
    entry: Method,
    settings: Mapping[str, Any] | None = None,
    cheapest: Mapping[str, Any] | None = None,
    *,
    class_agnostic: bool = False,
    needs_layers: bool | None = None,
    refused: Mapping[str, str] | None = None,
) -> None:
    """Check everything that a method promises, on tiny networks.

    The method need not be registered.

    Args:
        entry: the method.
        settings: those that replace the default preset's, so that the check is quick.
        cheapest: cheaper ones still, for larger networks and many repetitions.
        class_agnostic: the map does not depend on the class that is explained.
        needs_layers: exported programs are refused; by default methods with a layer do that.
        refused: families of networks that the method refuses, such as "convnext", with words of its error.

    Raises:
        AssertionError: for the first promise that is broken, with its name.
    """
    refuses = bool(entry.layer) if needs_layers is None else needs_layers
    case = MethodCase(entry, settings or {}, cheapest or {}, class_agnostic, refuses, refused or {})
    with registered(METHODS, entry):
        check_all(entry.id, case, METHOD_PROMISES)


def check_metric(entry: Metric) -> None:
    """Check everything that a metric promises, on tiny networks.

    The metric need not be registered.

    Raises:
        AssertionError: for the first promise that is broken, with its name.
    """
    with registered(METRICS, entry):
        check_all(entry.id, MetricCase(entry), METRIC_PROMISES)

"""The checks of tests/gpu and infra/gpu on the pretended GPU, so that on a real one they fail for its faults and not for theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hdm_core import METHODS, Classifier
from hdm_core.device import Precision
from infra.gpu.agreement import check_agreement as check_agreement_section
from infra.gpu.facts import pick_test_device
from infra.gpu.folding import check_folding
from infra.gpu.memory import RoomFor, check_memory
from infra.gpu.networks import build, images_for
from infra.gpu.session import Section, Session
from infra.gpu.sizes import FULL, TINY, Sizes
from infra.gpu.speed import check_speed
from infra.gpu.throughput import check_throughput
from tests.gpu.checks import PRECISIONS, check_agreement, check_fallback, check_graphs, check_halving, check_same_bits_twice
from tests.gpu.test_processes import digests_of_two_processes
from tests.support.pretended_gpu import pretended_gpu
from tests.support.tiny_networks import pictures, smooth


@pytest.mark.parametrize("method", METHODS)
def test_the_check_of_agreement(method: str) -> None:
    with pretended_gpu():
        check_agreement(method, "bfloat16", "cuda")


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", ["hdm", "grad_cam"])
def test_the_checks_in_each_precision(method: str, precision: Precision) -> None:
    with pretended_gpu():
        check_agreement(method, precision, "cuda")
        check_same_bits_twice(method, precision, "cuda")


@pytest.mark.parametrize(("method", "precision"), [("hdm", "bfloat16"), ("dm", "tf32"), ("mask", "float32")])
def test_the_check_of_graphs(method: str, precision: Precision) -> None:
    with pretended_gpu():
        check_graphs(method, precision, "cuda")


def test_the_check_of_graphs_fails_where_none_is_captured() -> None:
    with pytest.raises(AssertionError, match="no pass was captured"):
        check_graphs("hdm", "float32", "cpu")


def test_the_check_of_the_fallback() -> None:
    with pretended_gpu():
        check_fallback("cuda")


def test_the_check_of_halving() -> None:
    classifier = Classifier.from_module(RoomFor(smooth(), 3).eval())
    fits, _ = check_halving(classifier, pictures(6, 16), 8)
    assert fits == 2
    with pytest.raises(AssertionError, match="memory did not run out"):
        check_halving(classifier, pictures(2, 16), 2)


# test_gpu_harness.py runs all of them in one go.
@pytest.mark.nightly
@pytest.mark.parametrize("check", [check_folding, check_agreement_section, check_speed, check_throughput, check_memory])
def test_a_section_runs(check: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.gpu.speed.kernels", lambda call, device: (call(), (0, 0.0))[1])  # the profiler needs a driver
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: None)
    session = Session(tmp_path, 250, TINY)
    with pretended_gpu():
        assert pick_test_device().type == "cuda"
        session.run([Section("checked", check, 250)])  # type: ignore[arg-type]
    assert session.result["errors"] == []
    assert "no time" not in session.line()
    if check is check_speed:
        facts = session.result["checked"]["small_resnet 4"]
        assert facts["of_graphed"] > 0
        assert facts["graphs"] > 0


@pytest.mark.slow
def test_the_check_of_two_processes() -> None:
    first, second = digests_of_two_processes()
    assert first == second
    assert len(first[1]) == 64


@pytest.mark.parametrize("sizes", [FULL, TINY])
def test_the_settings_are_those_of_the_methods(sizes: Sizes) -> None:
    for method, settings in [*sizes.settings.items(), *sizes.timed.items()]:
        METHODS[method].configure(**settings)
    assert sizes.batch in sizes.batches
    assert sizes.explained[0] >= sizes.batch or sizes.tiny


def test_networks_and_images_are_on_the_gpu() -> None:
    with pretended_gpu():
        classifier = build("small_resnet", 32, torch.device("cuda", 0))
        assert images_for(classifier, 9).device.type == "cuda"

"""`python -m benchmarks`: its output, not its speed."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import reference
from benchmarks.libraries import PROGRAMS, library
from benchmarks.methods import bench_method, comparable_methods
from benchmarks.metrics import bench_metrics
from benchmarks.sequential import sequential_dm
from hdm_core import METHODS, Classifier, MetricSettings
from hdm_core.masking.consistency import ConsistencyLoss, PassCounter
from hdm_core.masking.dynamic import dm_passes, dynamic_mask
from hdm_core.metrics.curves import Protocol
from hdm_core.metrics.evaluate import metric_forwards
from hdm_core.settings import DMSettings
from pipeline.errors import InputError
from tests.support.small_run import benchmark
from tests.support.tiny_networks import pictures, smooth


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("relative", [False, True])
def test_the_sequential_version_is_dm(relative: bool) -> None:
    settings = DMSettings(sizes=(2, 3), ratios=(2, 3), steps=5, learning_rate=0.1, eta=0.5, relative=relative, keep_fraction=0.6)
    network, image, passes = smooth().requires_grad_(False), pictures(1, 12), PassCounter()
    found = sequential_dm(network, image, 1, settings, passes)
    loss = ConsistencyLoss(network, image, torch.tensor([1]), torch.zeros(1, 3, 1, 1), "logit", 8, PassCounter(), relative)
    torch.testing.assert_close(found, dynamic_mask(loss, settings)[0, 0], rtol=0, atol=1e-8)
    assert passes.total == dm_passes(settings, 12, 12)


@pytest.mark.slow
def test_bench_engine_compares_with_the_bare_network_and_with_one_mask_after_another() -> None:
    ended = benchmark("engine", "--arch", "mobilenet_v2", "--images", 2, "--pairs", 2, "--steps", 1, "--crop", 64, "--json")
    assert ended.returncode == 0, ended.stderr
    (result,) = json.loads(ended.stdout.splitlines()[-1])["engine"]
    assert result["network"] == "mobilenet_v2"
    assert (result["images"], result["pairs"]) == (2, 2)
    assert result["engine_ms"] > 0
    assert result["efficiency"] == pytest.approx(result["bare_ms"] / result["engine_ms"], rel=0.5), "the median of the ratios"
    assert result["speedup"] == pytest.approx(result["sequential_ms"] / result["engine_ms"])
    assert result["correlation"] > 0.99
    assert result["peak_mib"] > 0


@pytest.mark.parametrize("protocol", ["paper", "rise"])
def test_bench_metrics_counts_the_forwards_that_the_metrics_make(protocol: Protocol, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "MIN_SECONDS", 0.0)
    found = bench_metrics(Classifier.from_module(smooth()), pictures(2, 8), 3, MetricSettings(protocol=protocol), 2)
    assert (found.images, found.maps, found.pairs) == (2, 3, 2)
    assert found.forwards == 2 * metric_forwards(8, 8, protocol, 3)
    low, high = found.efficiency_range
    assert 0 < low <= found.efficiency <= high
    json.dumps(found.as_dict())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("method", ["gradient", "deeplift", "rise", "grad_cam", "xgrad_cam", "eigen_cam", "full_grad"])
def test_bench_methods_compares_with_the_fastest_library(method: str) -> None:
    classifier = Classifier.from_torchvision("mobilenet_v2")
    found = bench_method(classifier, pictures(2, 32), method, 1)
    assert found.library in PROGRAMS[method]
    assert found.images == (1 if method == "rise" else 2)
    assert found.ratio == found.library_ms / found.ours_ms
    assert not any(module._forward_hooks for module in classifier.module.modules()), "libraries work on a copy"
    json.dumps(found.as_dict())


def test_only_methods_of_the_registry_are_compared() -> None:
    assert set(PROGRAMS) < set(METHODS)
    assert comparable_methods(["rise", "gradient"]) == ["gradient", "rise"]
    with pytest.raises(InputError, match="no library has a method 'hdm'"):
        comparable_methods(["hdm"])


def test_a_library_that_is_missing_is_one_line() -> None:
    with pytest.raises(InputError, match=r"nosuchlibrary is not installed: .* hdm-pipeline\[dev\]"):
        library("nosuchlibrary")


@pytest.mark.slow
def test_bench_metrics_and_methods_end_with_one_json_object() -> None:
    small = ("--images", 1, "--pairs", 1, "--crop", 32, "--json")
    ended = benchmark("metrics", "--arch", "mobilenet_v2", "--maps", 1, *small)
    assert ended.returncode == 0, ended.stderr
    assert [result["protocol"] for result in json.loads(ended.stdout.splitlines()[-1])["metrics"]] == ["paper", "rise"]
    ended = benchmark("methods", "--only", "eigen_cam,full_grad", *small)
    assert ended.returncode == 0, ended.stderr
    assert [result["method"] for result in json.loads(ended.stdout.splitlines()[-1])["methods"]] == ["eigen_cam", "full_grad"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["methods", "--only", "dm"], "no library has a method 'dm'"),
        (["engine", "--arch", "mobilenet_v9"], "no classification network 'mobilenet_v9'"),
        (["pareto", "demo", "--split", "all"], "--split all: choose from choose, report"),
        (["pareto", "demo", "demo"], "two cases have the same name"),
        (["pareto", "demo", "--only", "slow"], "no candidate 'slow'"),
    ],
    ids=str,
)
def test_bad_input_is_one_line(arguments: list[str], words: str) -> None:
    ended = benchmark(*arguments)
    assert ended.returncode == 2
    assert words in ended.stderr.strip().splitlines()[-1]

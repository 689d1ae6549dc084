"""`python -m benchmarks`: its output, not its speed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from benchmarks import reference
from benchmarks.cli import main
from benchmarks.libraries import PROGRAMS, library
from benchmarks.methods import bench_method, comparable_methods
from benchmarks.metrics import bench_metrics
from benchmarks.sequential import sequential_dm
from hdm_core import METHODS, Classifier, MetricSettings
from hdm_core.masking.consistency import ConsistencyLoss
from hdm_core.masking.dynamic import dm_passes, dynamic_mask
from hdm_core.masking.pass_counter import PassCounter
from hdm_core.metrics.curves import Protocol
from hdm_core.metrics.evaluate import metric_forwards
from hdm_core.settings import DMSettings
from pipeline.errors import InputError
from pipeline.execution.cluster import CPU_ENVIRONMENT
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


Run = Callable[..., dict[str, Any]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`python -m benchmarks ... --json` in this process, with short measurements; the printed object. test_scale.py starts the real one."""
    monkeypatch.setattr(reference, "MIN_SECONDS", 0.1)
    for name, value in CPU_ENVIRONMENT.items():  # else the command starts itself once more
        monkeypatch.setenv(name, value)

    def run(*arguments: object) -> dict[str, Any]:
        monkeypatch.setattr("sys.argv", ["benchmarks", *map(str, arguments), "--threads", "1", "--json"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


@pytest.mark.nightly
def test_bench_engine_compares_with_the_bare_network_and_with_one_mask_after_another(command: Run) -> None:
    (result,) = command("engine", "--arch", "mobilenet_v2", "--images", 2, "--pairs", 2, "--steps", 1, "--crop", 64)["engine"]
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
    assert found.forwards == 2 * metric_forwards(8, 8, MetricSettings(protocol=protocol), 3)
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


@pytest.mark.filterwarnings("ignore")
def test_bench_metrics_and_methods_end_with_one_json_object(command: Run) -> None:
    small = ("--images", 1, "--pairs", 1, "--crop", 32)
    results = command("metrics", "--arch", "mobilenet_v2", "--maps", 1, *small)["metrics"]
    assert [result["protocol"] for result in results] == ["paper", "rise"]
    results = command("methods", "--only", "eigen_cam,full_grad", *small)["methods"]
    assert [result["method"] for result in results] == ["eigen_cam", "full_grad"]


@pytest.mark.nightly
def test_bench_memory_measures_at_start_middle_and_end(command: Run) -> None:
    result = command("memory", "--calls", 20)["memory"]
    assert [each["calls"] for each in result["measurements"]] == [0, 10, 20]
    assert all(each["resident_mib"] > 100 for each in result["measurements"])
    assert result["methods"][0] == "integrated_gradients"
    # 35 kB per call remained while every call made a torch.fx module: 0.7 MiB.
    assert result["measurements"][-1]["traced_mib"] - result["measurements"][1]["traced_mib"] < 0.2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["methods", "--only", "dm"], "no library has a method 'dm'"),
        (["engine", "--arch", "mobilenet_v9"], "no classification network 'mobilenet_v9'"),
        (["pareto", "demo", "--split", "all"], "--split all: choose from choose, report"),
        (["pareto", "demo", "demo"], "two cases have the same name"),
        (["pareto", "demo", "--only", "slow"], "no candidate 'slow'"),
        (["truth", "--only", "cam"], "no method 'cam'"),
        (["throughput", "--executor", "dask"], "--executor dask: choose ray or local"),
        (["throughput", "--executor", "local"], "--workers 2: the executor local has one worker"),
        (["truth", "--figure", "maps.gif"], "--figure maps.gif: choose a name that ends"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in CPU_ENVIRONMENT.items():  # else the command starts itself once more
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.argv", ["benchmarks", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert words in capsys.readouterr().err.strip().splitlines()[-1]

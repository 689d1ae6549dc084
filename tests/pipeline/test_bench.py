"""`hdm bench engine`: what it says, not how fast it is."""

from __future__ import annotations

import json

import pytest
import torch

from hdm_core.consistency import Consistency, Passes
from hdm_core.dynamic import dm_passes, dynamic_mask
from hdm_core.settings import DMSettings
from pipeline.bench.sequential import one_after_another
from tests.models import pictures, smooth
from tests.small_run import hdm


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("relative", [False, True])
def test_the_sequential_version_is_dm(relative: bool) -> None:
    settings = DMSettings(sizes=(2, 3), ratios=(2, 3), steps=5, learning_rate=0.1, eta=0.5, relative=relative, keep=0.6)
    network, image, passes = smooth().requires_grad_(False), pictures(1, 12), Passes()
    found = one_after_another(network, image, 1, settings, passes)
    loss = Consistency(network, image, torch.tensor([1]), torch.zeros(1, 3, 1, 1), "logit", 8, Passes(), relative)
    torch.testing.assert_close(found, dynamic_mask(loss, settings)[0, 0], rtol=0, atol=1e-8)
    assert passes.total == dm_passes(settings, 12, 12)


@pytest.mark.slow
def test_bench_engine_compares_with_the_bare_network_and_with_one_mask_after_another() -> None:
    ended = hdm("bench", "engine", "--arch", "mobilenet_v2", "--images", 2, "--pairs", 2, "--steps", 1, "--crop", 64, "--json")
    assert ended.returncode == 0, ended.stderr
    (result,) = json.loads(ended.stdout.splitlines()[-1])["engine"]
    assert result["network"] == "mobilenet_v2"
    assert (result["images"], result["pairs"]) == (2, 2)
    assert result["engine_ms"] > 0
    assert result["efficiency"] == pytest.approx(result["bare_ms"] / result["engine_ms"], rel=0.5), "the median of the ratios"
    assert result["speedup"] == pytest.approx(result["sequential_ms"] / result["engine_ms"])
    assert result["correlation"] > 0.99
    assert result["peak_mib"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["engine", "--arch", "mobilenet_v9"], "no classification network 'mobilenet_v9'"),
        (["pareto", "demo", "--split", "all"], "--split all: choose from choose, report"),
        (["pareto", "demo", "demo"], "two cases have the same name"),
        (["pareto", "demo", "--only", "slow"], "no candidate 'slow'"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_one_line(arguments: list[str], words: str) -> None:
    ended = hdm("bench", *arguments)
    assert ended.returncode == 2
    assert words in ended.stderr.strip().splitlines()[-1]

"""The race of runs against loops: what is counted, and that both do the same work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.race.cases import CASES
from benchmarks.race.loops import deletion_insertion
from benchmarks.race.measure import _correlation, _lengths
from benchmarks.throughput import save_photographs
from hdm_core import Classifier, evaluate
from pipeline.config.load import load_config
from tests.support.tiny_networks import smooth


def test_lines_of_a_loop_are_counted_without_docstrings_and_empty_lines() -> None:
    counted = {name: case.lines() for name, case in CASES.items()}
    # Photographs 16 and load 4, of which Python's own formatting of the source counts; 7 of Grad-CAM.
    assert 20 <= counted["grad_cam"] <= 40
    assert counted["grad_cam"] < counted["grad_cam_measured"]
    assert counted["grad_cam"] < counted["rise"] < counted["dm"]


def test_every_case_is_a_valid_run(tmp_path: Path) -> None:
    dataset = {"kind": "folder", "root": str(tmp_path)}
    for name, case in CASES.items():
        config = load_config({"name": name, "dataset": dataset, "classifier": {"arch": "mobilenet_v2"}, "output": "runs"} | case.keys)
        assert len(config.methods) == 1


def test_the_loop_measures_the_curves_of_the_paper() -> None:
    network, generator = smooth(3), torch.Generator().manual_seed(0)
    image = torch.randn(3, 16, 16, generator=generator)
    saliency = torch.rand(16, 16, generator=generator)
    target = network(image[None]).argmax(1)
    ours = evaluate(Classifier.from_module(network), image[None], saliency[None], target, torch.zeros(1, 16, 16, dtype=torch.bool))
    values = next(iter(ours.by_baseline.values()))
    expected = [float(values["deletion_auc"][0]), float(values["insertion_auc"][0])]
    np.testing.assert_allclose(deletion_insertion(network, image, saliency.numpy()), expected, atol=2e-3)


@pytest.mark.filterwarnings("ignore")
def test_run_and_loop_give_the_same_maps(tmp_path: Path) -> None:
    paths = save_photographs(tmp_path / "images", 8)
    for side in ("loop", "pipeline"):
        end, few, many, peak = _lengths(side, "grad_cam", "mobilenet_v2", 64, paths, tmp_path)  # type: ignore[arg-type]
        assert end > 0
        assert min(few) > 0
        assert min(many) > 0
        assert peak > 50
    correlation = _correlation("grad_cam", paths, tmp_path)
    assert correlation is None or correlation > 0.95
    assert len(list((tmp_path / "loop/many").glob("*.npy"))) == 8

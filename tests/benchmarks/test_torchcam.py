"""`python -m benchmarks torchcam`: torch-cam's numbers and ours on the same maps."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.torchcam import bench_torchcam
from pipeline.config.load import load_config
from pipeline.errors import InputError
from tests.support.small_run import config, photographs

pytest.importorskip("torchcam")


def test_the_same_maps_have_the_same_numbers(tmp_path: Path) -> None:
    run = load_config(str(config(tmp_path, photographs(tmp_path / "photographs", 6))))
    cam, layer_cam, control = bench_torchcam(run, "choose", 3, ["grad_cam", "layer_cam", "center"])
    for row in (cam, layer_cam):
        assert row.images == 3
        assert row.same_drop == pytest.approx(row.torchcam_drop, abs=1e-4)
        assert row.same_increase == pytest.approx(row.torchcam_increase)
        assert row.map_difference is not None
        assert row.map_difference < 0.05  # upsampled before or after the normalisation
    assert (control.torchcam_drop, control.map_difference, control.flat) == (None, None, 0)
    with pytest.raises(InputError, match="has only 3 readable ones"):
        bench_torchcam(run, "choose", 4, ["grad_cam"])

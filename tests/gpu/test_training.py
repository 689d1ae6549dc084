"""Training on a GPU, where the packages that it needs are installed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="training needs Arrow, which an image for a GPU may lack")
pytest.importorskip("s3fs", reason="training needs s3fs, which an image for a GPU may lack")
pytest.importorskip("tenacity", reason="training needs tenacity, which an image for a GPU may lack")

from tests.gpu.marks import ON_GPU
from tests.gpu.training import trained
from tests.support.colour_images import write_colour_dataset

pytestmark = ON_GPU


def test_a_training_on_the_gpu_begins_with_the_losses_of_the_cpu(tmp_path: Path) -> None:
    folder = write_colour_dataset(tmp_path / "colours", per_class=4)
    expected, found = (trained(device, folder) for device in ("cpu", "cuda"))
    assert {value.device.type for value in found.best.values()} == {"cpu"}
    losses = [[entry["loss"] for entry in state.history] for state in (expected, found)]
    # Each epoch has one step. Rounding decides the first steps of Adam where a gradient is almost 0, and later losses follow.
    assert losses[1][0] == pytest.approx(losses[0][0], rel=1e-4)
    assert losses[1] == pytest.approx(losses[0], rel=0.05)


def test_a_training_in_bfloat16_has_finite_losses(tmp_path: Path) -> None:
    folder = write_colour_dataset(tmp_path / "colours", per_class=4)
    state = trained("cuda", folder, precision="bfloat16")
    assert all(math.isfinite(entry["loss"]) for entry in state.history)
    assert len(state.history) == 4

"""Small runs for tests of the real command: MobileNetV2 on 64 x 64 pixels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from pipeline.config.schema import ComputeConfig
from tests.support.paths import ROOT

# The section `compute` where Ray is not what a test is about: one worker, in the command's own process where that can be configured.
LOCAL: dict[str, Any] = {"workers": 1} | ({"executor": "local"} if "executor" in ComputeConfig.model_fields else {})


def photographs(folder: Path, count: int) -> Path:
    """Fill a folder with smooth random images of two classes."""
    draw = np.random.default_rng(0)
    for index in range(count):
        small = draw.integers(0, 255, (5, 6, 3), dtype=np.uint8)
        path = folder / ("cats" if index % 2 else "dogs") / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((60, 50), Image.Resampling.BICUBIC).save(path)
    return folder


def config(tmp_path: Path, images: Path, **changes: Any) -> Path:
    """Write a configuration file of a run below tmp_path / "out"."""
    data: dict[str, Any] = {
        "name": "small",
        "dataset": {"kind": "folder", "root": str(images)},
        "classifier": {"source": "torchvision", "arch": "mobilenet_v2", "weights": "IMAGENET1K_V1", "resize": 72, "crop": 64},
        "methods": ["hdm", "dm", "grad_cam"],
        "hdm": {"preset": "fast", "sizes": [4, 5], "steps": 4, "mix_steps": 3, "eta": 0.1},
        "dm": {"preset": "fast", "sizes": [4], "steps": 3, "eta": 0.1},
        "compute": {"workers": 2, "shard_size": 2},
        "output": str(tmp_path / "out"),
    }
    path = tmp_path / f"{changes.get('name', 'small')}.yaml"
    path.write_text(yaml.safe_dump(data | changes))
    return path


def command(*arguments: object) -> list[str]:
    """Return the command line of `hdm ...` in this environment's Python."""
    return [sys.executable, "-c", "from pipeline.cli.main import main; main()", *map(str, arguments)]


def hdm(*arguments: object, seconds: float = 240) -> subprocess.CompletedProcess[str]:
    """Run `hdm ...` to its end; one that is aborted leaves its stacks on stderr."""
    environment = os.environ | {"COLUMNS": "200", "PYTHONFAULTHANDLER": "1"}
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=seconds, env=environment)


def benchmark(*arguments: object, seconds: float = 240) -> subprocess.CompletedProcess[str]:
    """Run `python -m benchmarks ...` to its end."""
    command = [sys.executable, "-m", "benchmarks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, env=os.environ | {"COLUMNS": "200"})


def files(run: Path, *folders: str) -> dict[str, bytes]:
    """Return the bytes of all files in the given folders of a run."""
    return {
        str(path.relative_to(run)): path.read_bytes() for folder in folders for path in sorted((run / folder).rglob("*")) if path.is_file()
    }
